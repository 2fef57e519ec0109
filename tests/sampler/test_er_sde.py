"""ER-SDE-Solver against the paper's steps, written out, and its special cases."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sd_sampler import (
    NoiseSchedule,
    NoiseSource,
    Sampler,
    SamplerError,
    er_sde,
    euler,
    make_sigmas,
)
from tests.sampler.closed_forms import random_x, standard, variance_after, wavy

SCHEDULE = NoiseSchedule.scaled_linear()


def from_the_paper(
    denoise, x: Tensor, sigmas: Tensor, noise, *, eta: float, order: int, num_points: int
) -> Tensor:
    """Take the steps of arXiv 2309.06169 one by one, the integrals as sums evenly in sigma."""

    def phi(level: Tensor) -> Tensor:
        return level * ((level**0.3).exp() + 10) ** eta

    x0s: list[Tensor] = []
    slopes: list[Tensor] = [torch.zeros_like(x)]
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        x0s.append(denoise(x, sigma.expand(len(x))))
        if following == 0:
            return x0s[-1]
        ratio = phi(following) / phi(sigma)
        x = ratio * x + (1 - ratio) * x0s[-1]
        width = (sigma - following) / num_points
        levels = following + (torch.arange(num_points) + 0.5) * width
        if i > 0:
            slopes.append((x0s[i] - x0s[i - 1]) / (sigma - sigmas[i - 1]))
        if i > 0 and order > 1:
            integral = (width / phi(levels)).sum()
            x = x + (following - sigma + integral * phi(following)) * slopes[i]
        if i > 1 and order > 2:
            bend = 2 * (slopes[i] - slopes[i - 1]) / (sigma - sigmas[i - 2])
            integral = ((levels - sigma) * width / phi(levels)).sum()
            x = x + ((following - sigma) ** 2 / 2 + integral * phi(following)) * bend
        up = following**2 - (ratio * sigma) ** 2
        x = x + up.clamp(min=0).sqrt() * noise()
    raise AssertionError("the ladder does not end at 0")


@pytest.mark.parametrize("num_steps", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("ladder", ["karras", "leading"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_steps_are_those_of_the_paper(
    eta: float, order: int, ladder: str, num_steps: int
) -> None:
    sigmas, source = make_sigmas(ladder, SCHEDULE, num_steps), NoiseSource([0], (3, 4))

    def noise() -> Tensor:
        return source()[0].double()

    x = source.initial()[0].double() * sigmas[0]
    ours = er_sde(wavy, x, sigmas, eta=eta, order=order, noise=noise)
    source.initial()
    paper = from_the_paper(wavy, x, sigmas, noise, eta=eta, order=order, num_points=20_000)
    torch.testing.assert_close(ours, paper, rtol=0, atol=1e-5)


def test_of_first_order_and_without_noise_it_is_eulers_method() -> None:
    sigmas, x = make_sigmas("karras", SCHEDULE, 15), random_x(4, 3) * 14.6
    out = er_sde(wavy, x, sigmas, eta=0.0, order=1)
    torch.testing.assert_close(out, euler(wavy, x, sigmas))


@pytest.mark.parametrize(("order", "weak_order"), [(1, 1), (2, 2), (3, 2)])
def test_the_error_of_a_normals_variance_falls_with_the_order(order: int, weak_order: int) -> None:
    def sampler(denoise, x, sigmas, *, noise) -> Tensor:
        return er_sde(denoise, x, sigmas, order=order, noise=noise)

    errors = []
    for num_steps in (20, 40, 80, 160):
        sigmas = torch.logspace(1, -1, num_steps + 1, dtype=torch.float64)
        errors.append(abs(variance_after(sampler, standard, sigmas, 1 + 10**2) - (1 + 0.1**2)))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) >= weak_order - 0.15


def test_levels_of_any_height_are_walked() -> None:
    sigmas = torch.tensor([1e15, 1e7, 20.0, 1.0, 0.0], dtype=torch.float64)
    sampler: Sampler = er_sde
    out = sampler(standard, random_x(4, 3) * 1e15, sigmas, noise=lambda: torch.zeros(4, 3))
    assert out.isfinite().all()


def test_an_order_there_is_none_of_is_refused() -> None:
    with pytest.raises(SamplerError, match="order 4 is out of range: choose from 1 to 3"):
        er_sde(wavy, torch.ones(1, 1), torch.tensor([1.0, 0.0]), order=4, eta=0.0)
