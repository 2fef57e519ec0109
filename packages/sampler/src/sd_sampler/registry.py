"""The samplers by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sd_sampler.ddim import ddim
from sd_sampler.ddpm import ddpm, ddpm_large
from sd_sampler.dpmpp import dpmpp_2m
from sd_sampler.errors import unknown
from sd_sampler.euler import euler, euler_ancestral
from sd_sampler.protocols import Sampler
from sd_sampler.sigmas import Convention


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerEntry:
    """Describe a sampler.

    `convention` is how its peer in diffusers, the class `diffusers_class` with the arguments
    `diffusers_arguments`, rounds timesteps; `schedule` is the ladder it is best used with, or None
    for the model's own spacing; `stochastic` says whether it draws noise at its default settings.
    """

    name: str
    run: Sampler
    convention: Convention
    stochastic: bool
    summary: str
    diffusers_class: str
    diffusers_arguments: tuple[tuple[str, object], ...] = ()
    schedule: str | None = None


_ENTRIES = (
    SamplerEntry(
        name="ddim",
        run=ddim,
        convention="ddim",
        stochastic=False,
        summary="DDIM; deterministic at eta 0",
        diffusers_class="DDIMScheduler",
    ),
    SamplerEntry(
        name="ddpm",
        run=ddpm,
        convention="ddim",
        stochastic=True,
        summary="DDPM with the posterior's (small) variance; wants many steps",
        diffusers_class="DDPMScheduler",
        diffusers_arguments=(("variance_type", "fixed_small"),),
    ),
    SamplerEntry(
        name="ddpm_large",
        run=ddpm_large,
        convention="ddim",
        stochastic=True,
        summary="DDPM with the forward step's (large) variance; wants very many steps",
        diffusers_class="DDPMScheduler",
        diffusers_arguments=(("variance_type", "fixed_large"),),
    ),
    SamplerEntry(
        name="euler",
        run=euler,
        convention="euler",
        stochastic=False,
        summary="Euler's method on the probability-flow ODE",
        diffusers_class="EulerDiscreteScheduler",
    ),
    SamplerEntry(
        name="euler_a",
        run=euler_ancestral,
        convention="euler",
        stochastic=True,
        summary="Euler ancestral: fresh noise at every step",
        diffusers_class="EulerAncestralDiscreteScheduler",
    ),
    SamplerEntry(
        name="dpmpp_2m",
        run=dpmpp_2m,
        convention="dpmpp",
        stochastic=False,
        summary="DPM-Solver++(2M) on Karras sigmas; 20 steps are enough",
        diffusers_class="DPMSolverMultistepScheduler",
        diffusers_arguments=(("use_karras_sigmas", True),),
        schedule="karras",
    ),
)

SAMPLERS: Mapping[str, SamplerEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def get_sampler(name: str) -> SamplerEntry:
    """Find a sampler by name; raises `SamplerError` with the names and the nearest match."""
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    return SAMPLERS[name]
