"""ER-SDE-Solver: the reverse SDE with the amount of noise that a function of sigma says."""

import math
from collections import deque
from itertools import pairwise

from torch import Tensor

from sd_sampler.ancestral import check_noise
from sd_sampler.errors import SamplerError
from sd_sampler.protocols import Denoiser, Noise, OnStep, batch_sigma

_NUM_POINTS = 200  # of the integrals; twice as many change a picture by less than 1e-6 of its range


def er_sde(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    eta: float = 1.0,
    order: int = 3,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Solve the extended reverse-time SDE by ER-SDE-Solver-`order`: Cui et al., arXiv 2309.06169.

    The variance-exploding solvers of the paper in x0, with its noise scale phi(s) = s (exp(s^0.3) +
    10)^eta; eta 0 is the ODE. With r = phi(s') / phi(s) a step is r x + (1 - r) x0 + sqrt(s'^2 -
    r^2 s^2) noise, and the change of x0 between the levels, which its divided differences tell: of
    the first degree at order 2, of the second too at 3. The first two steps are of lower order, and
    the one to 0 of first. Raises `SamplerError` for eta outside [0, 1] or another order than 1, 2
    or 3, or where noise is needed and none is given.
    """
    check_noise("er_sde", eta, noise)
    if order not in (1, 2, 3):
        raise SamplerError(f"order {order} is out of range: choose from 1 to 3")
    past: deque[tuple[float, Tensor]] = deque(maxlen=order - 1)  # level and x0, the newest first
    for step, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        x0 = denoise(x, batch_sigma(x, sigma))
        if following == 0:
            x = x0
        else:
            ratio = _scale_ratio(following, sigma, eta)
            x = ratio * x + (1 - ratio) * x0
            if past:
                x = x + _change(sigma, x0, past, _weights(sigma, following, eta))
            if noise is not None and eta > 0:
                x = x + math.sqrt(max(following**2 - (ratio * sigma) ** 2, 0.0)) * noise()
            past.appendleft((sigma, x0))
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x


def _change(
    sigma: float, x0: Tensor, past: "deque[tuple[float, Tensor]]", weights: tuple[float, float]
) -> Tensor:
    """Return the step's share of the derivatives of x0 by sigma, as many as the past tells."""
    last, last_x0 = past[0]
    slope = (x0 - last_x0) / (sigma - last)
    if len(past) == 1:
        return weights[0] * slope
    before, before_x0 = past[1]
    bend = (slope - (last_x0 - before_x0) / (last - before)) / ((sigma - before) / 2)
    return weights[0] * slope + weights[1] * bend


def _weights(sigma: float, following: float, eta: float) -> tuple[float, float]:
    """Return how much the first and second derivative of x0 at s count in a step to s'.

    They are (s' - s)^k / k! plus the integral over l from s' to s of (l - s)^(k - 1) phi(s') /
    phi(l), by the midpoint rule in log l.
    """
    width = math.log(sigma / following) / _NUM_POINTS
    first = second = 0.0
    for point in range(_NUM_POINTS):
        level = following * math.exp((point + 0.5) * width)
        weight = _scale_ratio(following, level, eta) * level * width
        first += weight
        second += weight * (level - sigma)
    span = following - sigma
    return span + first, span**2 / 2 + second


def _scale_ratio(low: float, high: float, eta: float) -> float:
    """Return phi(low) / phi(high)."""
    return low / high * math.exp(eta * (_log_excess(low) - _log_excess(high)))


def _log_excess(sigma: float) -> float:
    """Return log(exp(s^0.3) + 10) without overflow."""
    power: float = sigma**0.3
    return power + math.log1p(10 * math.exp(-power))
