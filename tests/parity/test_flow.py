"""Rectified flow against diffusers: the same steps of two-dimensional points, to 1e-6.

Ours are float64; theirs are, too, but that some add x and its change in float32.
"""

import diffusers
import pytest
import torch
from torch import Tensor

from sd_sampler import FLOW, FlowSchedule, Plan, plan
from sd_sampler.sigmas import close

SCHEDULE = FlowSchedule()


def wavy(x: Tensor, timesteps: Tensor) -> Tensor:
    """Stand for a network that is told the timestep: bounded and nonlinear."""
    return torch.tanh(2 * x.flip(1)) * (1 + timesteps[:, None].double() / 1000) - 0.3 * x


def points() -> Tensor:
    return torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def trajectory(made: Plan, sigmas: Tensor) -> list[Tensor]:
    """Return x_t after each of our steps, which are taken in x_t / (1 - t)."""
    seen: list[Tensor] = []
    x = points() * (1 + sigmas[0])
    made.sampler.run(
        made.denoiser(wavy, FLOW), x, sigmas, on_step=lambda _i, _s, x, _x0: seen.append(x)
    )
    return [x / (1 + level) for x, level in zip(seen, sigmas[1:].tolist(), strict=True)]


def assert_same_steps(peer: diffusers.SchedulerMixin, times: Tensor, ours: list[Tensor]) -> None:
    """Take their steps down `times` (N + 1,), kept in float64, where t is their sigma."""
    peer.set_timesteps(len(times) - 1)
    peer.sigmas = times
    peer.set_begin_index()
    x = points()
    for step, time in enumerate(times[:-1]):
        output = wavy(x, (1000 * time - 1).clamp(max=999).float().expand(5))
        x = peer.step(output, peer.timesteps[step], x).prev_sample
        torch.testing.assert_close(ours[step], x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 28])
def test_euler_takes_the_steps_of_flow_match_euler(num_steps: int, shift: float) -> None:
    made = plan("euler", None, SCHEDULE, num_steps)
    sigmas = made.sigmas * shift
    peer = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    # Unshifted, the ladder is the one that it makes itself; its shifted one is shifted twice.
    peer.set_timesteps(num_steps)
    if shift == 1:
        told = made.timesteps.float() + 1
        torch.testing.assert_close(told, peer.timesteps, rtol=1e-6, atol=1e-4)
    assert_same_steps(peer, sigmas / (1 + sigmas), trajectory(made, sigmas))


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("dpmpp_2m", diffusers.DPMSolverMultistepScheduler),
        ("unipc", diffusers.UniPCMultistepScheduler),
    ],
)
def test_solvers_take_the_steps_of_their_peers_with_flow_sigmas(name: str, peer: type) -> None:
    made = plan(name, "sgm_uniform", SCHEDULE, 12)
    sigmas = close(made.sigmas[1:-1])  # theirs begin below t = 1, where log(1 - t) is finite
    times = sigmas / (1 + sigmas)
    theirs = peer(prediction_type="flow_prediction", use_flow_sigmas=True)
    assert_same_steps(theirs, times, trajectory(made, sigmas))
