"""Turn a trained network into a denoiser, the one thing a sampler asks for."""

from typing import Protocol

import torch
from torch import Tensor

from sd_sampler.prediction import Prediction
from sd_sampler.protocols import Denoiser, Network, known_level, like


class Timesteps(Protocol):
    """Know the timestep of a noise level; a `NoiseSchedule` does, and so does a `Plan`."""

    def timestep_of(self, sigma: Tensor) -> Tensor:
        """Return the timestep of each sigma (B,)."""


def denoiser(
    network: Network,
    schedule: Timesteps,
    prediction: Prediction,
    *,
    round_timesteps: bool = False,
    dtype: torch.dtype | None = None,
) -> Denoiser:
    """Wrap network(x_in, timesteps) -> F into (x, sigma) -> x0 = c_skip x + c_out F(c_in x).

    Karras et al., arXiv 2206.00364, eq. 7. The network is given float32 timesteps (B,), rounded to
    whole numbers on request, and input in `dtype` where that is given; x and x0 keep their own
    dtype, which should be float32 even for a network in half precision.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        c_skip, c_out, c_in = prediction.scalings(sigma)
        timesteps = _timesteps(schedule, sigma, rounded=round_timesteps)
        output = network((like(c_in, x) * x).to(dtype or x.dtype), timesteps)
        return like(c_skip, x) * x + like(c_out, x) * output.to(x.dtype)

    return denoise


def _timesteps(schedule: Timesteps, sigma: Tensor, *, rounded: bool) -> Tensor:
    """Return float32 timesteps (B,), looked up on the CPU where the level is known there."""
    level = known_level(sigma)
    asked = sigma if level is None else torch.tensor([level], dtype=sigma.dtype, device="cpu")
    timesteps = schedule.timestep_of(asked)
    timesteps = (timesteps.round() if rounded else timesteps).to(torch.float32)
    return (
        timesteps
        if level is None
        else torch.full_like(sigma, float(timesteps), dtype=torch.float32)
    )


def clipped(denoise: Denoiser, limit: float = 1.0) -> Denoiser:
    """Clamp predictions of x0 to [-limit, limit], for data known to lie there (pixels)."""

    def clip(x: Tensor, sigma: Tensor) -> Tensor:
        return denoise(x, sigma).clamp(-limit, limit)

    return clip
