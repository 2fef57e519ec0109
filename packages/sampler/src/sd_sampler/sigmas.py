"""Ladders of noise levels: which ones a sampler stops at.

A ladder (N + 1,) float64 descends and ends with 0. Timestep spacings are those of table 2 of Lin et
al., arXiv 2305.08891, rounded as diffusers rounds them, which differs from scheduler to scheduler:
`Convention` names the three ways.
"""

from typing import Literal

import torch
from torch import Tensor

from sd_sampler.errors import SamplerError, unknown
from sd_sampler.flow import FlowSchedule
from sd_sampler.ladders import LADDERS, SPANS
from sd_sampler.schedule import NoiseSchedule, sigmas_of

SPACINGS = ("leading", "trailing", "linspace")
SIGMA_SCHEDULES = (*SPANS, *LADDERS, *SPACINGS)
Convention = Literal["ddim", "euler", "dpmpp"]

_DISCRETE_TERMINAL = 2.0**-48
"""What stands for an alphas_cumprod of 0 in DDIM and DDPM, which in diffusers know 0 itself.

At zero terminal SNR sigma is then 2^24, and x0 differs from that at infinity by 6e-8 of x.
"""


def check_steps(num_steps: int, num_timesteps: int) -> None:
    """Raise `SamplerError` unless 1 <= num_steps <= num_timesteps."""
    if num_steps < 1:
        raise SamplerError(f"{num_steps} steps are too few: give 1 or more")
    if num_steps > num_timesteps:
        raise SamplerError(
            f"{num_steps} steps are too many: the noise schedule has {num_timesteps} timesteps"
        )


def spaced_timesteps(
    spacing: str,
    num_timesteps: int,
    num_steps: int,
    *,
    steps_offset: int = 0,
    convention: Convention = "ddim",
) -> Tensor:
    """Return timesteps (N,) float64, descending, by table 2 of arXiv 2305.08891.

    "ddim" (also DDPM) rounds to whole timesteps; "euler" leaves those of linspace fractional;
    "dpmpp" spaces N + 1 and leaves out the last. `steps_offset` is added to leading ones only.
    Raises `SamplerError` for an unknown spacing, a number of steps out of range, or timesteps
    beyond the schedule.
    """
    check_steps(num_steps, num_timesteps)
    count = num_steps + 1 if convention == "dpmpp" else num_steps
    if spacing == "leading":
        steps = torch.arange(count, dtype=torch.float64) * (num_timesteps // count) + steps_offset
        steps = steps.flip(0)
    elif spacing == "trailing":
        # The stride is read off the first two numbers, as numpy.arange does: ties then round alike.
        stride = (num_timesteps - num_timesteps / num_steps) - num_timesteps
        steps = torch.arange(num_steps, dtype=torch.float64) * stride + num_timesteps
        steps = steps.round() - 1
    elif spacing == "linspace":
        last = num_timesteps - 1
        ramp = torch.arange(count, dtype=torch.float64) * (last / max(count - 1, 1))
        ramp = ramp.clamp(max=last)
        steps = (ramp if convention == "euler" else ramp.round()).flip(0)
    else:
        raise unknown("timestep spacing", spacing, SPACINGS)
    steps = steps[:num_steps]
    if float(steps[0]) > num_timesteps - 1:
        raise SamplerError(
            f"steps_offset {steps_offset} with {num_steps} steps reaches timestep {int(steps[0])}:"
            f" the last is {num_timesteps - 1}, so take fewer steps or a smaller offset"
        )
    return steps


def sigmas_at(schedule: NoiseSchedule, timesteps: Tensor, *, convention: Convention) -> Tensor:
    """Return the noise levels (N,) at timesteps (N,), linear in sigma between whole ones.

    A flow's are exact, whatever the convention.
    """
    if isinstance(schedule, FlowSchedule):
        return schedule.sigma_of(timesteps)
    discrete = convention == "ddim"
    table = sigmas_of(schedule.alphas_cumprod, _DISCRETE_TERMINAL) if discrete else schedule.sigmas
    low = timesteps.floor().long().clamp(max=len(table) - 2)
    return torch.lerp(table[low], table[low + 1], timesteps - low)


def close(sigmas: Tensor) -> Tensor:
    """Append the 0 that ends a ladder; raises `SamplerError` where levels repeat."""
    if bool((sigmas.diff() >= 0).any()):
        raise SamplerError(
            f"{len(sigmas)} steps repeat a noise level with this spacing: take fewer steps"
        )
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def make_sigmas(name: str, schedule: NoiseSchedule, num_steps: int) -> Tensor:
    """Return the ladder (N + 1,) of one of `SIGMA_SCHEDULES`.

    Those between two levels, such as karras, span the whole table; leading, trailing and linspace
    stop at whole timesteps. Raises `SamplerError` for an unknown name or a number of steps out of
    range. `plan` makes the ladders that diffusers' schedulers use.
    """
    if name not in SIGMA_SCHEDULES:
        raise unknown("schedule", name, SIGMA_SCHEDULES)
    check_steps(num_steps, schedule.num_timesteps)
    if name in SPANS:
        return close(SPANS[name](*schedule.span, num_steps))
    if name in LADDERS:
        return close(LADDERS[name](schedule, num_steps))
    timesteps = spaced_timesteps(name, schedule.num_timesteps, num_steps)
    return close(sigmas_at(schedule, timesteps, convention="ddim"))
