"""Denoisers whose samples have a closed form, and what shows that a sampler meets it."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sd_sampler import Sampler

MEAN, STD = 0.7, 0.4


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """Denoise perfectly for data drawn from N(MEAN, STD^2)."""
    variance = sigma[:, None] ** 2
    return (STD**2 * x + variance * MEAN) / (STD**2 + variance)


def standard(x: Tensor, sigma: Tensor) -> Tensor:
    """Denoise perfectly for data drawn from N(0, 1)."""
    return x / (1 + sigma[:, None] ** 2)


def gaussian_flow(x: Tensor, start: float, end: float) -> Tensor:
    """Solve the probability-flow ODE of N(MEAN, STD^2) from one noise level to another."""
    return MEAN + (x - MEAN) * math.sqrt((STD**2 + end**2) / (STD**2 + start**2))


def wavy(x: Tensor, sigma: Tensor) -> Tensor:
    """Denoise wrongly and nonlinearly, so that two samplers agree only if they are the same."""
    return torch.tanh(2 * x) / (1 + sigma[:, None]) + 0.1 * torch.sin(3 * x)


class Impulses:
    """In place of noise: entry k of the batch is given 1 at draw k and nothing else."""

    def __init__(self, count: int) -> None:
        self.count, self.drawn = count, 0

    def __call__(self) -> Tensor:
        self.drawn += 1
        return torch.eye(self.count, dtype=torch.float64)[self.drawn][:, None]


def variance_after(sampler: Sampler, denoise: Callable, sigmas: Tensor, start: float) -> float:
    """Return the variance of a linear sampler's output, each impulse's response squared."""
    x = torch.zeros(len(sigmas) + 1, 1, dtype=torch.float64)
    x[0] = start**0.5
    response = sampler(denoise, x, sigmas, noise=Impulses(len(x)))
    return float((response**2).sum())


def random_x(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)
