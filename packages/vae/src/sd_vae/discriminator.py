"""The discriminator that judges pictures patch by patch (Isola et al. 2017, arXiv:1611.07004)."""

from dataclasses import dataclass
from math import gcd
from typing import Literal

from torch import Tensor, nn

from sd_vae.config import VAEError

__all__ = ["Discriminator", "DiscriminatorConfig"]

_KERNEL_SIZE = 4
_SLOPE = 0.2
_MOST_WIDENED = 8
_INIT_STD = 0.02
_MOST_GROUPS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscriminatorConfig:
    """Say the architecture of a discriminator; the defaults are the 70x70 one of latent diffusion.

    `num_filters` is the width of the first layer ("ndf"), `num_layers` counts the strided ones:
    with 3 of them a logit sees 70 x 70 px. Raises `VAEError` for numbers below one and a norm that
    is not here.
    """

    in_channels: int = 3
    num_filters: int = 64
    num_layers: int = 3
    norm: Literal["batch", "group"] = "batch"

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_filters", "num_layers"):
            if getattr(self, name) < 1:
                raise VAEError(f"{name} {getattr(self, name)} is too few; use at least 1")
        if self.norm not in ("batch", "group"):
            raise VAEError(f"unknown norm {self.norm!r} of a discriminator; choose batch or group")

    @property
    def least_size(self) -> int:
        """The least side of a picture that can be judged, in pixels: there is one logit for it."""
        return 3 << self.num_layers

    def check_size(self, height: int, width: int) -> None:
        """Raise `VAEError` when a picture is too small to be judged."""
        if min(height, width) < self.least_size:
            raise VAEError(
                f"a picture of {width}x{height} is too small for a discriminator of "
                f"{self.num_layers} strided layers; take {self.least_size} px or more a side, or "
                "fewer layers"
            )


class Discriminator(nn.Module):
    """Judge every patch of a picture: a logit each, high where it looks real.

    The keys of the state dict are those of the PatchGANs of pix2pix and latent diffusion, but for
    the running statistics of batch norms.
    """

    def __init__(self, config: DiscriminatorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DiscriminatorConfig()
        width = config.num_filters
        layers: list[nn.Module] = [_conv(config.in_channels, width, stride=2), _activation()]
        for i in range(1, config.num_layers + 1):
            wider = config.num_filters * min(2**i, _MOST_WIDENED)
            # A norm brings a bias of its own. The last of these layers has no stride.
            stride = 1 if i == config.num_layers else 2
            layers.append(_conv(width, wider, stride=stride, bias=False))
            layers += [_norm(config.norm, wider), _activation()]
            width = wider
        layers.append(_conv(width, 1, stride=1))
        self.main = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) in [-1, 1] to logits (B, 1, h, w).

        With n strided layers h is H / 2**n - 2. Raises `VAEError` when that is less than one.
        """
        self.config.check_size(*images.shape[-2:])
        logits: Tensor = self.main(images)
        return logits


def _conv(in_channels: int, out_channels: int, *, stride: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, _KERNEL_SIZE, stride=stride, padding=1, bias=bias)


def _activation() -> nn.Module:
    return nn.LeakyReLU(_SLOPE)


def _norm(name: str, num_channels: int) -> nn.Module:
    if name == "group":
        return nn.GroupNorm(gcd(_MOST_GROUPS, num_channels), num_channels)
    # No running statistics: nothing here is ever judged outside training, and a batch that is not
    # finite would stay in them.
    return nn.BatchNorm2d(num_channels, track_running_stats=False)


def _initialise(module: nn.Module) -> None:
    """Draw the first weights as pix2pix and latent diffusion do."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, _INIT_STD)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, _INIT_STD)
