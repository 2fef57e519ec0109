"""Restart: go down the ODE, climb back with fresh noise, and go down again."""

import torch
from torch import Tensor

from sd_sampler.errors import SamplerError
from sd_sampler.ladders import karras_sigmas
from sd_sampler.protocols import Denoiser, Noise, OnStep
from sd_sampler.second_order import heun

# The web UI's rule.
_BOTTOM, _TOP = 0.1, 2.0  # levels: the ladder's nearest to them are taken
_ONE_FROM, _TWO_FROM = 20, 36  # steps, and how many restarts there are from them on
_STEPS_OF_ONE = 9


def restart(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Walk down by Heun's method and restart: Xu et al., arXiv 2306.14878, algorithm 2.

    From 20 steps on some of them go into restarts: at 0.1 the noise of 2 is added anew (eq. 3) and
    the ODE solved down again (eq. 4), which contracts the errors made above. They are shared out as
    in the web UI: 9 to one restart, from 36 on N // 4 to each of two, the rest to the whole way.
    All of these ladders are Karras', so that of `sigmas` the ends alone count. With fewer steps, or
    a ladder that does not reach so high or low, it is `heun`. Raises `SamplerError` where noise is
    needed and none is given.
    """
    taken, level = 0, float(sigmas[0])
    for ladder in _ladders(sigmas):
        top = float(ladder[0])
        if top > level:
            if noise is None:
                raise SamplerError(
                    f"restart draws noise from {_ONE_FROM} steps on: give noise=NoiseSource(...)"
                )
            x = x + (top**2 - level**2) ** 0.5 * noise()
        x = heun(denoise, x, ladder, on_step=_after(taken, on_step))
        taken, level = taken + len(ladder) - 1, float(ladder[-1])
    return x


def _ladders(sigmas: Tensor) -> list[Tensor]:
    """Return the ladders of the way down and of each restart, N steps together."""
    num_steps = len(sigmas) - 1
    if num_steps < _ONE_FROM:
        return [sigmas]
    each, times = (num_steps // 4, 2) if num_steps >= _TWO_FROM else (_STEPS_OF_ONE, 1)
    low, high = float(sigmas[-2]), float(sigmas[0])
    whole = karras_sigmas(low, high, num_steps - each * times)
    whole = torch.cat([whole, whole.new_zeros(1)])
    bottom, top = (int((whole - level).abs().argmin()) for level in (_BOTTOM, _TOP))
    if top >= bottom:
        return [sigmas]
    again = karras_sigmas(float(whole[bottom]), float(whole[top]), each + 1)
    return [whole[: bottom + 1], *[again] * times, whole[bottom:]]


def _after(taken: int, on_step: OnStep | None) -> OnStep | None:
    """Count on from the steps that are taken already."""
    if on_step is None:
        return None

    def tell(step: int, sigma: float, x: Tensor, x0: Tensor) -> None:
        on_step(taken + step, sigma, x, x0)

    return tell
