"""A plan: everything about a sampling run that does not depend on the network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from sd_sampler.ddim import DDIMOptions, ddim
from sd_sampler.ddpm import ddpm_large
from sd_sampler.denoiser import clipped, denoiser
from sd_sampler.errors import SamplerError, unknown
from sd_sampler.flow import FlowSchedule
from sd_sampler.ladders import LADDERS, SPANS
from sd_sampler.noise import NoiseSource
from sd_sampler.prediction import Prediction
from sd_sampler.protocols import Denoiser, Network, OnStep, precise
from sd_sampler.registry import SAMPLERS, SamplerEntry, get_sampler
from sd_sampler.schedule import NoiseSchedule
from sd_sampler.sigmas import (
    SIGMA_SCHEDULES,
    SPACINGS,
    check_steps,
    close,
    sigmas_at,
    spaced_timesteps,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOptions:
    """Settle what a model's scheduler_config.json settles, under the same names.

    `clip_sample` is the limit to clamp x0 to, or None; it and `set_alpha_to_one` concern ddim and
    ddpm alone. `eta` is that of ddim (None: 0) and of the ancestral and SDE samplers (None: 1).
    `match_diffusers` asks for
    diffusers' picture to the last bit; without it DPM-Solver++ does not round its timesteps, DDIM
    aims for the level it stops at next, and Karras ladders span the whole table.
    """

    spacing: str = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    clip_sample: float | None = None
    eta: float | None = None
    match_diffusers: bool = True

    def __post_init__(self) -> None:
        if self.spacing not in SPACINGS:
            raise unknown("timestep spacing", self.spacing, SPACINGS)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Plan:
    """Hold a ladder and the way down it.

    `sigmas` (N + 1,) float64 ends with 0; `timesteps` (N,) are what the network is told at each.
    The first x is unit noise times `init_scale`. `clip`, where set, clamps x0 around the sampler.
    Its `landings` (N,) are the levels at which diffusers' DDIM aims its steps, kept only where they
    differ from the ladder's: always T // N timesteps down (not so for linspace, nor for trailing
    where N does not divide T), and the last to alphas_cumprod[0] unless `set_alpha_to_one`.
    `rounds_timesteps` says that `timesteps` are rounded away from the sigmas they stand for;
    `first_step` is the number of the first step, 0 but for a `tail`.
    """

    sampler: SamplerEntry
    schedule: str
    num_steps: int
    sigmas: Tensor
    timesteps: Tensor
    init_scale: float
    rounds_timesteps: bool
    clip: float | None
    first_step: int = 0
    _run: Callable[..., Tensor] = field(repr=False)
    _by_step: Mapping[str, Tensor] = field(repr=False)
    _noise_schedule: NoiseSchedule = field(repr=False)

    @property
    def landings(self) -> Tensor | None:
        """Where the steps aim, None where that is the ladder's next level."""
        return self._by_step.get("landings")

    def tail(self, first: int) -> "Plan":
        """Return the plan of the steps from number `first` on: of a picture that is there already.

        Its run starts from `x = latents + sigmas[0] noise`, of which `noised` makes one. Raises
        `SamplerError` when there is no such step.
        """
        if not 0 <= first < self.num_steps:
            raise SamplerError(
                f"step {first} is out of range: choose from 0 to {self.num_steps - 1}"
            )
        return replace(
            self,
            num_steps=self.num_steps - first,
            sigmas=self.sigmas[first:],
            timesteps=self.timesteps[first:],
            first_step=self.first_step + first,
            _by_step={name: values[first:] for name, values in self._by_step.items()},
        )

    def noised(self, latents: Tensor, noise: Tensor) -> Tensor:
        """Return the x (B, ...) from which latents (B, ...) are drawn anew."""
        return latents + float(self.sigmas[0]) * noise

    def timestep_of(self, sigma: Tensor) -> Tensor:
        """Return the timestep of each sigma (B,): the ladder's own, or the table's between them."""
        dtype = precise(sigma.device)
        ladder = self.sigmas[:-1].log().to(sigma.device, dtype)
        distance, nearest = (ladder - sigma.to(dtype).log()[:, None]).abs().min(1)
        own = self.timesteps.to(sigma.device, dtype)[nearest]
        return own.where(distance < _SAME_LEVEL, self._noise_schedule.timestep_of(sigma))

    def denoiser(
        self, network: Network, prediction: Prediction, *, dtype: torch.dtype | None = None
    ) -> Denoiser:
        """Wrap a network into the denoiser that this plan's timesteps call for."""
        return denoiser(network, self, prediction, dtype=dtype)

    def initial(self, noise: NoiseSource) -> Tensor:
        """Return the x (B, ...) that the run starts from."""
        return noise.initial() * self.init_scale

    def run(
        self,
        denoise: Denoiser,
        noise: NoiseSource,
        *,
        x: Tensor | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Sample x0 (B, ...) from noise; the network runs under the caller's grad mode.

        Starts from `x`, whose noise has been drawn already, or draws one by `initial`.
        """
        if self.clip is not None:
            denoise = clipped(denoise, self.clip)
        if x is None:
            x = self.initial(noise)

        def tell(step: int, sigma: float, x: Tensor, x0: Tensor) -> None:
            if on_step is not None:
                on_step(self.first_step + step, sigma, x, x0)

        return self._run(denoise, x, self.sigmas, noise=noise, on_step=tell, **self._by_step)


_DEFAULTS = PlanOptions()
_SAME_LEVEL = 1e-5  # in log sigma: what float32 makes of a level is the level
_GAMMA = 0.3
# Carrying a slope far in sigma, these are lost where sigma stands for infinity.
_BY_SLOPES = ("heun", "dpm2", "dpm2_a", "lms", "plms", "deis")
_LARGEST_BY_SLOPES = 1e6


def plan(
    sampler: str,
    schedule: str | None,
    noise_schedule: NoiseSchedule,
    num_steps: int,
    options: PlanOptions = _DEFAULTS,
) -> Plan:
    """Plan a run of `sampler` in `num_steps` along `schedule`.

    `schedule` is one of `SIGMA_SCHEDULES`; None is the sampler's own, such as karras for dpmpp_2m,
    or else the spacing of `options`, or of a `FlowSchedule` uniform. Raises `SamplerError` for
    unknown names, a number of steps out of range or too many for the schedule, an eta the sampler
    does not take, and one that cannot start at zero terminal SNR.
    """
    entry = get_sampler(sampler)
    own = options.spacing
    if isinstance(noise_schedule, FlowSchedule):
        # diffusers' roundings are not for flows; and leading timesteps do not begin with noise.
        options = replace(options, match_diffusers=False)
        own = "karras" if entry.name in _BY_SLOPES else "uniform"
    name = schedule or entry.schedule or own
    if name not in SIGMA_SCHEDULES:
        raise unknown("schedule", name, SIGMA_SCHEDULES)
    check_steps(num_steps, noise_schedule.num_timesteps)
    spacing = name if name in SPACINGS else options.spacing
    if name in SPANS:
        levels, timesteps = _spanned(name, entry, noise_schedule, num_steps, options)
    elif name in LADDERS:
        levels = LADDERS[name](noise_schedule, num_steps)
        timesteps = noise_schedule.timestep_of(levels)
    else:
        timesteps = _spaced(entry, spacing, noise_schedule, num_steps, options)
        levels = sigmas_at(noise_schedule, timesteps, convention=entry.convention)
    sigmas = close(levels)
    if entry.name in _BY_SLOPES and float(sigmas[0]) > _LARGEST_BY_SLOPES:
        raise SamplerError(
            f"{entry.name} cannot start at zero terminal SNR, where eps says nothing of the "
            "picture: choose another sampler, such as ddim, or a schedule such as karras"
        )
    by_step: dict[str, Tensor] = {}
    if entry.name in ("ddim", "plms") and name in SPACINGS and options.match_diffusers:
        landings = _landings(noise_schedule, timesteps, sigmas, options)
        by_step = {} if landings is None else {"landings": landings}
    elif entry.name == "tcd":
        by_step = {"below": _below(noise_schedule, timesteps)}
    return Plan(
        sampler=entry,
        schedule=name,
        num_steps=num_steps,
        sigmas=sigmas,
        timesteps=timesteps,
        init_scale=_init_scale(entry, spacing, float(sigmas[0]), options),
        rounds_timesteps=_rounds(entry, options) and name in SPANS,
        clip=options.clip_sample if entry.name in ("ddpm", "ddpm_large") else None,
        _run=_bind(entry, options, noise_at_end=float(timesteps[-1]) > 0),
        _by_step=by_step,
        _noise_schedule=noise_schedule,
    )


def _spaced(
    entry: SamplerEntry,
    spacing: str,
    noise_schedule: NoiseSchedule,
    num_steps: int,
    options: PlanOptions,
) -> Tensor:
    return spaced_timesteps(
        spacing,
        noise_schedule.num_timesteps,
        num_steps,
        steps_offset=options.steps_offset,
        convention=entry.convention,
    )


def _spanned(
    name: str,
    entry: SamplerEntry,
    noise_schedule: NoiseSchedule,
    num_steps: int,
    options: PlanOptions,
) -> tuple[Tensor, Tensor]:
    low, high = noise_schedule.span
    if entry.convention == "euler" and entry.diffusers_class and options.match_diffusers:
        # diffusers' Euler spans the ladder of its spacing, DPM-Solver++ the whole table.
        timesteps = _spaced(entry, options.spacing, noise_schedule, num_steps, options)
        low, high = sigmas_at(noise_schedule, timesteps[[-1, 0]], convention="euler").tolist()
    levels = SPANS[name](low, high, num_steps)
    timesteps = noise_schedule.timestep_of(levels)
    if _rounds(entry, options):
        # diffusers rounds those of karras and truncates the rest, and with DPM-Solver++ truncates
        # all for the cosine schedule.
        solver = entry.diffusers_class == "DPMSolverMultistepScheduler"
        rounds = name == "karras" and not (solver and noise_schedule.name == "cosine")
        if rounds:
            timesteps = timesteps.round()
        elif entry.convention == "dpmpp":
            timesteps = timesteps.floor()
    return levels, timesteps


def _rounds(entry: SamplerEntry, options: PlanOptions) -> bool:
    return entry.rounds_timesteps and options.match_diffusers


def _landings(
    noise_schedule: NoiseSchedule, timesteps: Tensor, sigmas: Tensor, options: PlanOptions
) -> Tensor | None:
    aims = timesteps.long() - noise_schedule.num_timesteps // len(timesteps)
    levels = sigmas_at(noise_schedule, aims.clamp(min=0).double(), convention="ddim")
    final = 0.0 if options.set_alpha_to_one else float(noise_schedule.sigmas[0])
    landings = levels.where(aims >= 0, torch.tensor(final, dtype=torch.float64))
    return None if torch.equal(landings, sigmas[1:]) else landings


def _init_scale(entry: SamplerEntry, spacing: str, sigma_max: float, options: PlanOptions) -> float:
    if entry.convention == "euler" and spacing != "leading" and options.match_diffusers:
        return sigma_max
    # Variance-preserving noise of standard deviation 1, divided by sqrt(alphas_cumprod).
    return float((1 + sigma_max**2) ** 0.5)


def _below(noise_schedule: NoiseSchedule, timesteps: Tensor) -> Tensor:
    """Return the levels that TCD's steps go down to before they climb to the next one."""
    following = torch.cat([timesteps[1:], timesteps.new_zeros(1)])
    return sigmas_at(noise_schedule, (following * (1 - _GAMMA)).floor(), convention="ddim")


def _bind(
    entry: SamplerEntry, options: PlanOptions, *, noise_at_end: bool
) -> Callable[..., Tensor]:
    """Give a sampler what the options settle for it."""
    if options.eta is not None and not entry.takes_eta:
        able = ", ".join(name for name, other in SAMPLERS.items() if other.takes_eta)
        raise SamplerError(f"eta {options.eta} is not for {entry.name}: use one of {able}")
    if entry.name == "ddim":
        settled = DDIMOptions(eta=options.eta or 0.0, clip=options.clip_sample)
        return partial(ddim, options=settled)
    if entry.name == "ddpm_large":
        return partial(ddpm_large, noise_at_end=noise_at_end and options.match_diffusers)
    run: Callable[..., Tensor] = entry.run
    return run if options.eta is None else partial(run, eta=options.eta)
