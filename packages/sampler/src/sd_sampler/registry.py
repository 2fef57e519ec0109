"""The samplers by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sd_sampler.consistency import lcm, tcd
from sd_sampler.ddim import ddim
from sd_sampler.ddpm import ddpm, ddpm_large
from sd_sampler.dpmpp import dpmpp_2m
from sd_sampler.dpmpp_sde import dpmpp_2m_sde, dpmpp_3m_sde, dpmpp_sde
from sd_sampler.er_sde import er_sde
from sd_sampler.errors import squeezed, unknown
from sd_sampler.euler import euler, euler_ancestral
from sd_sampler.multistep import deis, lms, plms
from sd_sampler.protocols import Sampler
from sd_sampler.restart import restart
from sd_sampler.second_order import dpm2, dpm2_ancestral, dpmpp_2s_ancestral, heun
from sd_sampler.sigmas import SIGMA_SCHEDULES, Convention
from sd_sampler.unipc import unipc


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerEntry:
    """Describe a sampler.

    `label` is the web UI's name. `convention` is how its peer in diffusers rounds timesteps, and
    `rounds_timesteps` whether it rounds those of Karras sigmas too; the peer is the class
    `diffusers_class` with the arguments `diffusers_arguments`, None where none draws the same
    picture. `schedule` is the ladder it is best used with, None for the model's own spacing;
    `stochastic` says whether it draws noise at its default settings, and `takes_eta` whether `eta`
    says how much.
    """

    name: str
    label: str
    run: Sampler
    summary: str
    convention: Convention = "euler"
    rounds_timesteps: bool = False
    stochastic: bool = False
    takes_eta: bool = False
    diffusers_class: str | None = None
    diffusers_arguments: tuple[tuple[str, object], ...] = ()
    schedule: str | None = None


_ENTRIES = (
    SamplerEntry(
        name="ddim",
        label="DDIM",
        run=ddim,
        summary="DDIM; deterministic at eta 0",
        convention="ddim",
        takes_eta=True,
        diffusers_class="DDIMScheduler",
    ),
    SamplerEntry(
        name="ddpm",
        label="DDPM",
        run=ddpm,
        summary="DDPM with the posterior's (small) variance; wants many steps",
        convention="ddim",
        stochastic=True,
        diffusers_class="DDPMScheduler",
        diffusers_arguments=(("variance_type", "fixed_small"),),
    ),
    SamplerEntry(
        name="ddpm_large",
        label="DDPM large variance",
        run=ddpm_large,
        summary="DDPM with the forward step's (large) variance; wants very many steps",
        convention="ddim",
        stochastic=True,
        diffusers_class="DDPMScheduler",
        diffusers_arguments=(("variance_type", "fixed_large"),),
    ),
    SamplerEntry(
        name="euler",
        label="Euler",
        run=euler,
        summary="Euler's method on the probability-flow ODE",
        diffusers_class="EulerDiscreteScheduler",
    ),
    SamplerEntry(
        name="euler_a",
        label="Euler a",
        run=euler_ancestral,
        summary="Euler ancestral: fresh noise at every step",
        stochastic=True,
        takes_eta=True,
        diffusers_class="EulerAncestralDiscreteScheduler",
    ),
    SamplerEntry(
        name="heun",
        label="Heun",
        run=heun,
        summary="Heun's method; asks the network twice a step",
        diffusers_class="HeunDiscreteScheduler",
    ),
    SamplerEntry(
        name="dpm2",
        label="DPM2",
        run=dpm2,
        summary="the midpoint method in log sigma; asks twice a step",
        rounds_timesteps=True,
        diffusers_class="KDPM2DiscreteScheduler",
    ),
    SamplerEntry(
        name="dpm2_a",
        label="DPM2 a",
        run=dpm2_ancestral,
        summary="DPM2 ancestral: fresh noise at every step",
        rounds_timesteps=True,
        stochastic=True,
        takes_eta=True,
        diffusers_class="KDPM2AncestralDiscreteScheduler",
    ),
    SamplerEntry(
        name="lms",
        label="LMS",
        run=lms,
        summary="linear multistep of order 4",
        diffusers_class="LMSDiscreteScheduler",
    ),
    SamplerEntry(
        name="plms",
        label="PLMS",
        run=plms,
        summary="pseudo linear multistep: PNDM without its Runge-Kutta steps",
        convention="ddim",
        diffusers_class="PNDMScheduler",
        diffusers_arguments=(("skip_prk_steps", True),),
    ),
    SamplerEntry(
        name="dpmpp_2m",
        label="DPM++ 2M",
        run=dpmpp_2m,
        summary="DPM-Solver++(2M) on Karras sigmas; 20 steps are enough",
        convention="dpmpp",
        rounds_timesteps=True,
        diffusers_class="DPMSolverMultistepScheduler",
        diffusers_arguments=(("use_karras_sigmas", True),),
        schedule="karras",
    ),
    SamplerEntry(
        name="dpmpp_2s_a",
        label="DPM++ 2S a",
        run=dpmpp_2s_ancestral,
        summary="DPM-Solver++(2S) ancestral; asks twice a step",
        stochastic=True,
        takes_eta=True,
        schedule="karras",
    ),
    SamplerEntry(
        name="dpmpp_sde",
        label="DPM++ SDE",
        run=dpmpp_sde,
        summary="DPM-Solver++ for the SDE; asks twice a step",
        stochastic=True,
        takes_eta=True,
        schedule="karras",
    ),
    SamplerEntry(
        name="dpmpp_2m_sde",
        label="DPM++ 2M SDE",
        run=dpmpp_2m_sde,
        summary="DPM-Solver++(2M) for the SDE",
        convention="dpmpp",
        rounds_timesteps=True,
        stochastic=True,
        takes_eta=True,
        diffusers_class="DPMSolverMultistepScheduler",
        diffusers_arguments=(("algorithm_type", "sde-dpmsolver++"), ("use_karras_sigmas", True)),
        schedule="karras",
    ),
    SamplerEntry(
        name="dpmpp_3m_sde",
        label="DPM++ 3M SDE",
        run=dpmpp_3m_sde,
        summary="DPM-Solver++(3M) for the SDE; best on exponential sigmas",
        stochastic=True,
        takes_eta=True,
        schedule="exponential",
    ),
    SamplerEntry(
        name="unipc",
        label="UniPC",
        run=unipc,
        summary="UniPC of order 2; 20 steps are enough",
        convention="dpmpp",
        rounds_timesteps=True,
        diffusers_class="UniPCMultistepScheduler",
    ),
    SamplerEntry(
        name="deis",
        label="DEIS",
        run=deis,
        summary="DEIS of order 2 in log sigma",
        convention="dpmpp",
        rounds_timesteps=True,
    ),
    SamplerEntry(
        name="restart",
        label="Restart",
        run=restart,
        summary="Heun's method that climbs back from 20 steps on; asks twice a step",
        stochastic=True,
        schedule="karras",
    ),
    SamplerEntry(
        name="er_sde",
        label="ER SDE",
        run=er_sde,
        summary="ER-SDE-Solver-3: an SDE of little noise, and next to none at the end",
        stochastic=True,
        takes_eta=True,
        schedule="karras",
    ),
    SamplerEntry(
        name="lcm",
        label="LCM",
        run=lcm,
        summary="for latent consistency models; 4 to 8 steps",
        convention="ddim",
        stochastic=True,
        diffusers_class="LCMScheduler",
        schedule="lcm",
    ),
    SamplerEntry(
        name="tcd",
        label="TCD",
        run=tcd,
        summary="for trajectory consistency models; 4 to 8 steps",
        convention="ddim",
        stochastic=True,
        schedule="lcm",
    ),
)

SAMPLERS: Mapping[str, SamplerEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def get_sampler(name: str) -> SamplerEntry:
    """Find a sampler by name; raises `SamplerError` with the names and the nearest match."""
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    return SAMPLERS[name]


# What others call ours: diffusers' class, and the web UI's schedules.
_OTHER_SAMPLERS = {"pndm": "plms"}
_OTHER_SCHEDULES = {"normal": "uniform", "ddim": "ddim_uniform"}
_AUTOMATIC = "automatic"


def parse_sampler(text: str) -> tuple[str, str | None]:
    """Read a sampler in our spelling or the web UI's, which may end in a schedule.

    "euler_a" is ("euler_a", None) and "DPM++ 2M Karras" is ("dpmpp_2m", "karras"); case and spaces
    make no difference, and ancestral may be written out. Raises `SamplerError` with the names and
    the nearest match.
    """
    wanted = squeezed(text)
    known = _OTHER_SAMPLERS | {squeezed(name): name for name in SAMPLERS}
    known |= {squeezed(entry.label): entry.name for entry in _ENTRIES}
    if wanted in known:
        return known[wanted], None
    for schedule in SIGMA_SCHEDULES:
        start = wanted.removesuffix(squeezed(schedule))
        if start != wanted and start in known:
            return known[start], schedule
    raise unknown("sampler", text, SAMPLERS)


def parse_schedule(text: str) -> str | None:
    """Read a schedule in our spelling or the web UI's, such as "SGM Uniform".

    Its "Automatic" is None, the sampler's own. Raises `SamplerError` with the names and the nearest
    match.
    """
    wanted = squeezed(text)
    if wanted == _AUTOMATIC:
        return None
    known = _OTHER_SCHEDULES | {squeezed(name): name for name in SIGMA_SCHEDULES}
    if wanted not in known:
        raise unknown("schedule", text, SIGMA_SCHEDULES)
    return known[wanted]
