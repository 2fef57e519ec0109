"""Ladders of noise levels by name, beside the spacings of whole timesteps.

Each takes a noise schedule and N, and returns N levels (N,) float64 that descend; the 0 that ends
the ladder is not among them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from sd_sampler.errors import SamplerError
from sd_sampler.schedule import NoiseSchedule

Ladder = Callable[[NoiseSchedule, int], Tensor]
Span = Callable[[float, float, int], Tensor]

_ALIGNED = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
_ALIGNED_XL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
_BETA_SHAPE = 0.6
_BETA_GRID = 2**16


def karras_sigmas(sigma_min: float, sigma_max: float, num_steps: int, rho: float = 7.0) -> Tensor:
    """Return levels from sigma_max to sigma_min, evenly spaced in sigma^(1 / rho).

    Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models",
    arXiv 2206.00364, eq. 5.
    """
    low: float = sigma_min ** (1 / rho)
    high: float = sigma_max ** (1 / rho)
    return (high + _ramp(num_steps) * (low - high)) ** rho


def exponential_sigmas(sigma_min: float, sigma_max: float, num_steps: int) -> Tensor:
    """Return levels from sigma_max to sigma_min, evenly spaced in log sigma."""
    return polyexponential_sigmas(sigma_min, sigma_max, num_steps, rho=1.0)


def polyexponential_sigmas(
    sigma_min: float, sigma_max: float, num_steps: int, rho: float = 1.0
) -> Tensor:
    """Return levels whose log sigma falls as the power `rho` of what is left of the way.

    As in k-diffusion; above 1 more of them are low, and at 1 it is exponential.
    """
    left = (1 - _ramp(num_steps)) ** rho
    return (left * (math.log(sigma_max) - math.log(sigma_min)) + math.log(sigma_min)).exp()


def kl_optimal_sigmas(sigma_min: float, sigma_max: float, num_steps: int) -> Tensor:
    """Return levels evenly spaced in arctan sigma, which is the angle between signal and noise.

    Sabour et al., "Align Your Steps", arXiv 2404.14507, theorem 3.1: best for isotropic data.
    """
    low, high = math.atan(sigma_min), math.atan(sigma_max)
    return torch.tan(high + _ramp(num_steps) * (low - high))


def uniform(schedule: NoiseSchedule, num_steps: int) -> Tensor:
    """Space timesteps evenly from the last to 0, and read sigma between them in its logarithm."""
    return schedule.sigma_of((1 - _ramp(num_steps)) * (schedule.num_timesteps - 1))


def sgm_uniform(schedule: NoiseSchedule, num_steps: int) -> Tensor:
    """Space N + 1 timesteps evenly from the last to 0, and leave out the 0."""
    return schedule.sigma_of((1 - _ramp(num_steps + 1)[:-1]) * (schedule.num_timesteps - 1))


def simple(schedule: NoiseSchedule, num_steps: int) -> Tensor:
    """Take every (T / N)-th timestep from the last down, cut to whole ones."""
    stride = schedule.num_timesteps / num_steps
    steps = torch.tensor([int(i * stride) for i in range(num_steps)])
    return schedule.sigmas.flip(0)[steps]


def ddim_uniform(schedule: NoiseSchedule, num_steps: int) -> Tensor:
    """Take every (T // N)-th timestep from 1 up: leading spacing with an offset of 1."""
    stride = schedule.num_timesteps // num_steps
    steps = torch.arange(num_steps) * stride + 1
    return schedule.sigmas[steps.clamp(max=schedule.num_timesteps - 1)].flip(0)


def beta(schedule: NoiseSchedule, num_steps: int) -> Tensor:
    """Take the timesteps at the quantiles of Beta(0.6, 0.6): more of them at both ends.

    Lee et al., "Beta Sampling is All You Need", arXiv 2407.12173. diffusers' `use_beta_sigmas`
    takes quantiles of sigma instead, which the paper does not.
    """
    quantiles = 1 - torch.arange(num_steps, dtype=torch.float64) / num_steps
    exact = _beta_quantiles(quantiles) * (schedule.num_timesteps - 1)
    # The median is half of an odd number: it has to be a tie, for ties go to the even one.
    steps = exact.round(decimals=4).round().long()
    if bool((steps.diff() == 0).any()):
        raise SamplerError(
            f"{num_steps} steps repeat a timestep on the beta schedule: take fewer steps"
        )
    return schedule.sigmas[steps]


def align_your_steps(_schedule: NoiseSchedule, num_steps: int) -> Tensor:
    """Return Stable Diffusion 1.5's table: Sabour et al., arXiv 2404.14507, read in log sigma."""
    return _from_table(_ALIGNED, num_steps)


def align_your_steps_xl(_schedule: NoiseSchedule, num_steps: int) -> Tensor:
    """Return SDXL's table: Sabour et al., arXiv 2404.14507, read in log sigma."""
    return _from_table(_ALIGNED_XL, num_steps)


def lcm_timesteps(num_timesteps: int, num_steps: int, *, num_original: int = 50) -> Tensor:
    """Return the timesteps (N,) at which latent consistency models were distilled, evenly skipped.

    Luo et al., arXiv 2310.04378, section 4.3, rounded as in diffusers. Raises `SamplerError` for
    more steps than the `num_original` there are.
    """
    if num_steps > num_original:
        raise SamplerError(f"{num_steps} steps are too many: the lcm schedule has {num_original}")
    original = torch.arange(num_original, 0, -1) * (num_timesteps // num_original) - 1
    picked = torch.arange(num_steps, dtype=torch.float64) * (num_original / num_steps)
    return original[picked.floor().long()].double()


def lcm_ladder(schedule: NoiseSchedule, num_steps: int) -> Tensor:
    """Return the levels at `lcm_timesteps`."""
    return schedule.sigmas[lcm_timesteps(schedule.num_timesteps, num_steps).long()]


SPANS: Mapping[str, Span] = MappingProxyType(
    {
        "karras": karras_sigmas,
        "exponential": exponential_sigmas,
        "polyexponential": polyexponential_sigmas,
        "kl_optimal": kl_optimal_sigmas,
    }
)
"""Ladders between two levels, the table's ends."""

LADDERS: Mapping[str, Ladder] = MappingProxyType(
    {
        "uniform": uniform,
        "sgm_uniform": sgm_uniform,
        "simple": simple,
        "ddim_uniform": ddim_uniform,
        "beta": beta,
        "align_your_steps": align_your_steps,
        "align_your_steps_xl": align_your_steps_xl,
        "lcm": lcm_ladder,
    }
)
"""Ladders of a schedule's own levels, and tables."""


def _ramp(count: int) -> Tensor:
    return torch.linspace(0, 1, count, dtype=torch.float64)


def _from_table(table: Sequence[float], num_steps: int) -> Tensor:
    logs = torch.tensor(table, dtype=torch.float64).log()
    if num_steps + 1 == len(table):
        return logs.exp()[:-1]
    at = _ramp(num_steps + 1)[:-1] * (len(table) - 1)
    low = at.floor().long()
    return torch.lerp(logs[low], logs[low + 1], at - low).exp()


def _beta_quantiles(shares: Tensor) -> Tensor:
    """Invert the distribution function of Beta(0.6, 0.6), to 1e-6.

    With x = sin^2 of an angle the density is (sin 2 angle)^0.2 up to a factor, and has no poles.
    """
    edges = torch.linspace(0, math.pi / 2, _BETA_GRID + 1, dtype=torch.float64)
    middles = (edges[1:] + edges[:-1]) / 2
    mass = torch.sin(2 * middles) ** (2 * _BETA_SHAPE - 1)
    reached = torch.cat([mass.new_zeros(1), mass.cumsum(0)]) / mass.sum()
    at = (torch.searchsorted(reached, shares) - 1).clamp(0, _BETA_GRID - 1)
    part = ((shares - reached[at]) / (reached[at + 1] - reached[at])).clamp(0, 1)
    return torch.lerp(edges[at], edges[at + 1], part).sin() ** 2
