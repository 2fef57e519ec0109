"""The diffusion transformer: a denoiser without convolutions, of the UNet's protocol."""

import math
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from sd_ops import Conv2d, Linear, resolve_backend
from sd_unet.batches import as_many
from sd_unet.blocks import Block
from sd_unet.conditions import AddedConditions
from sd_unet.dit_config import DiTConfig
from sd_unet.errors import UNetInputError
from sd_unet.timestep import TimestepEmbedding, sinusoidal_embedding
from sd_unet.told import check_told, new_class_table, with_classes
from sd_unet.transformer import Attention, FeedForward

_TIME_CHANNELS = 256
_NORM_EPS = 1e-6


class DiTBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, steered by the time (adaLN-Zero).

    Peebles and Xie, arXiv:2212.09748, section 3.2; the cross-attention, which the time does not
    steer, is that of PixArt (Chen et al., arXiv:2310.00426, section 2.3).
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        channels = config.channels
        self.norm1 = _plain_norm(channels)
        self.attn1 = Attention(config.transformer, channels)
        self.attn2: Attention | None = None
        if config.conditioning == "cross" and config.cross_attention_dim is not None:
            self.norm2 = _plain_norm(channels)
            self.attn2 = Attention(config.transformer, config.cross_attention_dim)
        self.norm3 = _plain_norm(channels)
        self.ff = FeedForward(channels)
        self.modulation = Linear(channels, 6 * channels)

    def forward(
        self, tokens: Tensor, time_embedding: Tensor, hidden_states: Tensor | None
    ) -> Tensor:
        """Map tokens (B, N, C), the time (B, C) and the text's states (B, T, D) to (B, N, C)."""
        steering = self.modulation(F.silu(time_embedding))[:, None].chunk(6, dim=-1)
        shift_attn, scale_attn, gate_attn, shift_ff, scale_ff, gate_ff = steering
        normed = _modulated(self.norm1(tokens), shift_attn, scale_attn)
        tokens = tokens + gate_attn * self.attn1(normed, normed)
        if self.attn2 is not None and hidden_states is not None:
            tokens = tokens + self.attn2(self.norm2(tokens), hidden_states)
        normed = _modulated(self.norm3(tokens), shift_ff, scale_ff)
        out: Tensor = tokens + gate_ff * self.ff(normed)
        return out


