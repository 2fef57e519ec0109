"""Samplers of second order that ask the denoiser twice a step."""

from itertools import pairwise

from torch import Tensor

from sd_sampler.ancestral import ancestral_step, check_noise
from sd_sampler.protocols import Denoiser, Noise, OnStep, batch_sigma


def heun(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,  # noqa: ARG001  (one signature for all samplers)
    on_step: OnStep | None = None,
) -> Tensor:
    """Step by the mean slope of both ends: Karras et al., arXiv 2206.00364, algorithm 1.

    With dx/ds = (x - x0) / s the step is x + (s' - s) (d + d') / 2, d' being the slope where
    Euler's method arrives. The step to 0, where there is no slope, is Euler's. Draws no noise.
    """
    for step, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        x0 = denoise(x, batch_sigma(x, sigma))
        slope = (x - x0) / sigma
        ahead = x + (following - sigma) * slope
        if following > 0:
            slope_ahead = (ahead - denoise(ahead, batch_sigma(x, following))) / following
            ahead = x + (following - sigma) * (slope + slope_ahead) / 2
        x = ahead
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x


def dpm2(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Step by the slope half-way in log sigma, drawing no noise.

    DPM-Solver-2 (Lu et al., arXiv 2206.00927, algorithm 1) in the form that samplers of the field
    have: at the midpoint sqrt(s s') the slope is read off and carried over the whole step. The step
    to 0 is Euler's.
    """
    return dpm2_ancestral(denoise, x, sigmas, eta=0.0, noise=noise, on_step=on_step)


def dpm2_ancestral(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    eta: float = 1.0,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Take `dpm2`'s step to the level below, and climb to the next one with fresh noise.

    The level below is that of `ancestral_step`. Raises `SamplerError` for eta outside [0, 1], or
    where it asks for noise and none is given.
    """
    check_noise("dpm2_a", eta, noise)
    for step, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        down, up = ancestral_step(sigma, following, eta)
        x0 = denoise(x, batch_sigma(x, sigma))
        slope = (x - x0) / sigma
        if down > 0:
            middle = (sigma * down) ** 0.5
            halfway = x + (middle - sigma) * slope
            slope = (halfway - denoise(halfway, batch_sigma(x, middle))) / middle
        x = x + (down - sigma) * slope
        if noise is not None and up > 0:
            x = x + up * noise()
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x


def dpmpp_2s_ancestral(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    eta: float = 1.0,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Take DPM-Solver++(2S)'s step to the level below, and climb with fresh noise.

    Lu et al., arXiv 2211.01095, algorithm 1 with r = 1/2, where x0 is read at the midpoint in log
    sigma: x' = (s'/s) x + (1 - s'/s) x0(middle). The level below is that of `ancestral_step`; the
    step to 0 is of first order. Raises `SamplerError` for eta outside [0, 1], or where it asks for
    noise and none is given.
    """
    check_noise("dpmpp_2s_a", eta, noise)
    for step, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        down, up = ancestral_step(sigma, following, eta)
        x0 = denoise(x, batch_sigma(x, sigma))
        aim = x0
        if down > 0:
            middle = (sigma * down) ** 0.5
            halfway = x0 + middle / sigma * (x - x0)
            aim = denoise(halfway, batch_sigma(x, middle))
        x = aim + down / sigma * (x - aim)
        if noise is not None and up > 0:
            x = x + up * noise()
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x
