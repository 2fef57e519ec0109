"""What a network learns: targets, loss weights and timesteps."""

import pytest
import torch
from torch import Tensor

from sd_sampler import (
    EPS,
    FLOW,
    PREDICTIONS,
    X0,
    FlowSchedule,
    NoiseSchedule,
    Prediction,
    SamplerError,
    V,
    antithetic_timesteps,
    denoiser,
    logit_normal_timesteps,
    loss_weight,
    min_snr,
    multires_noise,
    offset_noise,
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
    schedule = FlowSchedule() if kind is FLOW else NoiseSchedule.scaled_linear()
    timesteps = torch.tensor([0, 400, 998])
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


def test_debiased_weights_eps_by_the_inverse_root_of_snr() -> None:
    torch.testing.assert_close(loss_weight("debiased")(SIGMA, EPS), SIGMA)
    torch.testing.assert_close(loss_weight("debiased")(SIGMA, V), SIGMA / (SIGMA**2 + 1))


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


def test_logit_normal_timesteps_have_a_normal_logit() -> None:
    drawn = logit_normal_timesteps(50_000, 1000, torch.Generator().manual_seed(0))
    assert drawn.min() >= 0
    assert drawn.max() <= 999
    logits = ((drawn.double() + 0.5) / 1000).logit()
    assert abs(float(logits.mean())) < 0.02
    assert float(logits.std()) == pytest.approx(1, abs=0.02)


def test_offset_noise_moves_whole_channels_and_nothing_else() -> None:
    noise = torch.randn(500, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    moved = offset_noise(noise, 0.5, torch.Generator().manual_seed(1)) - noise
    torch.testing.assert_close(moved, moved[..., :1, :1].expand_as(moved), atol=1e-6, rtol=0)
    assert float(moved[..., 0, 0].std()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(offset_noise(noise, 0.0), noise)
    points = torch.zeros(3, 2)  # a picture's channels may be all that there is
    assert offset_noise(points, 1.0).shape == (3, 2)


def test_multires_noise_is_coarser_of_unit_spread_and_repeats_with_the_seed() -> None:
    def neighbours(noise: Tensor) -> float:
        return float((noise[..., 1:] * noise[..., :-1]).mean())

    white = torch.randn(64, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    coarse = multires_noise(white, 0.8, torch.Generator().manual_seed(1))
    torch.testing.assert_close(coarse.std(dim=(1, 2, 3)), torch.ones(64))
    assert abs(neighbours(white)) < 0.02
    assert neighbours(coarse) > 0.3
    assert torch.equal(coarse, multires_noise(white, 0.8, torch.Generator().manual_seed(1)))
    means = [float(one.mean(dim=(2, 3)).std()) for one in (white, coarse)]
    assert means[1] > 3 * means[0], "whole channels are moved, too"


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        (lambda: offset_noise(torch.zeros(1, 1), -0.1), r"strength -0\.1"),
        (lambda: multires_noise(torch.zeros(1, 1, 2, 2), 1.0), r"discount of 1\.0"),
    ],
)
def test_noise_out_of_range_is_refused(noise, words: str) -> None:
    with pytest.raises(SamplerError, match=words):
        noise()


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
