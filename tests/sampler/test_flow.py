"""Rectified flow: its lines, its timesteps, and two-dimensional points drawn along them."""

import pytest
import torch
from torch import Tensor

from sd_sampler import (
    FLOW,
    SAMPLERS,
    DiffusionConfig,
    FlowSchedule,
    Network,
    NoiseSource,
    SamplerError,
    plan,
    prediction,
)

SCHEDULE = FlowSchedule()
MEAN, STD = torch.tensor([0.7, -0.3], dtype=torch.float64), 0.4


def velocity(x: Tensor, timesteps: Tensor) -> Tensor:
    """Predict the flow perfectly for points from N(MEAN, STD^2)."""
    share = ((timesteps.double() + 1) / 1000)[:, None]
    mean, variance = (1 - share) * MEAN, ((1 - share) * STD) ** 2 + share**2
    slope = (share - (1 - share) * STD**2) / variance
    return (x - mean) * slope - MEAN


def test_a_timestep_is_a_share_of_the_way_to_noise() -> None:
    x0, noise = torch.zeros(3, 2), torch.ones(3, 2)
    halfway = SCHEDULE.add_noise(x0, noise, torch.tensor([0, 499, 999]))
    torch.testing.assert_close(halfway[:, 0], torch.tensor([0.001, 0.5, 1.0]))
    steps = torch.tensor([0.0, 250.25, 499.0, 998.0])
    sigmas = SCHEDULE.sigma_of(steps)
    assert float(sigmas[2]) == pytest.approx(1.0)
    torch.testing.assert_close(SCHEDULE.timestep_of(sigmas), steps.double())
    assert float(SCHEDULE.sigma_of(torch.tensor([999]))) == 2**24
    assert float(SCHEDULE.timestep_of(torch.tensor([1e30]))) == 999


def test_what_is_predicted_is_the_direction_from_the_data_to_the_noise() -> None:
    x0, noise = torch.randn(2, 3, 2)
    assert torch.equal(FLOW.target(x0, noise, torch.ones(3)), noise - x0)
    assert prediction("flow") is prediction("flow_prediction") is FLOW


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_sampler_draws_points_from_the_data(name: str, dtype: torch.dtype) -> None:
    steps = plan(name, None, SCHEDULE, 50)
    noise = NoiseSource([0], (4000, 2), dtype=dtype)
    points = steps.run(steps.denoiser(_each(velocity), FLOW), noise)[0].double()
    if name in ("lcm", "tcd"):  # which jump to the mean that a distilled network has learnt
        assert points.isfinite().all()
        return
    torch.testing.assert_close(points.mean(0), MEAN, rtol=0, atol=0.03)
    torch.testing.assert_close(points.std(0), torch.full_like(MEAN, STD), rtol=0, atol=0.04)


def _each(network: Network) -> Network:
    """Let a network of points (B, 2) see pictures (1, B, 2)."""
    return lambda x, t: network(x[0].double(), t.expand(x.shape[1]))[None].to(x)


@pytest.mark.parametrize("name", ["heun", "dpm2", "dpm2_a", "lms", "plms", "deis"])
def test_a_sampler_that_carries_slopes_cannot_start_at_noise_alone(name: str) -> None:
    assert plan(name, None, SCHEDULE, 20).schedule == "karras"
    with pytest.raises(SamplerError, match=f"{name} cannot start at zero terminal SNR.*karras"):
        plan(name, "uniform", SCHEDULE, 20)


def test_a_model_that_predicts_flow_has_its_schedule_and_survives_its_file() -> None:
    config = DiffusionConfig(prediction="flow", num_timesteps=500)
    assert isinstance(config.noise_schedule(), FlowSchedule)
    assert config.noise_schedule().num_timesteps == 500
    stated = config.to_diffusers()
    assert stated["use_flow_sigmas"]
    again = DiffusionConfig.from_diffusers(stated)
    assert (again.prediction, again.num_timesteps) == ("flow", 500)
    theirs = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
    assert DiffusionConfig.from_diffusers(theirs).prediction == "flow"
    with pytest.raises(SamplerError, match=r"a shift of 3\.0, which is not supported"):
        DiffusionConfig.from_diffusers({**theirs, "shift": 3.0})


def test_a_flow_of_one_timestep_is_refused() -> None:
    with pytest.raises(SamplerError, match="num_timesteps 1 is too few"):
        FlowSchedule(1)
