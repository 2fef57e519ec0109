"""What is done to classifier-free guidance, and guidance by perturbed attention or a picture."""

import json
from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from sd_sampler import (
    EPS,
    X0,
    Guidance,
    GuidanceOptions,
    NoiseSchedule,
    SamplerError,
    V,
    combine,
    compose,
)

SIGMAS = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.0], dtype=torch.float64)


def some(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator)


def guided(kind=V, **options: object) -> Tensor:
    guidance = Guidance(GuidanceOptions(**options), kind, SIGMAS)
    return guidance(some(0), torch.full((2,), 2.0, dtype=torch.float64), some(1), some(2))


def test_the_defaults_are_plain_guidance() -> None:
    assert torch.equal(guided(scale=5.0), combine(some(1), some(2), 5.0))


def perturbed(uncond: Tensor | None = None, **options: object) -> Tensor:
    guidance = Guidance(GuidanceOptions(**options), V, SIGMAS)
    sigma = torch.full((2,), 2.0, dtype=torch.float64)
    return guidance(some(0), sigma, uncond, some(2), some(3))


def test_perturbed_attention_guides_away_from_what_is_perturbed() -> None:
    away = 3.0 * (some(2) - some(3))
    torch.testing.assert_close(perturbed(pag_scale=3.0), some(2) + away)
    both = perturbed(some(1), scale=5.0, pag_scale=3.0)
    torch.testing.assert_close(both, combine(some(1), some(2), 5.0) + away)
    projected = perturbed(some(1), scale=5.0, pag_scale=3.0, projected=True)
    torch.testing.assert_close(projected, guided(scale=5.0, projected=True) + away)


def test_what_is_rescaled_and_thresholded_is_all_of_the_guidance() -> None:
    cond = some(2)
    cut = perturbed(pag_scale=9.0, threshold=90.0)
    bound = cond.flatten(1).abs().quantile(0.9, dim=1)
    torch.testing.assert_close(cut.flatten(1).abs().amax(1), bound, rtol=1e-6, atol=0)
    sigma, x = torch.full((2,), 2.0, dtype=torch.float64), some(0)
    c_skip, c_out, _ = (value[:, None, None, None] for value in V.scalings(sigma))
    rescaled = (perturbed(pag_scale=9.0, rescale=1.0) - c_skip * x) / c_out
    wanted = (cond - c_skip * x) / c_out
    torch.testing.assert_close(rescaled.std((1, 2, 3)), wanted.std((1, 2, 3)))


def test_perturbed_attention_guides_within_the_interval_only_with_or_without_the_other() -> None:
    for scale in (1.0, 3.0):
        options = GuidanceOptions(scale=scale, pag_scale=2.0, interval=(0.2, 0.6))
        guidance = Guidance(options, V, SIGMAS)
        levels = [sigma.reshape(1) for sigma in SIGMAS[:-1]]
        assert [guidance.pag_scale(sigma) for sigma in levels] == [0, 2, 2, 0, 0]
        assert any(guidance.active(sigma) for sigma in levels) == (scale > 1)
    assert Guidance(GuidanceOptions(scale=3.0), V, SIGMAS).pag_scale(SIGMAS[:1]) == 0


def test_perturbed_attention_guidance_wanes_by_the_timestep() -> None:
    schedule = NoiseSchedule.scaled_linear()
    options = GuidanceOptions(pag_scale=3.0, pag_adaptive_scale=0.005)
    guidance = Guidance(options, V, SIGMAS, timesteps=schedule)
    at = [guidance.pag_scale(schedule.sigma_of(torch.tensor([t]))) for t in (999, 600, 300)]
    assert at == pytest.approx([2.995, 1.0, 0.0], abs=1e-6)
    with pytest.raises(SamplerError, match="goes by the timestep: give timesteps=plan"):
        Guidance(options, V, SIGMAS)


def edited(**options: object) -> Tensor:
    guidance = Guidance(GuidanceOptions(**options), V, SIGMAS)
    sigma = torch.full((2,), 2.0, dtype=torch.float64)
    return guidance(some(0), sigma, some(1), some(2), blind=some(3))


@pytest.mark.parametrize("image_scale", [0.0, 0.5, 1.0, 1.5, 7.0])
@pytest.mark.parametrize("scale", [1.5, 7.5])
def test_text_and_picture_guide_as_in_the_papers_equation(scale: float, image_scale: float) -> None:
    both, picture, neither = some(2), some(1), some(3)
    wanted = neither + image_scale * (picture - neither) + scale * (both - picture)
    torch.testing.assert_close(edited(scale=scale, image_scale=image_scale), wanted)


def test_without_guidance_by_a_picture_there_is_that_by_the_text() -> None:
    assert torch.equal(edited(scale=5.0, image_scale=1.0), combine(some(1), some(2), 5.0))


def test_what_is_rescaled_is_guidance_by_a_picture_too() -> None:
    sigma, x = torch.full((2,), 2.0, dtype=torch.float64), some(0)
    c_skip, c_out, _ = (value[:, None, None, None] for value in V.scalings(sigma))
    outputs = (edited(scale=7.0, image_scale=2.0, rescale=1.0) - c_skip * x) / c_out
    wanted = (some(2) - c_skip * x) / c_out
    torch.testing.assert_close(outputs.std((1, 2, 3)), wanted.std((1, 2, 3)))


