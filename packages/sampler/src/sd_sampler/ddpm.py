"""DDPM's ancestral sampling with the two fixed variances of the paper."""

from itertools import pairwise

from torch import Tensor

from sd_sampler.ddim import DDIMOptions, ddim
from sd_sampler.errors import SamplerError
from sd_sampler.protocols import Denoiser, Noise, OnStep, batch_sigma

_ANCESTRAL = DDIMOptions(eta=1.0)


def ddpm(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Draw from the posterior q(x' | x, x0), the small variance: Ho et al., 2006.11239, eq. 6, 7.

    It is DDIM with eta 1 (arXiv 2010.02502, section 4.1). With `clipped` around the denoiser it is
    diffusers' `fixed_small` with `clip_sample`. Raises `SamplerError` where no noise is given.
    """
    return ddim(denoise, x, sigmas, options=_ANCESTRAL, noise=noise, on_step=on_step)


def ddpm_large(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise_at_end: bool = False,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Take the posterior's mean and the forward step's variance, beta: 2006.11239, section 3.2.

    Divided by sqrt(alphas_cumprod), the mean of eq. 7 is x0 + (s'/s)^2 (x - x0), and beta_t is
    (1 + s'^2) (s^2 - s'^2) / (1 + s^2). The last step adds no noise (algorithm 2) unless
    `noise_at_end`, which is what diffusers' `fixed_large` does if its last timestep is not 0.
    Raises `SamplerError` where no noise is given.
    """
    if noise is None:
        raise SamplerError("ddpm_large draws noise at every step: give noise=NoiseSource(...)")
    levels = sigmas.tolist()
    for step, (sigma, following) in enumerate(pairwise(levels)):
        x0 = denoise(x, batch_sigma(x, sigma))
        x = x0 + (following / sigma) ** 2 * (x - x0)
        if following > 0 or noise_at_end:
            variance = (1 + following**2) * (sigma**2 - following**2) / (1 + sigma**2)
            x = x + variance**0.5 * noise()
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x
