"""The tiny autoencoder's decoder (TAESD): pictures from latents in little time, nearly the same."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_ops import Conv2d
from sd_vae.config import VAEError

__all__ = ["TinyDecoder", "TinyDecoderConfig", "tiny_config", "tiny_names"]

_RANGE = 3.0  # latents beyond it are bent back
_FOLDER = "decoder.layers."  # of diffusers' AutoencoderTiny
_LAYER = re.compile(r"(\d{1,4})\.((?:conv\.\d\.)?(?:weight|bias))")


@dataclass(frozen=True, kw_only=True, slots=True)
class TinyDecoderConfig:
    """Say the architecture: so many blocks before each doubling of the sides, and after the last.

    Raises `VAEError` for no blocks at all, or numbers below 1.
    """

    latent_channels: int = 4
    out_channels: int = 3
    channels: int = 64
    num_blocks: tuple[int, ...] = (3, 3, 3, 1)

    def __post_init__(self) -> None:
        numbers = (self.latent_channels, self.out_channels, self.channels, *self.num_blocks)
        if not self.num_blocks or min(numbers) < 1:
            raise VAEError(f"{self} is no tiny decoder; every number must be at least 1")

    @property
    def upsampling(self) -> int:
        """Picture pixels per latent pixel along one side (f)."""
        return 1 << (len(self.num_blocks) - 1)


class TinyDecoder(nn.Module):
    """Turn the diffusion model's scaled latents into pictures, approximately.

    Keys are those of diffusers' AutoencoderTiny below `decoder.`. There is no attention and no
    norm: every pixel hangs on its neighbourhood alone.
    """

    def __init__(self, config: TinyDecoderConfig) -> None:
        super().__init__()
        self.config = config
        width, last = config.channels, len(config.num_blocks) - 1
        layers: list[nn.Module] = [Conv2d(config.latent_channels, width, 3, padding=1), nn.ReLU()]
        for stage, number in enumerate(config.num_blocks):
            layers += [_Block(width) for _ in range(number)]
            if stage < last:
                layers += [nn.Upsample(scale_factor=2), _convolution(width, bias=False)]
        layers.append(Conv2d(width, config.out_channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """Map scaled latents (B, C, h, w) to pictures (B, 3, f*h, f*w), about in [-1, 1].

        Latents are cast to the weights' type.
        """
        weight = next(self.parameters())
        x = torch.tanh(latents.to(weight.dtype) / _RANGE) * _RANGE
        out: Tensor = self.layers(x)
        return out * 2 - 1  # what was learnt is in [0, 1]


class _Block(nn.Module):
    """Three convolutions, added to what they are made of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The odd indices of this layout's key names are activations' places.
        self.conv = nn.Sequential(
            _convolution(channels),
            nn.ReLU(),
            _convolution(channels),
            nn.ReLU(),
            _convolution(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


def _convolution(channels: int, *, bias: bool = True) -> nn.Module:
    return Conv2d(channels, channels, 3, padding=1, bias=bias)


def tiny_names(keys: Iterable[str]) -> dict[str, str]:
    """Return a tiny decoder's keys, as `TinyDecoder` has them, with those that a file has.

    Files are of diffusers' layout, `decoder.layers.0.weight`, whose encoder is passed over, or of
    TAESD's own, `1.weight`: there number 0 is what bends latents back, and has no weights; one that
    begins with `0.weight` does not count it. Raises `VAEError` for keys of neither.
    """
    keys = tuple(keys)
    names = {key.removeprefix(_FOLDER): key for key in keys if key.startswith(_FOLDER)}
    names = names or {key: key for key in keys}
    found = {name: _LAYER.fullmatch(name) for name in names}
    first = min((int(match[1]) for match in found.values() if match), default=-1)
    if first not in (0, 1) or not all(found.values()):
        raise VAEError(
            f"these are no keys of a tiny autoencoder's decoder ({', '.join(sorted(keys)[:3])}); "
            "give those of TAESD's decoder, or of a whole AutoencoderTiny"
        )
    return {
        f"layers.{int(match[1]) - first}.{match[2]}": names[name]
        for name, match in found.items()
        if match
    }


def tiny_config(shapes: Mapping[str, tuple[int, ...]]) -> TinyDecoderConfig:
    """Return the architecture of a tiny decoder by the shapes of its tensors, under our names.

    Raises `VAEError` where they are no decoder's. An odd one is left to the loading to refuse.
    """
    numbers = sorted({int(key.split(".")[1]) for key in shapes})
    blocks, num_blocks = 0, list[int]()
    for number in numbers[1:]:
        if f"layers.{number}.conv.0.weight" in shapes:
            blocks += 1
        else:
            num_blocks.append(blocks)
            blocks = 0
    first, last = (shapes.get(f"layers.{number}.weight", ()) for number in (0, numbers[-1]))
    if len(first) != 4 or len(last) != 4 or not num_blocks or min(num_blocks) < 1:
        raise VAEError("these tensors are no tiny autoencoder's decoder; give TAESD's, or another")
    return TinyDecoderConfig(
        latent_channels=first[1],
        out_channels=last[0],
        channels=first[0],
        num_blocks=tuple(num_blocks),
    )
