"""Solvers that remember take their peers' steps in float64, to 1e-9."""

import diffusers
import pytest
import torch
from torch import Tensor

from sd_sampler import (
    DiffusionConfig,
    NoiseSource,
    Plan,
    plan,
    prediction,
)
from tests.parity.schedulers import DIFFUSERS_NAMES, SCHEDULE, STABLE, exact, inputs, network

SOLVERS = {
    "unipc": diffusers.UniPCMultistepScheduler,
    "deis": diffusers.DEISMultistepScheduler,
}


def steps_in_float64(made: Plan, kind: str) -> tuple[Tensor, list[Tensor]]:
    """Return a variance-preserving x and what it is after each of our steps from it."""
    x = inputs(0, torch.float64)[0]
    seen: list[Tensor] = []
    denoise = made.denoiser(network, prediction(kind))
    start = x * (1 + float(made.sigmas[0]) ** 2) ** 0.5
    noise = NoiseSource([3, 4], (4, 8, 8), dtype=torch.float64)
    noise.initial()
    made.run(denoise, noise, x=start, on_step=lambda _i, _s, x, _x0: seen.append(x))
    levels = made.sigmas[1:].tolist()
    return x, [one / (1 + level**2) ** 0.5 for one, level in zip(seen, levels, strict=True)]


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("kind", ["eps", "v"])
@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_take_their_peers_steps_in_float64(name: str, kind: str, num_steps: int) -> None:
    peer = SOLVERS[name](**STABLE, prediction_type=DIFFUSERS_NAMES[kind])
    peer.set_timesteps(num_steps)
    made = plan(name, "linspace", SCHEDULE, num_steps)
    peer.sigmas = made.sigmas.clone()  # in the place of their float32 ones
    x, ours = steps_in_float64(made, kind)
    if name == "deis":  # whose last step goes to the lowest level there: see README
        ours.pop()
    for timestep, after in zip(peer.timesteps, ours, strict=False):
        x = peer.step(network(x, timestep.reshape(1)), timestep, x).prev_sample
        torch.testing.assert_close(after, x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("num_steps", [1, 2, 4, 5, 20])
def test_plms_takes_its_peers_steps_in_float64(num_steps: int) -> None:
    config = {**STABLE, "steps_offset": 1, "set_alpha_to_one": False, "skip_prk_steps": True}
    peer = diffusers.PNDMScheduler(**config, timestep_spacing="leading")
    exact(peer, to_one=False)
    peer.set_timesteps(num_steps)
    ours = DiffusionConfig.from_diffusers({**config, "_class_name": "PNDMScheduler"})
    made = plan("plms", None, ours.noise_schedule(), num_steps, ours.plan_options())
    x, steps = steps_in_float64(made, "eps")
    theirs = []
    for timestep in peer.timesteps:
        x = peer.step(network(x, timestep.reshape(1)), timestep, x).prev_sample
        theirs.append(x)
    # Their first step takes two calls, of which the first is not kept.
    for after, x in zip(steps, theirs[len(theirs) - num_steps :], strict=True):
        torch.testing.assert_close(after, x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["eps", "v"])
@pytest.mark.parametrize("num_steps", [1, 2, 4, 8, 50])
def test_lcm_takes_its_peers_steps_in_float64(
    num_steps: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = diffusers.LCMScheduler(**STABLE, prediction_type=DIFFUSERS_NAMES[kind])
    exact(peer)
    peer.set_timesteps(num_steps)
    for timestep in peer.timesteps:  # what we leave out: see README
        skip, out = peer.get_scalings_for_boundary_condition_discrete(timestep)
        assert abs(float(skip)) < 1e-5
        assert abs(float(out) - 1) < 1e-5
    scalings = "get_scalings_for_boundary_condition_discrete"
    monkeypatch.setattr(peer, scalings, lambda _timestep: (0.0, 1.0))
    noise = NoiseSource([3, 4], (4, 8, 8), dtype=torch.float64)
    noise.initial()
    drawn = "diffusers.schedulers.scheduling_lcm.randn_tensor"
    monkeypatch.setattr(drawn, lambda *_, **__: noise())
    x, ours = steps_in_float64(plan("lcm", None, SCHEDULE, num_steps), kind)
    for timestep, after in zip(peer.timesteps, ours, strict=True):
        x = peer.step(network(x, timestep.reshape(1)), timestep, x).prev_sample
        torch.testing.assert_close(after, x, rtol=0, atol=1e-9)
