"""What a run will show, before its end: latents as small pictures, by a linear map."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from sd_pipeline.images import to_images
from sd_vae import AutoencoderKL

_SIDE = 16  # latents
_NUM_PICTURES = 8
_COARSE = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """Map scaled latents to colours: `weights` (C, 3) and `offset` (3,), float32 on the CPU."""

    weights: Tensor
    offset: Tensor

    def __call__(self, latents: Tensor) -> list[Image.Image]:
        """Return latents (B, C, h, w) as images of h x w pixels."""
        tokens = rearrange(latents.detach().float().cpu(), "b c h w -> b h w c")
        colours = tokens @ self.weights + self.offset
        return to_images(rearrange(colours, "b h w c -> b c h w"))


@torch.inference_mode()
def fit_preview(vae: AutoencoderKL) -> Preview:
    """Fit the map to an autoencoder: least squares from latents to the colours they stand for.

    It is fitted to this autoencoder's latents of eight pictures of smooth colours, made here, which
    takes a fraction of a step; so there is no table of numbers that a new model would lack.
    """
    weight = vae.post_quant_conv.weight
    pixels = _colours(_SIDE * vae.config.downsampling)
    latents = vae.scale(vae.encode(pixels.to(weight.device, weight.dtype)).mode())
    tokens = rearrange(latents.float().cpu(), "b c h w -> (b h w) c")
    wanted = rearrange(F.adaptive_avg_pool2d(pixels, _SIDE), "b c h w -> (b h w) c")
    known = torch.cat([tokens, torch.ones(len(tokens), 1)], dim=1)
    solution = torch.linalg.lstsq(known, wanted).solution
    return Preview(weights=solution[:-1], offset=solution[-1])


def _colours(side: int) -> Tensor:
    """Return pictures (8, 3, side, side) in [-1, 1] that flow from colour to colour."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((_NUM_PICTURES, 3, _COARSE, _COARSE), generator=generator) * 2 - 1
    return F.interpolate(coarse, size=(side, side), mode="bicubic").clamp(-1, 1)
