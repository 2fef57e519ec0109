"""sd_sampler against diffusers' schedulers: the same steps and the same pictures.

Single steps are taken on the same inputs with the same noise. In float64, with diffusers' float32
table of alphas_cumprod replaced by ours, they agree to 1e-9; with diffusers as it comes, in
float32, to 1e-5 for samples of the usual size (x0 prediction at timesteps below 10, where its
float32 `1 - alphas_cumprod` is short of digits: 1e-4). Whole runs in float32 agree to 2e-5 of the
picture's range.
"""

import inspect
from itertools import product

import diffusers
import pytest
import torch
from torch import Tensor

from sd_sampler import (
    SAMPLERS,
    DDIMOptions,
    DiffusionConfig,
    NoiseSource,
    Plan,
    PlanOptions,
    clipped,
    ddim,
    ddim_inversion,
    ddpm,
    ddpm_large,
    plan,
    prediction,
)
from tests.parity.schedulers import (
    DIFFUSERS_NAMES,
    SCHEDULE,
    SPACINGS,
    STABLE,
    exact,
    inputs,
    network,
)


def some(num_steps: int) -> list[int]:
    """Return the numbers of a few steps, the first and the last among them."""
    return sorted({0, 1, num_steps // 2, num_steps - 2, num_steps - 1} & set(range(num_steps)))


def check(ours: Tensor, theirs: Tensor, kind: str, timestep: int) -> None:
    if ours.dtype == torch.float64:
        tolerance = 1e-9  # DDPMScheduler keeps a variance of 1e-20 at the end
    else:
        tolerance = 1e-4 if kind == "x0" and timestep < 10 else 1e-5
    scale = max(1.0, float(theirs.abs().max()) / 4)  # one-step runs divide by 0.068: 50 and more
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_steps_equal_ddim_scheduler(
    eta: float, clip: float | None, kind: str, dtype: torch.dtype
) -> None:
    for spacing, offset, to_one, num_steps in product(
        SPACINGS, (0, 1), (True, False), (1, 7, 20, 30, 250)
    ):
        common = {"steps_offset": offset, "set_alpha_to_one": to_one}
        peer = diffusers.DDIMScheduler(
            **STABLE,
            **common,
            timestep_spacing=spacing,
            clip_sample=clip is not None,
            prediction_type=DIFFUSERS_NAMES[kind],
        )
        if dtype == torch.float64:
            exact(peer, to_one=to_one)
        peer.set_timesteps(num_steps)
        options = PlanOptions(**common, spacing=spacing, clip_sample=clip, eta=eta)
        made = plan("ddim", None, SCHEDULE, num_steps, options)
        for i in some(num_steps):
            x, output, noise = inputs(i, dtype)
            timestep = peer.timesteps[i]
            variance_noise = noise if eta else None
            theirs = peer.step(output, timestep, x, eta=eta, variance_noise=variance_noise)
            now, after = made.sigmas[i : i + 2].tolist()
            landings = None if made.landings is None else made.landings[i : i + 1]
            ours = ddim(
                made.denoiser(lambda *_, f=output: f, prediction(kind)),
                x * (1 + now**2) ** 0.5,
                made.sigmas[i : i + 2],
                options=DDIMOptions(eta=eta, clip=clip),
                landings=landings,
                noise=lambda n=noise: n,
            )
            ours = ours / (1 + after**2) ** 0.5
            check(ours, theirs.prev_sample, kind, int(timestep))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_steps_equal_ddpm_scheduler(
    variance: str, clip: float | None, kind: str, dtype: torch.dtype
) -> None:
    sampler = ddpm if variance == "fixed_small" else ddpm_large
    for spacing, num_steps in product(SPACINGS, (7, 20, 250, 1000)):
        if num_steps == 1000 and dtype == torch.float32:
            continue  # at timesteps 1 and 2 its float32 beta has no digits left for 1e-5
        peer = diffusers.DDPMScheduler(
            **STABLE,
            timestep_spacing=spacing,
            variance_type=variance,
            clip_sample=clip is not None,
            prediction_type=DIFFUSERS_NAMES[kind],
        )
        if dtype == torch.float64:
            exact(peer)
        peer.set_timesteps(num_steps)
        made = plan("ddpm", spacing, SCHEDULE, num_steps)
        for i in some(num_steps):
            x, output, _ = inputs(i, dtype)
            timestep = peer.timesteps[i]
            # DDPMScheduler takes no noise, but draws it from a generator: draw the same first.
            noise = torch.randn(x.shape, dtype=dtype, generator=torch.Generator().manual_seed(i))
            generator = torch.Generator().manual_seed(i)
            theirs = peer.step(output, timestep, x, generator=generator).prev_sample
            denoise = made.denoiser(lambda *_, f=output: f, prediction(kind))
            denoise = clipped(denoise, clip) if clip else denoise
            last = {"noise_at_end": bool(timestep > 0)} if sampler is ddpm_large else {}
            now, after = made.sigmas[i : i + 2].tolist()
            start, steps = x * (1 + now**2) ** 0.5, made.sigmas[i : i + 2]
            ours = sampler(denoise, start, steps, noise=lambda n=noise: n, **last)
            check(ours / (1 + after**2) ** 0.5, theirs, kind, int(timestep))


def their_picture(scheduler: diffusers.SchedulerMixin, num_steps: int, eta: float) -> Tensor:
    """Run the loop of diffusers' StableDiffusionPipeline for seed 3."""
    generator = torch.Generator("cpu").manual_seed(3)
    extra: dict[str, object] = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        extra["generator"] = generator
    if "eta" in inspect.signature(scheduler.step).parameters:
        extra["eta"] = eta
    scheduler.set_timesteps(num_steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index()  # without it a repeated first timestep skips a step
    latents = torch.randn((1, 4, 8, 8), generator=generator) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        output = network(scheduler.scale_model_input(latents, timestep), timestep.reshape(1))
        latents = scheduler.step(output, timestep, latents, **extra).prev_sample
    return latents


def our_picture(made: Plan, kind: str) -> Tensor:
    """Draw seed 3 as the second of a batch, which is to change nothing."""
    noise = NoiseSource([2, 3], (4, 8, 8))
    return made.run(made.denoiser(network, prediction(kind)), noise)[1:]


def assert_same_picture(ours: Tensor, theirs: Tensor, tolerance: float = 2e-5) -> None:
    scale = max(1.0, float(theirs.abs().max()))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * scale)


RUNS = {
    "ddim": ("ddim", None, {}),
    "ddim, eta 0.5": ("ddim", None, {}),
    "ddpm": ("ddpm", None, {}),
    "ddpm_large": ("ddpm_large", None, {"variance_type": "fixed_large"}),
    "euler": ("euler", None, {}),
    "euler, karras": ("euler", "karras", {"use_karras_sigmas": True}),
    "euler_a": ("euler_a", None, {}),
    "dpmpp_2m, karras": ("dpmpp_2m", None, {"use_karras_sigmas": True}),
    "dpmpp_2m": ("dpmpp_2m", "spacing", {"use_karras_sigmas": False}),
    "dpmpp_2m_sde, karras": (
        "dpmpp_2m_sde",
        None,
        {"use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"},
    ),
    "heun": ("heun", None, {}),
    "heun, karras": ("heun", "karras", {"use_karras_sigmas": True}),
    "heun, exponential": ("heun", "exponential", {"use_exponential_sigmas": True}),
    "dpm2": ("dpm2", None, {}),
    "dpm2, karras": ("dpm2", "karras", {"use_karras_sigmas": True}),
    "dpm2_a": ("dpm2_a", None, {}),
    "lms": ("lms", None, {}),
    "unipc": ("unipc", None, {}),
    "unipc, karras": ("unipc", "karras", {"use_karras_sigmas": True}),
    "unipc, exponential": ("unipc", "exponential", {"use_exponential_sigmas": True}),
}


@pytest.mark.parametrize("kind", ["eps", "v"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("run", RUNS)
def test_a_run_from_a_seed_gives_diffusers_picture(run: str, spacing: str, kind: str) -> None:
    name, schedule, arguments = RUNS[run]
    eta = 0.5 if run == "ddim, eta 0.5" else None
    offsets = (0, 1) if spacing == "leading" else (1,)  # there alone it counts
    clips = (False, True) if name in ("ddim", "ddpm", "ddpm_large") else (False,)
    for offset, num_steps, clip in product(offsets, (1, 7, 20, 30), clips):
        config = {
            **STABLE,
            "timestep_spacing": spacing,
            "steps_offset": offset,
            "set_alpha_to_one": False,
            "prediction_type": DIFFUSERS_NAMES[kind],
            "clip_sample": clip,
        }
        peer_class = getattr(diffusers, SAMPLERS[name].diffusers_class)
        peer = peer_class.from_config({**config, **arguments})
        ours = DiffusionConfig.from_diffusers(config)
        schedule = spacing if schedule == "spacing" else schedule
        made = plan(name, schedule, ours.noise_schedule(), num_steps, ours.plan_options(eta=eta))
        assert_same_picture(our_picture(made, kind), their_picture(peer, num_steps, eta or 0))


def rescales(name: str) -> bool:
    """Tell whether a sampler's class in diffusers knows zero terminal SNR at all."""
    peer = getattr(diffusers, SAMPLERS[name].diffusers_class)
    return "rescale_betas_zero_snr" in inspect.signature(peer).parameters


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("run", [run for run, (name, *_) in RUNS.items() if rescales(name)])
def test_zero_terminal_snr_gives_diffusers_picture(run: str, spacing: str) -> None:
    # DDIM and DDPM know an alphas_cumprod of 0, Euler and DPM-Solver++ one of 2**-24: so do we.
    name, schedule, arguments = RUNS[run]
    eta = 0.5 if run == "ddim, eta 0.5" else None
    config = DiffusionConfig(
        zero_terminal_snr=True, prediction="v", spacing=spacing, set_alpha_to_one=True
    )
    peer_class = getattr(diffusers, SAMPLERS[name].diffusers_class)
    peer = peer_class.from_config({**config.to_diffusers(), **arguments})
    schedule = spacing if schedule == "spacing" else schedule
    made = plan(name, schedule, config.noise_schedule(), 20, config.plan_options(eta=eta))
    assert_same_picture(our_picture(made, "v"), their_picture(peer, 20, eta or 0))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("run", ["ddim", "ddpm", "euler", "euler_a", "dpmpp_2m, karras"])
def test_other_noise_schedules_give_diffusers_picture(run: str, schedule: str) -> None:
    name, ladder, arguments = RUNS[run]
    config = DiffusionConfig(
        schedule=schedule, beta_start=1e-4, beta_end=0.02, prediction="v", spacing="trailing"
    )
    peer_class = getattr(diffusers, SAMPLERS[name].diffusers_class)
    peer = peer_class.from_config({**config.to_diffusers(), **arguments})
    made = plan(name, ladder, config.noise_schedule(), 20, config.plan_options())
    # The largest sigma of cosine is 20,291; diffusers subtracts float32 numbers as large.
    tolerance = 2e-4 if (schedule, name[:5]) == ("cosine", "euler") else 2e-5
    assert_same_picture(our_picture(made, "v"), their_picture(peer, 20, 0), tolerance)


def test_the_registry_names_a_peer_that_exists_with_its_arguments() -> None:
    for entry in SAMPLERS.values():
        if entry.diffusers_class is None:
            continue
        peer = getattr(diffusers, entry.diffusers_class)(**dict(entry.diffusers_arguments))
        assert all(peer.config[key] == value for key, value in entry.diffusers_arguments)


@pytest.mark.parametrize("num_steps", [1, 4, 20, 50])
def test_plms_gives_diffusers_picture_for_eps_at_leading_timesteps(num_steps: int) -> None:
    # Where its steps do not aim at the next timestep, or v is predicted, the two part: see README.
    config = {**STABLE, "steps_offset": 1, "set_alpha_to_one": False, "skip_prk_steps": True}
    peer = diffusers.PNDMScheduler(**config, timestep_spacing="leading")
    ours = DiffusionConfig.from_diffusers({**config, "_class_name": "PNDMScheduler"})
    made = plan("plms", None, ours.noise_schedule(), num_steps, ours.plan_options())
    assert_same_picture(our_picture(made, "eps"), their_picture(peer, num_steps, 0))


@pytest.mark.parametrize("kind", ["eps", "v"])
@pytest.mark.parametrize("num_steps", [1, 2, 4, 8, 50])
def test_lcm_gives_diffusers_picture(num_steps: int, kind: str) -> None:
    peer = diffusers.LCMScheduler(**STABLE, prediction_type=DIFFUSERS_NAMES[kind])
    made = plan("lcm", None, SCHEDULE, num_steps)
    assert made.timesteps.tolist() == timesteps_of(peer, num_steps)
    # The boundary scalings that are left out are 7e-6 at the lowest of the fifty timesteps.
    assert_same_picture(our_picture(made, kind), their_picture(peer, num_steps, 0))


def timesteps_of(scheduler: diffusers.SchedulerMixin, num_steps: int) -> list[float]:
    scheduler.set_timesteps(num_steps)
    return scheduler.timesteps.tolist()


@pytest.mark.parametrize("kind", ["eps", "v"])
@pytest.mark.parametrize("num_steps", [2, 4, 8])
def test_tcd_steps_equal_tcd_scheduler(num_steps: int, kind: str) -> None:
    # All but the last: its last ends at alphas_cumprod[0], ours at the picture.
    peer = diffusers.TCDScheduler(**STABLE, prediction_type=DIFFUSERS_NAMES[kind])
    exact(peer)
    made = plan("tcd", None, SCHEDULE, num_steps)
    assert made.timesteps.tolist() == timesteps_of(peer, num_steps)
    noise = NoiseSource([3], (4, 8, 8), dtype=torch.float64)
    x, seen = noise.initial(), []
    made.run(
        made.denoiser(network, prediction(kind)),
        noise,
        x=x * made.init_scale,
        on_step=lambda *told: seen.append(told[2]),
    )
    generator = torch.Generator().manual_seed(3)
    torch.randn((1, 4, 8, 8), generator=generator)
    for i, timestep in enumerate(peer.timesteps[:-1]):
        fresh = torch.randn((1, 4, 8, 8), generator=generator).double()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "diffusers.schedulers.scheduling_tcd.randn_tensor", lambda *_, f=fresh, **__: f
            )
            x = peer.step(network(x, timestep.reshape(1)), timestep, x).prev_sample
        following = float(made.sigmas[i + 1])
        torch.testing.assert_close(seen[i] / (1 + following**2) ** 0.5, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("num_steps", [5, 20, 50])
def test_inversion_gives_diffusers_noise(num_steps: int) -> None:
    peer = diffusers.DDIMInverseScheduler(**STABLE, steps_offset=1, clip_sample=False)
    exact(peer)
    peer.initial_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    peer.set_timesteps(num_steps)
    made = plan("ddim", "leading", SCHEDULE, num_steps, PlanOptions(steps_offset=1))
    x = x0 = inputs(0, torch.float64)[0]
    for timestep in peer.timesteps:
        x = peer.step(network(x, timestep.reshape(1)), timestep, x).prev_sample
    ours = ddim_inversion(made.denoiser(network, prediction("eps")), x0, made.sigmas)
    torch.testing.assert_close(ours / made.init_scale, x, rtol=0, atol=1e-6)
