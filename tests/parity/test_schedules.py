"""Noise schedules, timesteps and ladders of sigmas against diffusers' and scipy's."""

import diffusers
import pytest
import scipy.stats
import torch

from sd_sampler import (
    make_sigmas,
    noise_schedule,
    prediction,
    spaced_timesteps,
)
from tests.parity.schedulers import SCHEDULE, SPACINGS, STABLE, table


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "sigmoid"])
def test_noise_schedules_equal_diffusers_within_float32(name: str, zero_snr: bool) -> None:
    ours = noise_schedule(name)
    ours = ours.rescaled_zero_terminal_snr() if zero_snr else ours
    theirs = table(name, zero_snr=zero_snr).double()
    torch.testing.assert_close(ours.alphas_cumprod, theirs, rtol=2e-5, atol=1e-7)


def test_adding_noise_and_the_velocity_equal_diffusers_to_2e_6() -> None:
    peer = diffusers.DDPMScheduler(**STABLE)
    x0, noise = torch.randn(2, 5, 4, 8, 8)
    timesteps = torch.tensor([0, 1, 250, 700, 999])
    noised = SCHEDULE.add_noise(x0, noise, timesteps)
    torch.testing.assert_close(noised, peer.add_noise(x0, noise, timesteps), rtol=0, atol=2e-6)
    v = prediction("v").target(x0, noise, SCHEDULE.sigma_of(timesteps))
    torch.testing.assert_close(v, peer.get_velocity(x0, noise, timesteps), rtol=0, atol=2e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    ("convention", "peer"),
    [
        ("ddim", diffusers.DDIMScheduler),
        ("euler", diffusers.EulerDiscreteScheduler),
        ("dpmpp", diffusers.DPMSolverMultistepScheduler),
    ],
)
def test_timesteps_equal_diffusers_for_any_number_of_steps(
    convention: str, peer: type, spacing: str
) -> None:
    scheduler = peer(**STABLE, timestep_spacing=spacing, steps_offset=1)
    for num_steps in (*range(1, 60), 75, 100, 125, 200, 250, 333, 400, 499):
        scheduler.set_timesteps(num_steps)
        ours = spaced_timesteps(spacing, 1000, num_steps, steps_offset=1, convention=convention)
        theirs = scheduler.timesteps.double()[:num_steps]  # arange may yield one too many
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_the_aligned_table_is_diffusers_too() -> None:
    table = diffusers.schedulers.AysSchedules["StableDiffusionSigmas"]
    ours = make_sigmas("align_your_steps", SCHEDULE, 10)
    assert ours.tolist() == pytest.approx(table)
    table = diffusers.schedulers.AysSchedules["StableDiffusionXLSigmas"]
    assert make_sigmas("align_your_steps_xl", SCHEDULE, 10).tolist() == pytest.approx(table)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 20, 50, 100])
def test_beta_timesteps_are_the_quantiles_that_scipy_gives(num_steps: int) -> None:
    shares = 1 - torch.arange(num_steps) / num_steps
    wanted = (torch.tensor(scipy.stats.beta.ppf(shares, 0.6, 0.6)) * 999).round()
    sigmas = make_sigmas("beta", SCHEDULE, num_steps)[:-1]
    torch.testing.assert_close(SCHEDULE.timestep_of(sigmas), wanted.double())
