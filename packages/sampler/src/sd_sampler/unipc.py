"""UniPC: a multistep predictor with a corrector that costs no evaluation of its own."""

import math
from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sd_sampler.protocols import Denoiser, Noise, OnStep, batch_sigma

_ORDER = 2


def unipc(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,  # noqa: ARG001  (one signature for all samplers)
    on_step: OnStep | None = None,
) -> Tensor:
    """Solve the ODE by UniPC-2, in x0, with B(h) = e^h - 1 (bh2); draw no noise.

    Zhao et al., "UniPC", arXiv 2302.04867, algorithms 7 and 8. Divided by alpha a step of h =
    log(s / s') is x' = (s'/s) x + (1 - e^-h) (x0 + sum of a_k D_k), with D_k the divided
    differences of x0 against the levels before and, in the corrector, against the level arrived at;
    the weights a solve R a = b of eq. 7. x0 at a level is asked for where the predictor arrives and
    then serves the corrector of the step before as well as the next step. The first step and the
    one to 0 are of first order.
    """
    levels = sigmas.tolist()
    past: deque[tuple[float, Tensor]] = deque(maxlen=_ORDER)  # level and x0, the newest first
    last_x, last_order = x, 0
    for step, (sigma, following) in enumerate(pairwise(levels)):
        x0 = denoise(x, batch_sigma(x, sigma))
        if past:
            x = _correct(last_x, past, (sigma, x0), last_order)
        past.appendleft((sigma, x0))
        order = min(len(past), _ORDER, len(levels) - 1 - step)
        last_x, last_order = x, order
        x = _predict(x, past, following, order)
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x


def _predict(x: Tensor, past: Sequence[tuple[float, Tensor]], to: float, order: int) -> Tensor:
    sigma, x0 = past[0]
    if to == 0:
        return x0
    h = math.log(sigma / to)
    aim = x0
    if order > 1:
        before, x0_before = past[1]
        # Of order 2 the paper takes a = 1/2 instead of solving, which is as accurate.
        aim = x0 + 0.5 * (x0_before - x0) / (math.log(sigma / before) / h)
    return to / sigma * x + (1 - to / sigma) * aim


def _correct(
    x: Tensor, past: Sequence[tuple[float, Tensor]], arrived: tuple[float, Tensor], order: int
) -> Tensor:
    """Redo the step from `past[0]` to the level arrived at, now that x0 is known there."""
    (sigma, x0), (to, x0_there) = past[0], arrived
    h = math.log(sigma / to)
    nodes = [math.log(sigma / level) / h for level, _ in list(past)[1:order]]
    differences = [
        (x0_before - x0) / node
        for node, (_, x0_before) in zip(nodes, list(past)[1:order], strict=True)
    ]
    weights = _weights([*nodes, 1.0], h) if order > 1 else [0.5]
    aim = x0
    for weight, difference in zip(weights, [*differences, x0_there - x0], strict=True):
        aim = aim + weight * difference
    return to / sigma * x + (1 - to / sigma) * aim


def _weights(nodes: Sequence[float], h: float) -> list[float]:
    """Solve R a = b, eq. 7: R_ik = nodes_k^i and b_i = (i + 1)! phi_(i + 2) / B, in -h."""
    base = math.expm1(-h)
    phi, factorial = base / -h - 1, 1
    b = []
    for i in range(1, len(nodes) + 1):
        b.append(phi * factorial / base)
        factorial *= i + 1
        phi = phi / -h - 1 / factorial
    row = torch.tensor(nodes, dtype=torch.float64)
    powers = torch.stack([row**i for i in range(len(nodes))])
    solved: list[float] = torch.linalg.solve(powers, torch.tensor(b, dtype=torch.float64)).tolist()
    return solved
