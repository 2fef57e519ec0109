"""The spatial transformer: self-attention, cross-attention on the text, GEGLU."""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from sd_ops import (
    Conv2d,
    Linear,
    Tokenwise,
    attention,
    gated,
    group_norm,
    layer_norm,
    residual,
)
from sd_unet.batches import as_many
from sd_unet.config import TransformerConfig

Project = Callable[[Tensor, Sequence[nn.Linear]], Sequence[Tensor]]
"""What gives keys and values (B, T, C) of a context (B, T, D) by two layers."""


class Attention(nn.Module):
    """Multi-head attention of tokens to a context (Vaswani et al., arXiv:1706.03762, 3.2.2)."""

    def __init__(self, config: TransformerConfig, context_dim: int, *, bias: bool = False) -> None:
        super().__init__()
        channels = config.channels
        self.num_heads = config.num_heads
        self.upcast = config.upcast_attention
        self.backend = "auto"
        self.project: Project = _project
        # Three linears, always called as modules: adapters hook them.
        self.to_q = Linear(channels, channels, bias=bias)
        self.to_k = Linear(context_dim, channels, bias=bias)
        self.to_v = Linear(context_dim, channels, bias=bias)
        self.to_out = nn.Sequential(Linear(channels, channels))

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Let tokens (B, N, C) attend to context (B, T, D); returns (B, N, C)."""
        out: Tensor = self.to_out(self._attended(tokens, context))
        return out

    def with_shortcut(self, tokens: Tensor, context: Tensor, *, shortcut: Tensor) -> Tensor:
        """Return `shortcut` (B, N, C) + the result."""
        return residual(self.to_out[0], self._attended(tokens, context), shortcut=shortcut)

    def _attended(self, tokens: Tensor, context: Tensor) -> Tensor:
        query, key, value = (
            rearrange(projected, "b t (h d) -> b h t d", h=self.num_heads)
            for projected in (
                self.to_q(tokens),
                *self.project(context, (self.to_k, self.to_v)),
            )
        )
        attended = self._attend(query, key, value)
        return rearrange(attended, "b h t d -> b t (h d)").to(tokens.dtype)

    def seeing_itself(self, tokens: Tensor) -> Tensor:
        """Return what comes out where every token attends to itself alone: its own value."""
        # The linears are called as modules, so that adapters are heeded here too.
        out: Tensor = self.to_out(self.to_v(tokens).to(tokens.dtype))
        return out

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend in the projections' type, or in float32 where their scores overflow halves."""
        if not self.upcast:
            return attention(query, key, value, backend=self.backend)
        query, key, value = query.float(), key.float(), value.float()
        device = query.device.type
        if device == "meta":
            return attention(query, key, value, backend=self.backend)
        # Autocast would undo the line above.
        with torch.autocast(device, enabled=False):
            return attention(query, key, value, backend=self.backend)


def _project(context: Tensor, layers: Sequence[nn.Linear]) -> Sequence[Tensor]:
    return [layer(context) for layer in layers]


class GEGLU(nn.Module):
    """A linear whose one half is gated by the GELU of the other (Shazeer, arXiv:2002.05202)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = Linear(in_channels, 2 * out_channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C')."""
        return gated(self.proj, tokens)


class FeedForward(nn.Module):
    """The token-wise network of a transformer block, four times as wide inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Index 1 is dropout's place in the key names of this layout.
        self.net = Tokenwise(
            GEGLU(channels, 4 * channels), nn.Identity(), Linear(4 * channels, channels)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        out: Tensor = self.net(tokens)
        return out

    def with_shortcut(self, tokens: Tensor, *, shortcut: Tensor) -> Tensor:
        """Return `shortcut` (B, N, C) + the result."""
        return residual(self.net, tokens, shortcut=shortcut)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, each on normed tokens and added."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.channels)
        self.attn1 = Attention(config, config.channels)
        assert config.cross_attention_dim is not None, "without a text there are no transformers"
        self.norm2 = nn.LayerNorm(config.channels)
        self.attn2 = Attention(config, config.cross_attention_dim)
        self.norm3 = nn.LayerNorm(config.channels)
        self.ff = FeedForward(config.channels)

    def forward(self, tokens: Tensor, hidden_states: Tensor) -> Tensor:
        """Map tokens (B, N, C), with the text's hidden states (R * B, T, D), to (R * B, N, C)."""
        tokens = as_many(self._looking_around(tokens), hidden_states)
        tokens = residual(
            self.attn2, layer_norm(tokens, self.norm2), hidden_states, shortcut=tokens
        )
        return residual(self.ff, layer_norm(tokens, self.norm3), shortcut=tokens)

    def _looking_around(self, tokens: Tensor) -> Tensor:
        normed = layer_norm(tokens, self.norm1)  # no longer held once this is done
        return residual(self.attn1, normed, normed, shortcut=tokens)


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of a feature map (arXiv:2112.10752, appendix E.2.1)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        channels = config.channels
        self.norm = nn.GroupNorm(config.norm_num_groups, channels, eps=1e-6)
        self.proj_in = _projection(config)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(config) for _ in range(config.num_layers)
        )
        self.proj_out = _projection(config)

    def forward(self, x: Tensor, hidden_states: Tensor) -> Tensor:
        """Add to x (B, C, H, W) what its pixels find in one another and in the text (R * B, T, D).

        Returns (R * B, C, H, W): each picture with each of its R texts.
        """
        linear = isinstance(self.proj_in, nn.Linear)
        hidden = group_norm(x, self.norm)
        if not linear:
            hidden = self.proj_in(hidden)
        # In channels_last both turns are views.
        tokens = rearrange(hidden, "b c h w -> b (h w) c")
        if linear:
            tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, hidden_states)
        if linear:
            tokens = self.proj_out(tokens)
        hidden = rearrange(tokens, "b (h w) c -> b c h w", h=x.shape[-2])
        shortcut = as_many(x, hidden)
        return shortcut + hidden if linear else residual(self.proj_out, hidden, shortcut=shortcut)


def _projection(config: TransformerConfig) -> nn.Module:
    if config.use_linear_projection:
        return Linear(config.channels, config.channels)
    return Conv2d(config.channels, config.channels, kernel_size=1)