def test_a_picture_guides_where_the_text_does_and_not_elsewhere() -> None:
    levels = [sigma.reshape(1) for sigma in SIGMAS[:-1]]
    for options, wanted in (
        ({"scale": 3.0, "image_scale": 1.5, "interval": (0.2, 0.6)}, [1.0, 1.5, 1.5, 1.0, 1.0]),
        ({"scale": 1.0, "image_scale": 1.5}, [1.0] * 5),
        ({"scale": 3.0}, [1.0] * 5),
    ):
        guidance = Guidance(GuidanceOptions(**options), V, SIGMAS)
        assert [guidance.image_scale(sigma) for sigma in levels] == wanted


def test_options_survive_the_way_through_json() -> None:
    options = GuidanceOptions(
        scale=4.0,
        interval=(0.1, 0.8),
        pag_scale=3.0,
        pag_layers=("mid", "up_blocks.1"),
        image_scale=1.5,
    )
    assert GuidanceOptions(**json.loads(json.dumps(asdict(options)))) == options
    assert GuidanceOptions(**json.loads(json.dumps(asdict(GuidanceOptions())))) == GuidanceOptions()


def test_prompts_are_composed_by_weight() -> None:
    uncond, first, second = some(1), some(2), some(3)
    assert compose(uncond, [first], [1.0]) is first
    both = compose(uncond, [first, second], [1.0, -0.5])
    torch.testing.assert_close(both, uncond + (first - uncond) - 0.5 * (second - uncond))


@pytest.mark.parametrize("kind", [EPS, V, X0])
def test_a_whole_rescale_gives_the_prediction_its_deviation_back(kind) -> None:
    sigma, x = torch.full((2,), 2.0, dtype=torch.float64), some(0)
    c_skip, c_out, _ = (value[:, None, None, None] for value in kind.scalings(sigma))
    outputs = (guided(kind, scale=7.5, rescale=1.0) - c_skip * x) / c_out
    wanted = (some(2) - c_skip * x) / c_out
    torch.testing.assert_close(outputs.std((1, 2, 3)), wanted.std((1, 2, 3)))


def test_guidance_is_active_within_its_interval_only() -> None:
    guidance = Guidance(GuidanceOptions(scale=3.0, interval=(0.2, 0.6)), V, SIGMAS)
    active = [guidance.active(sigma.reshape(1)) for sigma in SIGMAS[:-1]]
    assert active == [False, True, True, False, False]
    always = Guidance(GuidanceOptions(scale=3.0), V, SIGMAS)
    assert all(always.active(sigma.reshape(1)) for sigma in SIGMAS[:-1])
    for options in (GuidanceOptions(), GuidanceOptions(scale=3.0, interval=(0.4, 0.4))):
        none = Guidance(options, V, SIGMAS)
        assert not any(none.active(sigma.reshape(1)) for sigma in SIGMAS[:-1])


def test_projected_guidance_moves_across_the_prediction_and_not_along_it() -> None:
    moved = guided(scale=4.0, projected=True, norm_limit=0.0) - some(2)
    assert (moved * some(2)).sum((1, 2, 3)).abs().max() < 1e-9
    whole = guided(scale=4.0, projected=True, parallel=1.0, norm_limit=0.0)
    torch.testing.assert_close(whole, combine(some(1), some(2), 4.0))


def test_projected_guidance_is_no_longer_than_its_limit() -> None:
    moved = guided(scale=4.0, projected=True, parallel=1.0, norm_limit=0.5) - some(2)
    torch.testing.assert_close(
        moved.flatten(1).norm(dim=1), torch.full((2,), 1.5, dtype=torch.float64)
    )


def test_projected_guidance_remembers_its_updates() -> None:
    options = GuidanceOptions(scale=2.0, projected=True, parallel=1.0, norm_limit=0, momentum=-0.5)
    guidance, sigma = Guidance(options, V, SIGMAS), torch.full((2,), 2.0, dtype=torch.float64)
    first = guidance(some(0), sigma, some(1), some(2)) - some(2)
    second = guidance(some(0), sigma, some(1), some(2)) - some(2)
    torch.testing.assert_close(second, 0.5 * first)


def test_thresholding_brings_the_percentile_back_and_cuts_what_is_beyond() -> None:
    cond, cut = some(2), guided(scale=9.0, threshold=90.0)
    bound = cond.flatten(1).abs().quantile(0.9, dim=1)
    torch.testing.assert_close(cut.flatten(1).abs().amax(1), bound, rtol=1e-6, atol=0)
    # What is within the unguided bounds already is left alone.
    torch.testing.assert_close(guided(scale=1.0, threshold=100.0), cond)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rescale": 1.5}, "guidance rescale is 1.5; it must be from 0 to 1"),
        ({"interval": (0.5, 0.2)}, "interval's beginning is 0.5; it must be from 0 to 0.2"),
        ({"interval": (0.5, 1.2)}, "interval's end is 1.2; it must be from 0.5 to 1"),
        ({"threshold": 150.0}, "percentile is 150.0; it must be from 1 to 100"),
        ({"momentum": -2.0}, "momentum is -2.0"),
        ({"pag_scale": -1.0}, "attention guidance's scale is -1.0; it must be from 0 to 100"),
        ({"pag_scale": float("nan")}, "attention guidance's scale is nan"),
        ({"pag_adaptive_scale": 2.0}, "guidance's adaptive scale is 2.0; it must be from 0 to 1"),
        ({"pag_scale": 3.0, "pag_layers": ()}, "has no layer; name one, such as mid"),
        ({"image_scale": -1.0}, "image guidance is -1.0; it must be from 0 to 100"),
        ({"image_scale": float("nan")}, "image guidance is nan"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(SamplerError, match=says):
        GuidanceOptions(**options)
