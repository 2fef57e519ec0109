"""The residual block, and the steps between resolutions."""

from torch import Tensor, nn
from torch.nn import functional as F

from sd_ops import Conv2d, Linear, norm_silu, residual
from sd_unet.batches import as_many
from sd_unet.config import UNetConfig


class ResnetBlock(nn.Module):
    """Two convolutions with the timestep added between: (B, C, H, W) -> (B, C', H, W).

    Ho et al., arXiv:2006.11239, appendix B.
    """

    def __init__(self, in_channels: int, out_channels: int, config: UNetConfig) -> None:
        super().__init__()
        groups, eps = config.norm_num_groups, config.norm_eps
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.time_emb_proj = Linear(config.time_embed_dim, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.conv_shortcut: nn.Conv2d | None = None
        if in_channels != out_channels:
            self.conv_shortcut = Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor, time_embedding: Tensor) -> Tensor:
        """Add to x (B, C, H, W) what the block finds at the time embedded in (B, D), or fewer."""
        hidden = self.conv1(norm_silu(x, self.norm1))
        time = as_many(self.time_emb_proj(F.silu(time_embedding)), hidden)
        hidden = norm_silu(hidden, self.norm2, added=time)
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return residual(self.conv2, hidden, shortcut=shortcut)


class Downsample(nn.Module):
    """Halve the resolution, rounding up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, kernel_size=3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, ceil(H / 2), ceil(W / 2))."""
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Return to the resolution of the skip that comes next."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map (B, C, h, w) to (B, C, H, W), size being (H, W)."""
        out: Tensor = self.conv(F.interpolate(x, size=size, mode="nearest"))
        return out
