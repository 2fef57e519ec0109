"""Samplers that remember the slopes of the steps before: LMS, DEIS and PLMS."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from sd_sampler.ddim import reread
from sd_sampler.protocols import Denoiser, Noise, OnStep, batch_sigma

# Adams-Bashforth's weights of equal steps, the newest slope first.
_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
# Gauss-Legendre nodes and weights on [-1, 1]: exact for polynomials up to degree 5.
_NODES = ((-math.sqrt(0.6), 5 / 9), (0.0, 8 / 9), (math.sqrt(0.6), 5 / 9))


def lms(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,  # noqa: ARG001  (one signature for all samplers)
    on_step: OnStep | None = None,
) -> Tensor:
    """Integrate the polynomial in sigma through the last four slopes; draw no noise.

    The linear multistep method of Adams and Bashforth for unequal steps (Hairer, Norsett and
    Wanner, "Solving Ordinary Differential Equations I", III.5), applied to dx/ds = (x - x0) / s.
    """
    return _through_slopes(denoise, x, sigmas, _linear_weights, 4, on_step)


def deis(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,  # noqa: ARG001  (one signature for all samplers)
    on_step: OnStep | None = None,
) -> Tensor:
    """Integrate the line in log sigma through the last two slopes; draw no noise.

    Zhang and Chen, "DEIS", arXiv 2204.13902, rho-AB of second order, with the polynomial in
    log(rho), rho = sigma: what is extrapolated is eps = (x - x0) / s. The step to 0 is Euler's.
    """
    return _through_slopes(denoise, x, sigmas, _logarithmic_weights, 2, on_step)


def plms(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    landings: Tensor | None = None,
    noise: Noise | None = None,  # noqa: ARG001  (one signature for all samplers)
    on_step: OnStep | None = None,
) -> Tensor:
    """Combine the last four eps as if steps were equal: the pseudo linear multistep method.

    Liu et al., "PNDM", arXiv 2202.09778, eq. 12 with DDIM's transfer of eq. 11. The first step is
    the improved Euler method, which asks twice. `landings` (N,) are as in `ddim`. What is
    combined is eps; diffusers combines whatever the network predicts, which is the same for eps
    alone. Draws no noise.
    """
    past: deque[Tensor] = deque(maxlen=4)
    levels = sigmas.tolist()
    aims = levels[1:] if landings is None else landings.tolist()
    for step, (sigma, landing) in enumerate(zip(levels[:-1], aims, strict=True)):
        following = levels[step + 1]
        x0 = denoise(x, batch_sigma(x, sigma))
        eps = (x - x0) / sigma
        past.appendleft(eps)
        if len(past) > 1:
            eps = _weighted(past, _ADAMS_BASHFORTH[len(past) - 1])
        elif following > 0:
            ahead = (x + (landing - sigma) * eps) * reread(landing, following)
            eps = (eps + (ahead - denoise(ahead, batch_sigma(x, following))) / following) / 2
        x = (x + (landing - sigma) * eps) * reread(landing, following)
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x


def _through_slopes(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    weigh: Callable[[Sequence[float], float, float], Sequence[float]],
    order: int,
    on_step: OnStep | None,
) -> Tensor:
    slopes: deque[Tensor] = deque(maxlen=order)
    levels: deque[float] = deque(maxlen=order)
    for step, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        x0 = denoise(x, batch_sigma(x, sigma))
        slopes.appendleft((x - x0) / sigma)
        levels.appendleft(sigma)
        x = x + _weighted(slopes, weigh(levels, sigma, following))
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x


def _weighted(slopes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], list(slopes)[1:], strict=True):
        total = total + weight * slope
    return total


def _linear_weights(levels: Sequence[float], start: float, end: float) -> list[float]:
    """Integrate from start to end the polynomials that are 1 at one level and 0 at the others."""
    middle, half = (start + end) / 2, (end - start) / 2
    points = [(middle + half * node, half * weight) for node, weight in _NODES]
    return [
        sum(
            weight * math.prod((at - other) / (level - other) for other in levels if other != level)
            for at, weight in points
        )
        for level in levels
    ]


def _logarithmic_weights(levels: Sequence[float], start: float, end: float) -> list[float]:
    """Integrate the lines in log sigma that are 1 at one of two levels and 0 at the other."""
    if len(levels) == 1 or end == 0:
        return [end - start] + [0.0] * (len(levels) - 1)
    newest, before = levels

    def antiderivative(sigma: float, zero: float, one: float) -> float:
        return sigma * (math.log(sigma / zero) - 1) / math.log(one / zero)

    return [
        antiderivative(end, zero, one) - antiderivative(start, zero, one)
        for zero, one in ((before, newest), (newest, before))
    ]
