"""Denoisers, guidance, the registry and plans."""

import pytest
import torch
from torch import Tensor

from sd_sampler import (
    EPS,
    SAMPLERS,
    SIGMA_SCHEDULES,
    DiffusionConfig,
    NoiseSchedule,
    NoiseSource,
    PlanOptions,
    SamplerError,
    V,
    classifier_free,
    clipped,
    combine,
    denoiser,
    get_sampler,
    parse_sampler,
    parse_schedule,
    plan,
)

SCHEDULE = NoiseSchedule.scaled_linear()


def told(timesteps: list[Tensor]):
    """Return a network that notes the timesteps it is told."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        timesteps.append(t)
        return x

    return network


def test_a_denoiser_rounds_timesteps_on_request_only() -> None:
    seen: list[Tensor] = []
    sigma = SCHEDULE.sigma_of(torch.tensor([10.4, 500.6]))
    x = torch.zeros(2, 3)
    denoiser(told(seen), SCHEDULE, EPS)(x, sigma)
    denoiser(told(seen), SCHEDULE, EPS, round_timesteps=True)(x, sigma)
    torch.testing.assert_close(seen[0], torch.tensor([10.4, 500.6]))
    assert seen[1].tolist() == [10.0, 501.0]


def test_a_network_in_half_precision_leaves_x_in_single() -> None:
    seen: list[torch.dtype] = []

    def network(x: Tensor, _t: Tensor) -> Tensor:
        seen.append(x.dtype)
        return x

    wrapped = denoiser(network, SCHEDULE, V, dtype=torch.bfloat16)
    assert wrapped(torch.ones(1, 3), torch.ones(1)).dtype == torch.float32
    assert seen == [torch.bfloat16]


def test_a_clipped_denoiser_stays_within_its_limit() -> None:
    x = torch.tensor([[-9.0, 0.5, 9.0]])
    assert clipped(lambda x, _: x, 2.0)(x, torch.ones(1)).tolist() == [[-2.0, 0.5, 2.0]]


def test_guidance_moves_from_the_unconditional_through_the_conditional() -> None:
    uncond, cond = torch.tensor([1.0]), torch.tensor([3.0])
    assert [float(combine(uncond, cond, s)) for s in (0.0, 1.0, 2.0)] == [1.0, 3.0, 5.0]
    guided = classifier_free(lambda x, _: x * 0 + 3, lambda x, _: x * 0 + 1, 2.0)
    assert float(guided(torch.zeros(1), torch.ones(1))) == 5.0


def test_guidance_of_one_never_asks_the_unconditional() -> None:
    def forbidden(_x: Tensor, _sigma: Tensor) -> Tensor:
        raise AssertionError

    guided = classifier_free(lambda x, _: x, forbidden, 1.0)
    assert float(guided(torch.ones(1), torch.ones(1))) == 1.0


def test_guiding_the_noise_or_the_data_makes_no_difference() -> None:
    sigma, x = torch.tensor([3.0]), torch.randn(1, 4)
    a, b = torch.randn(2, 1, 4)
    for kind in (EPS, V):
        of_f = denoiser(lambda *_: combine(a, b, 7.5), SCHEDULE, kind)
        cond, uncond = (denoiser(lambda *_, f=f: f, SCHEDULE, kind) for f in (b, a))
        torch.testing.assert_close(of_f(x, sigma), classifier_free(cond, uncond, 7.5)(x, sigma))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", [None, *SIGMA_SCHEDULES])
def test_every_sampler_runs_on_every_schedule(name: str, schedule: str | None) -> None:
    made = plan(name, schedule, SCHEDULE, 4)
    out = made.run(made.denoiser(lambda x, _: x, V), NoiseSource([0, 1], (2, 3)))
    assert out.shape == (2, 2, 3)
    assert out.isfinite().all()
    assert made.schedule == (schedule or SAMPLERS[name].schedule or "leading")


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_network_is_told_the_timesteps_of_the_plan(name: str) -> None:
    seen: list[Tensor] = []
    made = plan(name, None, SCHEDULE, 6)
    made.run(made.denoiser(told(seen), V), NoiseSource([0], (3,)))
    told_at = [float(t) for t in seen]
    assert [t for t in dict.fromkeys(told_at) if t in made.timesteps.float()] == (
        made.timesteps.float().tolist()
    )
    # What is asked between two levels has a timestep between theirs.
    low, high = float(made.timesteps[-1]), float(made.timesteps[0])
    assert all(low - 1e-3 <= t <= high + 1e-3 for t in told_at)


def test_rounding_a_denoiser_by_hand_equals_the_plans_own() -> None:
    made = plan("dpmpp_2m", "karras", SCHEDULE, 12)
    by_hand = denoiser(lambda x, t: x * t, SCHEDULE, V, round_timesteps=made.rounds_timesteps)
    own = made.denoiser(lambda x, t: x * t, V)
    noise = NoiseSource([0], (3,))
    assert made.rounds_timesteps
    torch.testing.assert_close(made.run(by_hand, noise), made.run(own, noise))


def test_timesteps_stay_fractional_when_diffusers_need_not_be_matched() -> None:
    made = plan("dpmpp_2m", None, SCHEDULE, 12, PlanOptions(match_diffusers=False))
    assert not made.rounds_timesteps
    torch.testing.assert_close(SCHEDULE.sigma_of(made.timesteps), made.sigmas[:-1])


def test_ddim_ends_at_the_last_level_it_aims_at() -> None:
    # Without set_alpha_to_one a perfect denoiser of a point leaves sqrt(1 - a0) of the noise.
    ends = {
        to_one: plan("ddim", None, SCHEDULE, 20, PlanOptions(set_alpha_to_one=to_one))
        for to_one in (True, False)
    }
    noise = NoiseSource([0], (3,))
    exact = ends[True].run(lambda x, _: x * 0, noise)
    left = ends[False].run(lambda x, _: x * 0, noise)
    assert exact.abs().max() == 0
    scale = (1 - SCHEDULE.alphas_cumprod[0]).sqrt().float()
    torch.testing.assert_close(left, noise.initial() * scale, rtol=0.03, atol=0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_zero_terminal_snr_samples_to_finite_pictures_or_is_refused(name: str) -> None:
    schedule = SCHEDULE.rescaled_zero_terminal_snr()
    if name == "plms":  # it extrapolates eps, which says nothing of x0 there
        with pytest.raises(SamplerError, match=r"plms .* zero terminal SNR.*choose another"):
            plan(name, "trailing", schedule, 5)
        return
    made = plan(name, "trailing", schedule, 5)
    out = made.run(made.denoiser(lambda x, _: -0.5 * x, V), NoiseSource([0], (3,)))
    assert out.isfinite().all()
    assert out.abs().max() < 100


def test_an_unknown_sampler_is_refused_with_the_names_and_the_nearest() -> None:
    with pytest.raises(SamplerError) as told_user:
        get_sampler("dpmp_2m")
    message = str(told_user.value)
    assert all(name in message for name in SAMPLERS)
    assert "did you mean 'dpmpp_2m'?" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("sampler", "schedule", "num_steps", "named"),
    [
        ("nonesuch", None, 10, "unknown sampler 'nonesuch'"),
        ("ddim", "cosine", 10, "unknown schedule 'cosine'"),
        ("ddim", None, 0, "0 steps are too few"),
        ("ddim", None, 1001, "1001 steps are too many"),
        ("dpmpp_2m", "leading", 1000, "repeat a noise level"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    sampler: str, schedule: str | None, num_steps: int, named: str
) -> None:
    with pytest.raises(SamplerError, match=named):
        plan(sampler, schedule, SCHEDULE, num_steps)


def test_eta_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(SamplerError, match=r"eta 0\.5 is not for euler: use one of ddim, euler_a"):
        plan("euler", None, SCHEDULE, 10, PlanOptions(eta=0.5))


def test_a_config_survives_the_way_through_diffusers() -> None:
    for config in (
        DiffusionConfig(),
        DiffusionConfig(
            schedule="cosine", prediction="v", zero_terminal_snr=True, spacing="trailing"
        ),
        DiffusionConfig(
            schedule="linear", beta_start=1e-4, beta_end=0.02, prediction="x0", clip_sample=1.5
        ),
    ):
        assert DiffusionConfig.from_diffusers(config.to_diffusers()) == config


def test_a_config_builds_what_it_states() -> None:
    built = DiffusionConfig(zero_terminal_snr=True).noise_schedule()
    expected = SCHEDULE.rescaled_zero_terminal_snr()
    torch.testing.assert_close(built.alphas_cumprod, expected.alphas_cumprod)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"beta_schedule": "laplace"}, "unknown beta_schedule 'laplace'"),
        ({"trained_betas": [0.1]}, "trained_betas"),
        ({"thresholding": True}, "thresholding"),
        ({"prediction_type": "score"}, "unknown prediction 'score'"),
        ({"timestep_spacing": "uneven"}, "unknown timestep spacing 'uneven'"),
    ],
)
def test_a_scheduler_config_beyond_us_is_refused(config: dict, named: str) -> None:
    with pytest.raises(SamplerError, match=named):
        DiffusionConfig.from_diffusers(config)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("DPM++ 2M Karras", ("dpmpp_2m", "karras")),
        ("DPM++ 2M SDE Exponential", ("dpmpp_2m_sde", "exponential")),
        ("dpm++ 3m sde", ("dpmpp_3m_sde", None)),
        ("Euler a", ("euler_a", None)),
        ("DPM2 a Karras", ("dpm2_a", "karras")),
        ("euler_a", ("euler_a", None)),
        ("Euler SGM Uniform", ("euler", "sgm_uniform")),
        ("UniPC", ("unipc", None)),
        ("DPM++ 3M SDE Exponential", ("dpmpp_3m_sde", "exponential")),
        ("DPM++ 2S a Karras", ("dpmpp_2s_a", "karras")),
        ("DPM++ 2S ancestral", ("dpmpp_2s_a", None)),
        ("euler_ancestral", ("euler_a", None)),
        ("dpm_2_ancestral", ("dpm2_a", None)),
        ("LMS Karras", ("lms", "karras")),
        ("Euler Align Your Steps", ("euler", "align_your_steps")),
        ("Restart", ("restart", None)),
        ("LCM", ("lcm", None)),
        ("PNDM", ("plms", None)),
    ],
)
def test_a_sampler_may_be_spelled_as_the_web_ui_does(text: str, meant: tuple[str, str]) -> None:
    assert parse_sampler(text) == meant


def test_every_name_and_label_means_itself() -> None:
    for name, entry in SAMPLERS.items():
        assert parse_sampler(name) == parse_sampler(entry.label) == (name, None)
    assert all(parse_schedule(name) == name for name in SIGMA_SCHEDULES)
    assert parse_schedule("Align Your Steps XL") == "align_your_steps_xl"


def test_a_schedule_may_be_called_as_the_web_ui_does() -> None:
    assert parse_schedule("Normal") == "uniform"
    assert parse_schedule("DDIM") == "ddim_uniform"
    assert parse_schedule("KL Optimal") == "kl_optimal"
    assert parse_schedule("Automatic") is None


@pytest.mark.parametrize(
    "name", ["DPM++ 2M SDE Heun", "DPM fast", "DPM adaptive Karras", "DDIM CFG++", "HeunPP2", ""]
)
def test_a_sampler_that_there_is_not_is_one_line(name: str) -> None:
    with pytest.raises(SamplerError, match=r"unknown sampler .*: choose from ddim, .*tcd") as told:
        parse_sampler(name)
    assert "\n" not in str(told.value)


def test_a_misspelled_sampler_is_refused() -> None:
    with pytest.raises(SamplerError, match="did you mean 'dpmpp_2m_sde'"):
        parse_sampler("DPM++ 2M SDE Heun")
    with pytest.raises(SamplerError, match="unknown sampler 'DPM\\+\\+ 9M': choose from ddim"):
        parse_sampler("DPM++ 9M")
    with pytest.raises(SamplerError, match=r"unknown schedule 'Karas'.*did you mean 'karras'"):
        parse_schedule("Karas")
