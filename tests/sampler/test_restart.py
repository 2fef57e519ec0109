"""Restart shares its steps out by the web UI's rule, and solves what it says it solves."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sd_sampler import (
    NoiseSchedule,
    NoiseSource,
    PlanOptions,
    V,
    heun,
    karras_sigmas,
    make_sigmas,
    plan,
    restart,
)
from tests.sampler.closed_forms import gaussian, gaussian_flow, random_x, wavy

SCHEDULE = NoiseSchedule.scaled_linear()
RULE = [(20, 1, 9), (35, 1, 9), (36, 2, 9), (50, 2, 12), (100, 2, 25)]


def way_down(num_steps: int) -> list[float]:
    ends = float(SCHEDULE.sigmas[0]), float(SCHEDULE.sigmas[-1])
    return [*karras_sigmas(*ends, num_steps).tolist(), 0.0]


def nearest(levels: list[float], wanted: float) -> float:
    return min(levels, key=lambda level: abs(level - wanted))


def test_below_twenty_steps_it_is_heuns_method() -> None:
    sigmas = make_sigmas("karras", SCHEDULE, 19)
    x = random_x(4, 3) * 14.6
    assert torch.equal(restart(wavy, x, sigmas), heun(wavy, x, sigmas))


def test_a_ladder_too_low_to_restart_on_is_walked_by_heuns_method() -> None:
    sigmas, x = torch.linspace(0.05, 0, 31, dtype=torch.float64), random_x(4, 3)
    assert torch.equal(restart(wavy, x, sigmas), heun(wavy, x, sigmas))


@pytest.mark.parametrize(("num_steps", "climbs", "each"), RULE)
@pytest.mark.parametrize("schedule", ["karras", "exponential"])
def test_the_steps_are_shared_out_by_the_web_uis_rule(
    schedule: str, num_steps: int, climbs: int, each: int
) -> None:
    told: list[tuple[int, float]] = []
    x = random_x(1, 3) * 14.6
    restart(
        wavy,
        x,
        make_sigmas(schedule, SCHEDULE, num_steps),
        noise=lambda: torch.ones_like(x),
        on_step=lambda step, sigma, *_: told.append((step, sigma)),
    )
    whole = way_down(num_steps - climbs * each)
    bottom = nearest(whole, 0.1)
    again = karras_sigmas(bottom, nearest(whole, 2.0), each + 1).tolist()[:-1]
    above = [level for level in whole if level > bottom]
    below = [level for level in whole if 0 < level <= bottom]
    assert [step for step, _ in told] == list(range(num_steps))
    assert [sigma for _, sigma in told] == pytest.approx([*above, *again * climbs, *below])


def test_it_converges_to_the_flow_that_is_restarted() -> None:
    x, draws = random_x(16, 3) * 14.6, [random_x(16, 3) + 1, 1 - random_x(16, 3)]
    errors = []
    for num_steps in (80, 160, 320):
        whole = way_down(num_steps // 2)
        bottom, top = nearest(whole, 0.1), nearest(whole, 2.0)
        exact = gaussian_flow(x, whole[0], bottom)
        for draw in draws:
            climbed = exact + math.sqrt(top**2 - bottom**2) * draw
            exact = gaussian_flow(climbed, top, bottom)
        exact = gaussian_flow(exact, bottom, whole[-2])
        exact = gaussian(exact, torch.full((16,), whole[-2], dtype=torch.float64))
        out = restart(
            gaussian, x, make_sigmas("karras", SCHEDULE, num_steps), noise=iter(draws).__next__
        )
        errors.append(float((out - exact).abs().max()))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) >= 1.85  # Heun's order


def test_two_restarts_contract_what_went_wrong_above_to_a_twentieth() -> None:
    sigmas, x = make_sigmas("karras", SCHEDULE, 40), random_x(8, 3) * 14.6

    def left(sampler) -> Tensor:  # of an error of 1
        wrong, right = (sampler(gaussian, start, sigmas) for start in (x + 1, x))
        return (wrong - right).abs().max()

    def restarted(*given) -> Tensor:
        return restart(*given, noise=lambda: torch.ones_like(x))

    assert left(restarted) < left(heun) / 20


def test_a_plan_tells_the_network_the_timestep_of_every_level_restarted_from() -> None:
    made = plan("restart", None, SCHEDULE, 24, PlanOptions())
    seen: list[float] = []

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        seen.append(float(timesteps[0]))
        return x

    made.run(made.denoiser(network, V), NoiseSource([0], (3,)))
    assert made.schedule == "karras"
    assert len(seen) == 2 * 24 - 1  # two a step, and the last is Euler's
    assert seen[0] == pytest.approx(999)
    assert seen[-1] == pytest.approx(0, abs=1e-3)
    assert sum(later > before for before, later in pairwise(seen)) == 1
