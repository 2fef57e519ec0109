"""Noise schedules: their tables, their inverses, and diffusion in one step."""

import pytest
import torch

from sd_sampler import SCHEDULES, NoiseSchedule, SamplerError, noise_schedule

NAMES = list(SCHEDULES)


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_loses_signal_at_every_timestep(name: str) -> None:
    schedule = noise_schedule(name)
    assert schedule.num_timesteps == 1000
    assert schedule.alphas_cumprod.dtype == torch.float64
    assert (schedule.alphas_cumprod.diff() < 0).all()
    assert (schedule.sigmas.diff() > 0).all()
    assert ((schedule.betas > 0) & (schedule.betas < 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_betas_give_the_schedule_back(name: str) -> None:
    schedule = noise_schedule(name)
    again = NoiseSchedule.from_betas(schedule.betas)
    torch.testing.assert_close(again.alphas_cumprod, schedule.alphas_cumprod, rtol=1e-12, atol=0)


def test_the_tables_hold_the_published_numbers() -> None:
    linear = NoiseSchedule.linear().betas
    assert float(linear[0]) == pytest.approx(1e-4)
    assert float(linear[-1]) == pytest.approx(0.02)
    # The extremes of Stable Diffusion 1.x that every sigma-space user interface quotes.
    stable = NoiseSchedule.scaled_linear().sigmas
    assert float(stable[0]) == pytest.approx(0.0292, abs=1e-4)
    assert float(stable[-1]) == pytest.approx(14.6146, abs=1e-4)


def test_the_cosine_schedule_keeps_its_curve_until_betas_are_capped() -> None:
    schedule = NoiseSchedule.cosine(1000)
    progress = torch.tensor([0.0, 0.5], dtype=torch.float64)
    start, half = torch.cos((progress + 0.008) / 1.008 * torch.pi / 2) ** 2
    assert float(schedule.alphas_cumprod[499]) == pytest.approx(float(half / start), rel=1e-9)
    assert float(schedule.betas.max()) == pytest.approx(0.999)


def test_one_step_of_noise_equals_many_small_ones_in_mean_and_variance() -> None:
    schedule = NoiseSchedule.linear(num_timesteps=50, beta_end=0.2)
    mean, variance = 1.0, 0.0
    for beta in schedule.betas.tolist():
        mean, variance = mean * (1 - beta) ** 0.5, variance * (1 - beta) + beta
    last = torch.tensor([49])
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    assert float(schedule.add_noise(one, zero, last)) == pytest.approx(mean)
    assert float(schedule.add_noise(zero, one, last)) ** 2 == pytest.approx(variance)


def test_each_picture_of_a_batch_gets_its_own_timestep() -> None:
    schedule = NoiseSchedule.scaled_linear()
    x0, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    both = schedule.add_noise(x0, noise, torch.tensor([10, 900]))
    assert both.dtype == torch.float32
    for i, timestep in enumerate((10, 900)):
        alone = schedule.add_noise(x0[i : i + 1], noise[i : i + 1], torch.tensor([timestep]))
        torch.testing.assert_close(both[i : i + 1], alone)


def test_timestep_and_sigma_undo_each_other_between_timesteps_too() -> None:
    schedule = NoiseSchedule.scaled_linear()
    timesteps = torch.tensor([0.0, 0.25, 1.0, 17.5, 500.125, 998.9, 999.0], dtype=torch.float64)
    sigmas = schedule.sigma_of(timesteps)
    torch.testing.assert_close(schedule.timestep_of(sigmas), timesteps, rtol=0, atol=1e-9)
    whole = torch.arange(1000)
    torch.testing.assert_close(schedule.sigma_of(whole), schedule.sigmas)


def test_levels_beyond_the_table_are_clamped_to_its_ends() -> None:
    schedule = NoiseSchedule.scaled_linear()
    assert schedule.timestep_of(torch.tensor([1e-6, 1e6])).tolist() == [0.0, 999.0]


@pytest.mark.parametrize("name", NAMES)
def test_zero_terminal_snr_ends_in_pure_noise_and_keeps_its_start(name: str) -> None:
    schedule = noise_schedule(name)
    rescaled = schedule.rescaled_zero_terminal_snr()
    assert float(rescaled.alphas_cumprod[-1]) == 0.0
    assert float(rescaled.alphas_cumprod[0]) == pytest.approx(float(schedule.alphas_cumprod[0]))
    assert rescaled.sigmas.isfinite().all()
    x0, noise = torch.randn(1, 8), torch.randn(1, 8)
    assert torch.equal(rescaled.add_noise(x0, noise, torch.tensor([999])), noise)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (torch.tensor([0.5, 0.6]), "descending"),
        (torch.tensor([1.5, 0.6]), "within"),
        (torch.tensor([0.5]), "two"),
        (torch.ones(2, 2), r"\(2, 2\)"),
    ],
)
def test_a_table_that_is_no_schedule_is_refused(table: torch.Tensor, named: str) -> None:
    with pytest.raises(SamplerError, match=named):
        NoiseSchedule(table)


def test_an_unknown_or_empty_schedule_is_refused() -> None:
    with pytest.raises(SamplerError, match=r"scaled_linear.*did you mean 'cosine'"):
        noise_schedule("cosin")
    with pytest.raises(SamplerError, match="num_timesteps 0"):
        NoiseSchedule.linear(0)
