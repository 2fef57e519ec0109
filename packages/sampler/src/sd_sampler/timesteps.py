"""Which timesteps a training batch sees."""

from collections.abc import Callable

import torch
from torch import Tensor

from sd_sampler.errors import unknown

TimestepSampler = Callable[[int, int, torch.Generator | None], Tensor]


def uniform_timesteps(
    batch_size: int, num_timesteps: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw timesteps (B,) int64 independently and evenly from [0, num_timesteps)."""
    return torch.randint(num_timesteps, (batch_size,), generator=generator)


def antithetic_timesteps(
    batch_size: int, num_timesteps: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw timesteps (B,) int64 in pairs t, T - 1 - t: evenly, yet with a steadier batch mean.

    The pairing that the code of Song et al., "DDIM", arXiv 2010.02502, trains with.
    """
    half = uniform_timesteps((batch_size + 1) // 2, num_timesteps, generator)
    return torch.cat([half, num_timesteps - 1 - half])[:batch_size]


def logit_normal_timesteps(
    batch_size: int, num_timesteps: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw timesteps (B,) int64 whose share of the way has a standard normal logit.

    Those in the middle, of which most is to be learnt, are seen most (Esser et al., arXiv
    2403.03206, section 3.1, with location 0 and scale 1).
    """
    share = torch.randn(batch_size, generator=generator).sigmoid()
    return (share * num_timesteps).long().clamp(max=num_timesteps - 1)


TIMESTEP_SAMPLERS: dict[str, TimestepSampler] = {
    "uniform": uniform_timesteps,
    "antithetic": antithetic_timesteps,
    "logit_normal": logit_normal_timesteps,
}


def timestep_sampler(name: str) -> TimestepSampler:
    """Find a timestep sampler by name; raises `SamplerError` listing the names."""
    if name not in TIMESTEP_SAMPLERS:
        raise unknown("timestep sampler", name, TIMESTEP_SAMPLERS)
    return TIMESTEP_SAMPLERS[name]
