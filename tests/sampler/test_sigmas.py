"""Ladders of noise levels."""

import math

import pytest
import torch

from sd_sampler import (
    SIGMA_SCHEDULES,
    NoiseSchedule,
    SamplerError,
    karras_sigmas,
    kl_optimal_sigmas,
    lcm_timesteps,
    make_sigmas,
    spaced_timesteps,
)

SCHEDULE = NoiseSchedule.scaled_linear()


@pytest.mark.parametrize("name", SIGMA_SCHEDULES)
@pytest.mark.parametrize("num_steps", [1, 2, 7, 10, 20, 50, 999])
def test_a_ladder_descends_to_zero_in_as_many_steps_as_asked(name: str, num_steps: int) -> None:
    if num_steps == 999 and name in ("beta", "lcm"):
        with pytest.raises(SamplerError, match=r"999 steps (repeat a timestep|are too many)"):
            make_sigmas(name, SCHEDULE, num_steps)
        return
    sigmas = make_sigmas(name, SCHEDULE, num_steps)
    assert sigmas.shape == (num_steps + 1,)
    assert sigmas.dtype == torch.float64
    assert (sigmas.diff() < 0).all()
    assert float(sigmas[-1]) == 0


def test_spacings_are_those_of_the_paper() -> None:
    # Table 2 of arXiv 2305.08891 for T = 1000, N = 10, counted from 0 rather than from 1.
    spaced = {s: spaced_timesteps(s, 1000, 10).tolist() for s in ("leading", "trailing")}
    assert spaced["leading"] == [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]
    assert spaced["trailing"] == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    linspace = [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    assert spaced_timesteps("linspace", 1000, 10).tolist() == linspace


def test_an_offset_moves_leading_timesteps_alone() -> None:
    moved = spaced_timesteps("leading", 1000, 10, steps_offset=1)
    assert torch.equal(moved, spaced_timesteps("leading", 1000, 10) + 1)
    still = spaced_timesteps("trailing", 1000, 10, steps_offset=1)
    assert torch.equal(still, spaced_timesteps("trailing", 1000, 10))


def test_karras_sigmas_are_even_in_the_seventh_root() -> None:
    sigmas = karras_sigmas(0.03, 14.6, 9)
    gaps = (sigmas ** (1 / 7)).diff()
    torch.testing.assert_close(gaps, gaps[:1].expand(8))
    assert sigmas[[0, -1]].tolist() == pytest.approx([14.6, 0.03])


@pytest.mark.parametrize("num_steps", [0, -3])
def test_fewer_than_one_step_is_refused(num_steps: int) -> None:
    with pytest.raises(SamplerError, match=f"{num_steps} steps are too few: give 1 or more"):
        make_sigmas("karras", SCHEDULE, num_steps)


def test_more_steps_than_timesteps_are_refused() -> None:
    with pytest.raises(SamplerError, match=r"1001 steps are too many.*1000 timesteps"):
        make_sigmas("karras", SCHEDULE, 1001)


def test_an_offset_beyond_the_schedule_is_refused() -> None:
    with pytest.raises(SamplerError, match="reaches timestep 1000: the last is 999"):
        spaced_timesteps("leading", 1000, 1000, steps_offset=1)


def test_an_unknown_ladder_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SamplerError, match=r"'karas': choose from karras, .* mean 'karras'"):
        make_sigmas("karas", SCHEDULE, 10)
    with pytest.raises(SamplerError, match="unknown timestep spacing"):
        spaced_timesteps("karras", 1000, 10)


def timesteps(name: str, num_steps: int) -> list[float]:
    return SCHEDULE.timestep_of(make_sigmas(name, SCHEDULE, num_steps)[:-1]).tolist()


def test_ladders_of_timesteps_stop_where_they_say() -> None:
    assert timesteps("uniform", 4) == pytest.approx([999, 666, 333, 0])
    assert timesteps("sgm_uniform", 3) == pytest.approx([999, 666, 333])
    assert timesteps("simple", 3) == pytest.approx([999, 666, 333])
    assert timesteps("ddim_uniform", 4) == pytest.approx([751, 501, 251, 1])
    # The published schedule of a latent consistency model in four steps.
    assert lcm_timesteps(1000, 4).tolist() == [999, 759, 499, 259]


def test_the_best_ladder_for_a_gaussian_is_even_in_the_angle() -> None:
    angles = kl_optimal_sigmas(0.03, 14.6, 9).atan()
    torch.testing.assert_close(angles.diff(), angles.diff()[:1].expand(8))
    assert float(angles[0]) == pytest.approx(math.atan(14.6))


def test_the_aligned_table_of_ten_steps_is_the_published_one_and_others_lie_between() -> None:
    ten = make_sigmas("align_your_steps", SCHEDULE, 10)
    assert ten[:4].tolist() == pytest.approx([14.615, 6.475, 3.861, 2.697])
    twenty = make_sigmas("align_your_steps", SCHEDULE, 20)
    torch.testing.assert_close(twenty[:-1:2], ten[:-1])
    torch.testing.assert_close(twenty[1], (ten[0] * ten[1]).sqrt())
    assert float(make_sigmas("align_your_steps_xl", SCHEDULE, 10)[1]) == pytest.approx(6.315)
