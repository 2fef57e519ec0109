"""Noise to train with that is not white: what white noise hides too late is learnt sooner.

White noise leaves the mean of a picture, and whatever else is large in it, visible up to the last
timestep, so a network that starts from pure noise has never learnt to choose them.
"""

import torch
from torch import Tensor
from torch.nn import functional

from sd_sampler.errors import SamplerError

_LEVELS = 6


def offset_noise(
    noise: Tensor, strength: float, generator: torch.Generator | None = None
) -> Tensor:
    """Add to noise (B, C, ...) one number a channel, `strength` times a standard normal one.

    Guttenberg, "Diffusion with Offset Noise" (2023), who takes 0.1. Raises `SamplerError` for a
    strength below 0.
    """
    if strength < 0:
        raise SamplerError(f"offset noise of strength {strength} must be 0 or more; 0.1 is usual")
    shape = (*noise.shape[:2], *(1 for _ in noise.shape[2:]))
    offset = torch.randn(shape, generator=generator, dtype=noise.dtype)
    return noise + strength * offset.to(noise.device)


def multires_noise(
    noise: Tensor, discount: float, generator: torch.Generator | None = None
) -> Tensor:
    """Add to noise (B, C, H, W) coarser noise, the i-th level times `discount` to the i.

    Whitaker, "Multi-Resolution Noise for Diffusion Model Training" (2023), who takes 0.1 to 0.9:
    each level is two to four times as coarse as the one before it, and at most as coarse as one
    number a channel. Each picture's noise is brought back to a standard deviation of 1. Raises
    `SamplerError` for a discount outside [0, 1).
    """
    if not 0 <= discount < 1:
        raise SamplerError(f"a discount of {discount} must be from 0 to below 1; 0.3 is usual")
    height, width = noise.shape[-2:]
    factor, total = 1.0, noise
    for level in range(1, _LEVELS):
        factor *= 2 + 2 * float(torch.rand((), generator=generator))
        size = (max(1, int(height / factor)), max(1, int(width / factor)))
        coarse = torch.randn(*noise.shape[:2], *size, generator=generator, dtype=noise.dtype)
        whole = functional.interpolate(coarse, (height, width), mode="bilinear")
        total = total + discount**level * whole.to(noise.device)
        if 1 in size:
            break
    return total / total.std(dim=(1, 2, 3), keepdim=True)
