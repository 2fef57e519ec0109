"""From a picture back to the noise that it would be drawn from."""

from itertools import pairwise

from torch import Tensor

from sd_sampler.errors import SamplerError
from sd_sampler.protocols import Denoiser, OnStep, batch_sigma


def ddim_inversion(
    denoise: Denoiser, x0: Tensor, sigmas: Tensor, *, on_step: OnStep | None = None
) -> Tensor:
    """Walk x0 (B, ...) up the ladder `sigmas` (N + 1,), descending to 0, and return x at its top.

    Song et al., arXiv 2010.02502, section 4.3: DDIM's ODE in the other direction, x + (s' - s) eps.
    As others have it (diffusers' DDIMInverseScheduler, null-text inversion), eps is what the
    network sees in the variance-preserving x of the level left, told the level arrived at: at 0
    there would be nothing to see. What it returns has standard deviation sqrt(1 + s^2). Raises
    `SamplerError` where `sigmas` is no such ladder.
    """
    levels = sigmas.flip(0).tolist()
    if len(levels) < 2 or levels[0] != 0 or any(low >= high for low, high in pairwise(levels)):
        raise SamplerError("sigmas must descend to 0: give the ladder that the picture is drawn on")
    x = x0
    for step, (sigma, following) in enumerate(pairwise(levels)):
        shown = x * ((1 + following**2) / (1 + sigma**2)) ** 0.5
        guess = denoise(shown, batch_sigma(x, following))
        x = x + (following - sigma) / following * (shown - guess)
        if on_step is not None:
            on_step(step, sigma, x, guess)
    return x
