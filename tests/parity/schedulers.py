"""What the comparisons with diffusers' schedulers share: names, inputs, a network."""

import diffusers
import torch
from torch import Tensor

from sd_sampler import (
    NoiseSchedule,
)

STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULE = NoiseSchedule.scaled_linear()
SPACINGS = ("leading", "trailing", "linspace")
THEIR_NAMES = {"linear": "linear", "cosine": "squaredcos_cap_v2", "sigmoid": "sigmoid"}
DIFFUSERS_NAMES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}


def table(name: str, *, zero_snr: bool = False) -> Tensor:
    """Return diffusers' alphas_cumprod for a schedule of ours."""
    betas = STABLE if name == "scaled_linear" else {"beta_schedule": THEIR_NAMES[name]}
    return diffusers.DDPMScheduler(**betas, rescale_betas_zero_snr=zero_snr).alphas_cumprod


def exact(scheduler: object, *, to_one: bool = True) -> None:
    """Put our float64 table in the place of a scheduler's float32 one."""
    scheduler.alphas_cumprod = SCHEDULE.alphas_cumprod.clone()
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    scheduler.final_alpha_cumprod = scheduler.one if to_one else scheduler.alphas_cumprod[0]


def inputs(seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, 4, 8, 8, dtype=dtype, generator=generator)


def network(x: Tensor, timesteps: Tensor) -> Tensor:
    """Stand for a UNet: bounded, nonlinear, mixing channels, and told the timestep."""
    weight = torch.linspace(-9, 9, 16).cos().reshape(4, 4).to(x) * 0.6
    phase = torch.sin(timesteps.float() / 300).reshape(-1, 1, 1, 1)
    return torch.einsum("bchw,cd->bdhw", torch.tanh(x + phase), weight) + 0.3 * x
