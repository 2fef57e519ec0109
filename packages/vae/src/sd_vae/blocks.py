"""The blocks of the encoder and the decoder, under diffusers' names."""

from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from sd_ops import Conv2d, Linear, attention, group_norm, norm_silu, residual

__all__ = ["DownBlock", "MidBlock", "SelfAttention", "UpBlock", "activated", "new_norm"]

_NORM_EPS = 1e-6


def new_norm(num_channels: int, num_groups: int) -> nn.GroupNorm:
    """Make the norm of every block, eps 1e-6 (Wu & He 2018, arXiv:1803.08494)."""
    return nn.GroupNorm(num_groups, num_channels, eps=_NORM_EPS)


def activated(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Return the SiLU of normed x (B, C, H, W).

    What is between is kept for the backward pass: to compute it again takes 3 to 8 % of a training
    step, and spares 3 to 10 % of its memory.
    """
    return norm_silu(x, norm, recomputed=False)


class ResnetBlock(nn.Module):
    """Add two normed, activated 3x3 convolutions to the input (B, C, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm1 = new_norm(in_channels, num_groups)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = new_norm(out_channels, num_groups)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut: nn.Conv2d | None = None
        if in_channels != out_channels:
            self.conv_shortcut = Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        hidden: Tensor = self.conv1(activated(x, self.norm1))
        hidden = activated(hidden, self.norm2)  # under the same name, so that nothing else is held
        shortcut: Tensor = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return residual(self.conv2, hidden, shortcut=shortcut)


class SelfAttention(nn.Module):
    """Add single-head attention of every position on every other to the input (B, C, H, W)."""

    def __init__(self, num_channels: int, num_groups: int) -> None:
        super().__init__()
        self.group_norm = new_norm(num_channels, num_groups)
        self.to_q = Linear(num_channels, num_channels)
        self.to_k = Linear(num_channels, num_channels)
        self.to_v = Linear(num_channels, num_channels)
        self.to_out = nn.ModuleList([Linear(num_channels, num_channels)])
        self.backend = "auto"

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        tokens = rearrange(group_norm(x, self.group_norm), "b c h w -> b 1 (h w) c")
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        out: Tensor = self.to_out[0](attention(q, k, v, backend=self.backend))
        return x + rearrange(out, "b 1 (h w) c -> b c h w", h=x.shape[2])


class Downsample(nn.Module):
    """Halve height and width with a strided convolution, padded on the right and below only."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(num_channels, num_channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H/2, W/2)."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Double height and width by repeating pixels, then a convolution."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(num_channels, num_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


def _resnets(
    in_channels: int, out_channels: int, num_layers: int, num_groups: int
) -> nn.ModuleList:
    widths = [in_channels] + [out_channels] * num_layers
    return nn.ModuleList(
        ResnetBlock(before, after, num_groups) for before, after in pairwise(widths)
    )


class DownBlock(nn.Module):
    """Run res blocks, then halve the size unless this is the last block."""

    def __init__(
        self, in_channels: int, out_channels: int, num_layers: int, num_groups: int, last: bool
    ) -> None:
        super().__init__()
        self.resnets = _resnets(in_channels, out_channels, num_layers, num_groups)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(out_channels)])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H/2, W/2), or (B, C', H, W) in the last block."""
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class UpBlock(nn.Module):
    """Run res blocks, then double the size unless this is the last block."""

    def __init__(
        self, in_channels: int, out_channels: int, num_layers: int, num_groups: int, last: bool
    ) -> None:
        super().__init__()
        self.resnets = _resnets(in_channels, out_channels, num_layers, num_groups)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(out_channels)])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', 2H, 2W), or (B, C', H, W) in the last block."""
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class MidBlock(nn.Module):
    """Run a res block, self-attention where the config asks for it, and a res block."""

    def __init__(self, num_channels: int, num_groups: int, add_attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(num_channels, num_channels, num_groups) for _ in range(2)
        )
        self.attentions = nn.ModuleList(
            [SelfAttention(num_channels, num_groups)] if add_attention else []
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        before, after = self.resnets
        x = before(x)
        for layer in self.attentions:
            x = layer(x)
        out: Tensor = after(x)
        return out
