"""DPM-Solver++ for the reverse SDE: of second order in one step, and of two or three steps.

In h = log(s / s') the SDE of strength eta^2 (eta 1: the reverse of the forward process) has the
exact solution x' = e^-eh (s'/s) x + integral of x0 + s' sqrt(1 - e^-2eh) noise with eh = eta h, and
the samplers differ in how they guess x0 between the levels: Lu et al., arXiv 2211.01095, appendix
A, for the first two orders; the third is the same expansion with one term more.
"""

import math
from collections import deque
from itertools import pairwise

from torch import Tensor

from sd_sampler.ancestral import ancestral_step, check_noise
from sd_sampler.protocols import Denoiser, Noise, OnStep, batch_sigma


def dpmpp_sde(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    eta: float = 1.0,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Solve the SDE by DPM-Solver++(2S) with its midpoint half-way in log sigma.

    Both halves of a step follow one Brownian path: the noise of the whole is that of its first part
    and of the rest, in proportion to their shares of sigma, so two noises are drawn a step. The
    step to 0 is of first order. Raises `SamplerError` for eta outside [0, 1], or where it asks for
    noise and none is given.
    """
    check_noise("dpmpp_sde", eta, noise)
    for step, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        x0 = denoise(x, batch_sigma(x, sigma))
        if following == 0:
            x = x0
        else:
            middle = (sigma * following) ** 0.5
            first = second = None
            if noise is not None and eta > 0:
                first, second = noise(), noise()
            halfway = _climb(x, x0, sigma, middle, eta, first)
            aim = denoise(halfway, batch_sigma(x, middle))
            whole = None
            if first is not None and second is not None:
                share = (sigma - middle) / (sigma - following)
                whole = share**0.5 * first + (1 - share) ** 0.5 * second
            x = _climb(x, aim, sigma, following, eta, whole)
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x


def _climb(
    x: Tensor, x0: Tensor, sigma: float, following: float, eta: float, noise: Tensor | None
) -> Tensor:
    """Go straight to the level below `following` and climb to it."""
    down, up = ancestral_step(sigma, following, eta)
    x = x0 + down / sigma * (x - x0)
    return x if noise is None else x + up * noise


def dpmpp_2m_sde(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    eta: float = 1.0,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Solve the SDE by DPM-Solver++(2M), with the midpoint rule for the slope of x0.

    With k = (1 + eta) h the step is e^-k x + (1 - e^-k) (x0 + (x0 - x0_last) / (2 r)), r =
    h_last / h, and the noise. The first step and the one to 0 are of first order. Raises
    `SamplerError` for eta outside [0, 1], or where it asks for noise and none is given.
    """
    check_noise("dpmpp_2m_sde", eta, noise)
    last_x0, last_h = None, 0.0
    for step, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        x0 = denoise(x, batch_sigma(x, sigma))
        if following == 0:
            x = x0
        else:
            h = math.log(sigma / following)
            aim = x0 if last_x0 is None else x0 + h / (2 * last_h) * (x0 - last_x0)
            decay = math.exp(-(1 + eta) * h)
            x = decay * x + (1 - decay) * aim
            x = _diffuse(x, following, eta * h, noise)
            last_x0, last_h = x0, h
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x


def dpmpp_3m_sde(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    eta: float = 1.0,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Solve the SDE in three steps' x0, expanded to its second derivative in log sigma.

    With k = (1 + eta) h, phi2 = (e^-k - 1) / k + 1 and phi3 = phi2 / k - 1/2 the step is
    e^-k x + (1 - e^-k) x0 + phi2 D1 - phi3 D2, D1 and D2 being the divided differences of x0 scaled
    to h. The first two steps are of lower order, and the one to 0 of first. Raises `SamplerError`
    for eta outside [0, 1], or where it asks for noise and none is given.
    """
    check_noise("dpmpp_3m_sde", eta, noise)
    past: deque[tuple[Tensor, float]] = deque(
        maxlen=2
    )  # x0 and h of the steps before, newest first
    for step, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        x0 = denoise(x, batch_sigma(x, sigma))
        if following == 0:
            x = x0
        else:
            h = math.log(sigma / following)
            k = (1 + eta) * h
            x = math.exp(-k) * x - math.expm1(-k) * x0 + _higher_orders(x0, past, h, k)
            x = _diffuse(x, following, eta * h, noise)
            past.appendleft((x0, h))
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x


def _higher_orders(
    x0: Tensor, past: "deque[tuple[Tensor, float]]", h: float, k: float
) -> Tensor | float:
    if not past:
        return 0.0
    phi2 = math.expm1(-k) / k + 1
    last, last_h = past[0]
    r0 = last_h / h
    first = (x0 - last) / r0
    if len(past) == 1:
        return phi2 * first
    before, before_h = past[1]
    r1 = before_h / h
    bend = (first - (last - before) / r1) / (r0 + r1)
    return phi2 * (first + r0 * bend) - (phi2 / k - 0.5) * bend


def _diffuse(x: Tensor, following: float, eta_h: float, noise: Noise | None) -> Tensor:
    if noise is None or eta_h == 0:
        return x
    return x + following * math.sqrt(-math.expm1(-2 * eta_h)) * noise()
