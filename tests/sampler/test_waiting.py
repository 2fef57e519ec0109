"""No step of a run asks its device for a number, which would have it finish all before.

On the device "meta" there are no numbers to be had, and copies to it are seen being made.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from sd_sampler import (
    SAMPLERS,
    Guidance,
    GuidanceOptions,
    NoiseSource,
    batch_sigma,
    level_of,
    noise_schedule,
    plan,
    prediction,
)
from tests.devices import META, Copies


class OnMeta(NoiseSource):
    """Draws on the device: the CPU's own draws are copied there, as they have to be."""

    def __call__(self) -> Tensor:
        return torch.empty(len(self.seeds), *self.shape, device=META)


@pytest.fixture
def copies() -> Iterator[Copies]:
    with Copies() as seen:
        yield seen


@pytest.mark.parametrize(
    "options",
    [
        GuidanceOptions(scale=5.0),
        GuidanceOptions(scale=5.0, interval=(0.1, 0.8), rescale=0.7),
        GuidanceOptions(scale=5.0, pag_scale=3.0, pag_adaptive_scale=0.01),
    ],
)
@pytest.mark.parametrize("name", SAMPLERS)
def test_no_step_waits_for_its_device(name: str, options: GuidanceOptions, copies: Copies) -> None:
    kind, planned = prediction("v"), plan(name, None, noise_schedule("scaled_linear"), 6)
    guidance = Guidance(options, kind, planned.sigmas, timesteps=planned)
    asked = []

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        asked.append(timesteps)
        return x * timesteps[:, None, None, None]

    alone = planned.denoiser(network, kind)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        perturbed = alone(x, sigma) if guidance.pag_scale(sigma) > 0 else None
        uncond = alone(x, sigma) if guidance.active(sigma) else None
        return guidance(x, sigma, uncond, alone(x, sigma), perturbed)

    x = planned.run(denoise, OnMeta((1, 2), (4, 8, 8), META))
    assert x.device == META
    assert len(asked) >= 6
    assert not copies.names


def test_a_copy_and_a_question_would_be_seen(copies: Copies) -> None:
    torch.zeros(3).to(META)
    assert copies.names
    with pytest.raises(RuntimeError, match="meta"):
        float(torch.zeros(3, device=META)[0])


def test_levels_are_known_where_they_were_made_and_read_elsewhere() -> None:
    x = torch.zeros(2, 3)
    made = batch_sigma(x, 0.1)
    assert level_of(made) == 0.1
    assert level_of(made.clone()) == float(torch.tensor(0.1))
    assert level_of(batch_sigma(x.to(META), 7.0)) == 7.0
