"""Rectified flow: straight lines from data to noise, as one more noise schedule."""

import torch
from torch import Tensor

from sd_sampler.errors import SamplerError
from sd_sampler.protocols import like, precise
from sd_sampler.schedule import NoiseSchedule

_HIGHEST = 2.0**24
"""What stands for the sigma of noise alone, which is infinite: x0 differs by 6e-8 of x."""


class FlowSchedule(NoiseSchedule):
    """Let timestep i of T stand for t = (i + 1) / T, with x_t = (1 - t) x0 + t noise.

    Liu et al., "Flow Straight and Fast", arXiv 2209.03003, eq. 1, with the noise at t = 1. Divided
    by 1 - t it is x = x0 + sigma noise with sigma = t / (1 - t), so every sampler runs on it; and
    the shift of Esser et al., arXiv 2403.03206, eq. 23, multiplies sigma. Between whole timesteps t
    is exact. diffusers tells its networks T t, one more than the timestep. Raises `SamplerError`
    for fewer than 2 timesteps.
    """

    __slots__ = ()

    def __init__(self, num_timesteps: int = 1000) -> None:
        if num_timesteps < 2:
            raise SamplerError(
                f"num_timesteps {num_timesteps} is too few: a noise schedule needs 2 or more"
            )
        noise = torch.arange(1, num_timesteps + 1, dtype=torch.float64)
        signal = num_timesteps - noise
        NoiseSchedule.__init__(self, signal**2 / (signal**2 + noise**2), "flow")
        object.__setattr__(self, "sigmas", (noise / signal).clamp(max=_HIGHEST))

    @property
    def span(self) -> tuple[float, float]:
        """The levels that karras and its like span; the highest of all would take half of them."""
        return float(self.sigmas[0]), float(self.sigmas[-2])

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Go to integer timesteps (B,) on the line from x0 (B, ...) to noise (B, ...)."""
        share = (timesteps.to(precise(timesteps.device)) + 1) / self.num_timesteps
        return like(1 - share, x0) * x0 + like(share, x0) * noise

    def timestep_of(self, sigma: Tensor) -> Tensor:
        """Return the timestep in [0, T - 1] at which the noise level is sigma."""
        level = sigma.to(precise(sigma.device))
        last = self.num_timesteps - 1
        return (self.num_timesteps * level / (1 + level) - 1).clamp(0, last)

    def sigma_of(self, timestep: Tensor) -> Tensor:
        """Return the noise level at a timestep in [0, T - 1]: undoes `timestep_of`."""
        last = self.num_timesteps - 1
        noise = timestep.to(precise(timestep.device)).clamp(0, last) + 1
        return (noise / (self.num_timesteps - noise)).clamp(max=_HIGHEST)
