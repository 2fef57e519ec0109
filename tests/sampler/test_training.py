"""What a network learns: targets, loss weights and timesteps."""

import pytest
import torch
from torch import Tensor

from sd_sampler import (
    EPS,
    PREDICTIONS,
    X0,
    NoiseSchedule,
    Prediction,
    SamplerError,
    V,
    antithetic_timesteps,
    denoiser,
    loss_weight,
    min_snr,
    prediction,
    timestep_sampler,
    uniform_timesteps,
)

SIGMA = torch.tensor([0.03, 1.0, 14.6], dtype=torch.float64)


@pytest.mark.parametrize("kind", PREDICTIONS, ids=lambda kind: kind.name)
def test_a_network_that_meets_its_target_denoises_perfectly(kind: Prediction) -> None:
    x0, noise = torch.randn(2, 3, 2, dtype=torch.float64)
    target = kind.target(x0, noise, SIGMA)
    denoise = denoiser(lambda _x, _t: target, NoiseSchedule.scaled_linear(), kind)
    torch.testing.assert_close(denoise(x0 + SIGMA[:, None] * noise, SIGMA), x0)


@pytest.mark.parametrize("kind", PREDICTIONS, ids=lambda kind: kind.name)
def test_the_network_sees_when_sampling_what_it_saw_when_training(kind: Prediction) -> None:
    schedule = NoiseSchedule.scaled_linear()
    timesteps = torch.tensor([0, 400, 999])
    sigma = schedule.sigma_of(timesteps)
    x0, noise = torch.randn(2, 3, 2, dtype=torch.float64)
    seen: list[tuple[Tensor, Tensor]] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        return x

    denoiser(network, schedule, kind)(x0 + sigma[:, None] * noise, sigma)
    torch.testing.assert_close(seen[0][0], schedule.add_noise(x0, noise, timesteps))
    torch.testing.assert_close(seen[0][1], timesteps.float())


def test_the_targets_are_the_noise_the_velocity_and_the_data() -> None:
    x0, noise = torch.randn(2, 3, 2, dtype=torch.float64)
    angle = torch.atan(SIGMA)[:, None]
    assert torch.equal(EPS.target(x0, noise, SIGMA), noise)
    assert torch.equal(X0.target(x0, noise, SIGMA), x0)
    velocity = angle.cos() * noise - angle.sin() * x0
    torch.testing.assert_close(V.target(x0, noise, SIGMA), velocity)


@pytest.mark.parametrize(("theirs", "ours"), [("epsilon", "eps"), ("v_prediction", "v")])
def test_predictions_answer_to_diffusers_names_too(theirs: str, ours: str) -> None:
    assert prediction(theirs) is prediction(ours)


def test_min_snr_takes_the_form_of_the_paper_for_each_prediction() -> None:
    snr = SIGMA**-2
    least = snr.clamp(max=5.0)
    torch.testing.assert_close(min_snr(5.0)(SIGMA, EPS), least / snr)
    torch.testing.assert_close(min_snr(5.0)(SIGMA, V), least / (snr + 1))
    torch.testing.assert_close(min_snr(5.0)(SIGMA, X0), least)


def test_weighing_x0_by_snr_is_weighing_eps_evenly() -> None:
    ones = torch.ones_like(SIGMA)
    torch.testing.assert_close(loss_weight("snr")(SIGMA, EPS), ones)
    torch.testing.assert_close(loss_weight("snr")(SIGMA, X0), SIGMA**-2)
    torch.testing.assert_close(loss_weight("uniform")(SIGMA, V), ones)
    torch.testing.assert_close(loss_weight("truncated_snr")(SIGMA, X0), (SIGMA**-2).clamp(min=1))


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_antithetic_timesteps_come_in_pairs_about_the_middle(batch_size: int) -> None:
    drawn = antithetic_timesteps(batch_size, 1000, torch.Generator().manual_seed(0))
    half = (batch_size + 1) // 2
    assert drawn.shape == (batch_size,)
    assert torch.equal(drawn[half:], 999 - drawn[: batch_size - half])


@pytest.mark.parametrize("name", ["uniform", "antithetic"])
def test_timesteps_cover_the_schedule_evenly_and_repeat_with_the_seed(name: str) -> None:
    draw = timestep_sampler(name)
    drawn = draw(20_000, 10, torch.Generator().manual_seed(0))
    assert (drawn.bincount(minlength=10) - 2000).abs().max() < 200
    assert torch.equal(drawn, draw(20_000, 10, torch.Generator().manual_seed(0)))


def test_antithetic_batches_have_a_steadier_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = {
        draw: torch.stack([draw(8, 1000, generator).double().mean() for _ in range(100)]).std()
        for draw in (uniform_timesteps, antithetic_timesteps)
    }
    assert spread[antithetic_timesteps] < 1e-6 < spread[uniform_timesteps]


@pytest.mark.parametrize("find", [prediction, loss_weight, timestep_sampler])
def test_unknown_names_are_refused_with_the_known_ones(find) -> None:
    with pytest.raises(SamplerError, match=r"'nonesuch': choose from \w+"):
        find("nonesuch")


def test_a_gamma_that_is_not_positive_is_refused() -> None:
    with pytest.raises(SamplerError, match="gamma 0"):
        min_snr(0)
