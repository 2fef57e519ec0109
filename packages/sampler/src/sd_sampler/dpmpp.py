"""DPM-Solver++ of second order, multistep."""

import math
from itertools import pairwise

from torch import Tensor

from sd_sampler.protocols import Denoiser, Noise, OnStep, batch_sigma


def dpmpp_2m(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,  # noqa: ARG001  (one signature for all samplers)
    on_step: OnStep | None = None,
) -> Tensor:
    """Solve the ODE by DPM-Solver++(2M): Lu et al., arXiv 2211.01095, algorithm 2; draw no noise.

    Divided by alpha, a step is x' = (s'/s) x + (1 - s'/s) D with D = x0 + (x0 - x0_last) / (2 r),
    r = h_last / h and h = log(s / s'). The first step and the one to 0, where h is infinite, are of
    first order, as in diffusers (`final_sigmas_type="zero"`).
    """
    levels = sigmas.tolist()
    last_x0, last_h = None, 0.0
    for step, (sigma, following) in enumerate(pairwise(levels)):
        x0 = denoise(x, batch_sigma(x, sigma))
        h = math.log(sigma / following) if following > 0 else math.inf
        corrected = x0
        if last_x0 is not None and following > 0:
            corrected = x0 + h / (2 * last_h) * (x0 - last_x0)
        ratio = following / sigma
        x = ratio * x + (1 - ratio) * corrected
        last_x0, last_h = x0, h
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x