class DiT(Block):
    """A transformer over patches of latents (Peebles and Xie, arXiv:2212.09748).

    It stands wherever a UNet does. A new one predicts zero, and each of its blocks is the identity:
    what steers them starts at zero, and the last layers of cross-attention do.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        channels, patch = config.channels, config.patch_size
        # Each patch is one token: a linear layer, written as the convolution that it is.
        self.conv_in = Conv2d(config.in_channels, channels, kernel_size=patch, stride=patch)
        self.time_embedding = TimestepEmbedding(_TIME_CHANNELS, channels)
        self.text_embedding: nn.Linear | None = None
        if config.conditioning == "adaln" and config.cross_attention_dim is not None:
            self.text_embedding = Linear(config.cross_attention_dim, channels)
        self.class_embedding: nn.Embedding | None = None
        if config.num_class_embeds is not None:
            self.class_embedding = new_class_table(config.num_class_embeds, channels)
        self.transformer_blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.num_layers))
        self.skips = nn.ModuleList(
            Linear(2 * channels, channels)
            for _ in range(config.num_layers // 2 if config.long_skips else 0)
        )
        self.norm_out = _plain_norm(channels)
        self.modulation_out = Linear(channels, 2 * channels)
        self.proj_out = Linear(channels, patch * patch * config.out_channels)
        self._initialise()

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        hidden_states: Tensor | None = None,
        added: AddedConditions | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """Predict (B, C, H, W) from latents, timesteps (B,) and the text's states (B, T, D).

        Classes (B,), and several times as many texts or classes, are taken as ``UNet`` takes them.
        Any H and W will do: what is no whole patch is filled up with zeros and cut off again.
        Raises ``UNetInputError`` where ``added`` is given, which only SDXL's networks take, and for
        texts and classes as ``UNet`` does.
        """
        check_told(self.config, latents, hidden_states, class_labels)
        steering = self.steering(latents, timesteps, hidden_states, added, class_labels)
        return self.steered(latents, steering, hidden_states)

    def steering(
        self,
        latents: Tensor,
        timesteps: Tensor,
        hidden_states: Tensor | None = None,
        added: AddedConditions | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """Return what every block is modulated by, (R * B, C): time, classes, the text's mean.

        Arguments are those of ``forward``, but for ``added`` unchecked.
        """
        if added is not None:
            raise UNetInputError("a DiT takes no added conditions: leave `added` out")
        told = class_labels if hidden_states is None else hidden_states
        if told is not None:
            timesteps = as_many(timesteps, told)
        sinusoids = sinusoidal_embedding(timesteps, _TIME_CHANNELS)
        time_embedding: Tensor = self.time_embedding(sinusoids.to(latents.dtype))
        if self.text_embedding is not None and hidden_states is not None:
            time_embedding = time_embedding + self.text_embedding(hidden_states.mean(dim=1))
        return with_classes(time_embedding, self.class_embedding, class_labels)

    def steered(
        self, latents: Tensor, steering: Tensor, hidden_states: Tensor | None = None
    ) -> Tensor:
        """Predict (R * B, C, H, W) from latents (B, C, H, W) and what ``steering`` gave for them.

        Nearly all of the network's work: what other engines convert.
        """
        latents = as_many(latents, steering)
        patch, (height, width) = self.config.patch_size, latents.shape[-2:]
        x = self.conv_in(F.pad(latents, (0, -width % patch, 0, -height % patch)))
        rows, columns = x.shape[-2:]
        positions = _positions(rows, columns, self.config, x.device)
        tokens = rearrange(x, "b c h w -> b (h w) c") + positions.to(x)
        tokens = self._through_blocks(tokens, steering, hidden_states)
        shift, scale = self.modulation_out(F.silu(steering))[:, None].chunk(2, dim=-1)
        patches = self.proj_out(_modulated(self.norm_out(tokens), shift, scale))
        out: Tensor = rearrange(
            patches, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, p=patch, q=patch
        )
        return out[..., :height, :width]

    def set_attention_backend(self, name: str) -> None:
        """Choose the attention of every layer, as ``UNet.set_attention_backend`` does."""
        weight = self.conv_in.weight
        resolve_backend(name, weight.device, weight.dtype)
        for module in self.modules():
            if isinstance(module, Attention):
                module.backend = name

    def _through_blocks(
        self, tokens: Tensor, time_embedding: Tensor, hidden_states: Tensor | None
    ) -> Tensor:
        kept: list[Tensor] = []
        first_joined = len(self.transformer_blocks) - len(self.skips)
        for index, block in enumerate(self.transformer_blocks):
            if index >= first_joined:
                joined = torch.cat([tokens, kept.pop()], dim=-1)
                tokens = self.skips[index - first_joined](joined)
            tokens = self.run(block, tokens, time_embedding, hidden_states)
            if index < len(self.skips):
                kept.append(tokens)
        return tokens

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.flatten(1))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.time_embedding.linear_1.weight, std=0.02)
        nn.init.normal_(self.time_embedding.linear_2.weight, std=0.02)
        zeroed: list[nn.Module] = [self.modulation_out, self.proj_out]
        for block in self.transformer_blocks:
            assert isinstance(block, DiTBlock)
            zeroed.append(block.modulation)
            if block.attn2 is not None:
                zeroed.append(block.attn2.to_out)
        for layer in zeroed:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)


@lru_cache(maxsize=8)
def _positions(rows: int, columns: int, config: DiTConfig, device: torch.device) -> Tensor:
    """Return sines and cosines of each token's column, then row, (rows * columns, C).

    Numbered as at the trained size: another size lays the same square finer or coarser. They are
    kept on the device, where a copy at every step would wait for the processor.
    """
    trained, quarter = config.sample_size / config.patch_size, config.channels // 4
    frequencies = torch.exp(-math.log(10000.0) / quarter * _count(quarter))
    y, x = _count(rows) * (trained / rows), _count(columns) * (trained / columns)
    places = torch.stack(torch.meshgrid(y, x, indexing="ij")).flatten(1)
    angles = places[:, :, None] * frequencies
    of_y, of_x = torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)
    return torch.cat([of_x, of_y], dim=-1).float().to(device)


def _count(number: int) -> Tensor:
    # On the CPU whatever torch's default device is, for what is kept outlives that.
    return torch.arange(number, dtype=torch.float64, device="cpu")


def _plain_norm(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, eps=_NORM_EPS, elementwise_affine=False)


def _modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return tokens * (1 + scale) + shift
