"""Pictures through the autoencoder, whole or in bands of rows."""

from typing import Literal

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from sd_pipeline.errors import PipelineError
from sd_pipeline.images import to_images
from sd_vae import AutoencoderKL, DiagonalGaussian, decode_in_bands, encode_in_bands

Tiling = Literal["auto", "on", "off"]
TILINGS: tuple[Tiling, ...] = ("auto", "on", "off")

# SDXL's own size. Beyond it a whole decode takes more memory than the rest of a run.
_LARGE = 1024 * 1024


def check_tiling(tiling: str) -> Tiling:
    """Return what is a `Tiling`; raises `PipelineError` for what is none."""
    for known in TILINGS:
        if tiling == known:
            return known
    raise PipelineError(f"vae-tiling is {tiling!r}; it must be {', '.join(TILINGS)}")


@torch.inference_mode()
def encode_pixels(vae: AutoencoderKL, pixels: Tensor, tiling: Tiling = "auto") -> DiagonalGaussian:
    """Map pixels (B, 3, H, W) in [-1, 1] on any device to the posterior over z (B, C, h, w).

    In bands where `tiling` says so, or on auto where a picture has more than 1024 x 1024 pixels: it
    is the same posterior, in memory that does not grow with the picture.
    """
    if _in_bands(pixels.shape[-2] * pixels.shape[-1], tiling):
        return encode_in_bands(vae, pixels)
    weight = vae.post_quant_conv.weight
    return vae.encode(pixels.to(weight.device, weight.dtype))


@torch.inference_mode()
def decode_latents(
    vae: AutoencoderKL, latents: Tensor, tiling: Tiling = "auto"
) -> list[Image.Image]:
    """Turn scaled latents (B, C, h, w) into 8-bit RGB images of f times their size.

    In bands as for `encode_pixels`.
    """
    z = vae.unscale(latents)
    height, width = (side * vae.config.downsampling for side in z.shape[-2:])
    if not _in_bands(height * width, tiling):
        return to_images(vae.decode(z))
    out = torch.empty((len(z), 3, height, width), dtype=torch.uint8)
    decode_in_bands(vae, z, out=out)
    return [Image.fromarray(one) for one in rearrange(out, "b c h w -> b h w c").numpy()]


def _in_bands(num_pixels: int, tiling: Tiling) -> bool:
    check_tiling(tiling)
    return tiling == "on" or (tiling == "auto" and num_pixels > _LARGE)
