"""Euler's method for the probability-flow ODE, and its ancestral variant."""

from torch import Tensor

from sd_sampler.ddim import DDIMOptions, ddim
from sd_sampler.protocols import Denoiser, Noise, OnStep


def euler(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Integrate dx/ds = (x - x0) / s in straight steps, drawing no noise.

    Karras et al., arXiv 2206.00364, algorithm 1 without its correction. It is DDIM with eta 0:
    x + (s' - s) (x - x0) / s = x0 + s' (x - x0) / s.
    """
    return ddim(denoise, x, sigmas, noise=noise, on_step=on_step)


def euler_ancestral(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    eta: float = 1.0,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Step below the next level and climb to it with fresh noise: DDIM with this eta.

    Song et al., arXiv 2011.13456, appendix F (ancestral sampling of the variance-exploding SDE);
    its down level is sqrt(s'^2 - up^2), up as in `ddim`. Raises `SamplerError` for eta outside
    [0, 1], or where it asks for noise and none is given.
    """
    options = DDIMOptions(eta=eta)
    return ddim(denoise, x, sigmas, options=options, noise=noise, on_step=on_step)
