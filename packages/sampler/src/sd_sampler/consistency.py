"""Samplers for networks distilled to jump: latent consistency and trajectory consistency models."""

from itertools import pairwise

import torch
from torch import Tensor

from sd_sampler.errors import SamplerError
from sd_sampler.protocols import Denoiser, Noise, OnStep, batch_sigma


def lcm(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Jump to x0 and diffuse it to the next level: Luo et al., arXiv 2310.04378, algorithm 3.

    The boundary scalings of a latent consistency model (eq. 9 there, with timesteps times 10)
    differ from c_skip = 0, c_out = 1 by less than 1e-5 at every level of its schedules, and are
    left out. Raises `SamplerError` where noise is needed and none is given.
    """
    for step, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        x0 = denoise(x, batch_sigma(x, sigma))
        x = x0 if following == 0 else x0 + following * _needed(noise, "lcm")()
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x


def tcd(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    below: Tensor | None = None,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Go along the ODE to a level below the next and climb to it: strategic stochastic sampling.

    Zheng et al., "Trajectory Consistency Distillation", arXiv 2402.19159, algorithm 4: `below` (N,)
    are the levels at timesteps (1 - gamma) t' of the next ones; a `Plan` gives those of gamma 0.3.
    None is gamma 1, where it is `lcm`. Raises `SamplerError` where noise is needed and none is
    given.
    """
    downs = torch.zeros(len(sigmas) - 1).tolist() if below is None else below.tolist()
    for step, ((sigma, following), down) in enumerate(
        zip(pairwise(sigmas.tolist()), downs, strict=True)
    ):
        x0 = denoise(x, batch_sigma(x, sigma))
        if following == 0:
            x = x0
        else:
            x = x0 + down / sigma * (x - x0)
            up = max(following**2 - down**2, 0.0) ** 0.5
            if up > 0:
                x = x + up * _needed(noise, "tcd")()
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x


def _needed(noise: Noise | None, name: str) -> Noise:
    if noise is None:
        raise SamplerError(f"{name} draws noise at every step: give noise=NoiseSource(...)")
    return noise
