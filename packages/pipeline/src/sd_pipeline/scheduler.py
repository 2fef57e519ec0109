"""What `scheduler_config.json` says: the diffusion process, and the sampler of choice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sd_pipeline.errors import PipelineError
from sd_sampler import SAMPLERS, DiffusionConfig, SamplerEntry, get_sampler

_FALLBACK = "dpmpp_2m"
# Keys that diffusers' DDIMScheduler has and others do not, for which they warn, and those who do.
_NOT_EVERYWHERE = {
    "clip_sample": ("DDIMScheduler", "DDPMScheduler"),
    "clip_sample_range": ("DDIMScheduler", "DDPMScheduler"),
    "set_alpha_to_one": ("DDIMScheduler", "PNDMScheduler"),
    "thresholding": ("DDIMScheduler",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheduler:
    """A model's diffusion process, its sampler and its ladder of sigmas.

    ``sampler`` and ``schedule`` are sd_sampler's names; ``schedule`` None is the process's own
    spacing of timesteps.
    """

    diffusion: DiffusionConfig
    sampler: str = _FALLBACK
    schedule: str | None = "karras"

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> "Scheduler":
        """Read a scheduler_config.json; a class that is not ours is sampled by dpmpp_2m.

        Raises ``SamplerError`` for a process that we do not have, ``PipelineError`` for one
        without a length.
        """
        if config.get("num_train_timesteps", 1) is None:  # which a UNet2DModel's own may be
            raise PipelineError("the scheduler's num_train_timesteps is null; give a number")
        diffusion = DiffusionConfig.from_diffusers(config)
        entry = _entry_of(config)
        if entry is None:
            return cls(diffusion=diffusion)
        karras = config.get("use_karras_sigmas", False)
        return cls(diffusion=diffusion, sampler=entry.name, schedule="karras" if karras else None)

    def to_diffusers(self) -> dict[str, Any]:
        """Return the scheduler_config.json with which diffusers samples as we do."""
        entry = get_sampler(self.sampler)
        if entry.diffusers_class is None:  # diffusers has no such sampler: let it take its nearest
            entry = get_sampler(_FALLBACK)
        config = self.diffusion.to_diffusers()
        config = {
            key: value
            for key, value in config.items()
            if entry.diffusers_class in _NOT_EVERYWHERE.get(key, (entry.diffusers_class,))
        }
        if self.schedule == "karras":
            config["use_karras_sigmas"] = True
        settings = dict(entry.diffusers_arguments)
        return {**config, **settings, "_class_name": entry.diffusers_class}


def _entry_of(config: Mapping[str, Any]) -> SamplerEntry | None:
    """Find the sampler of a config's class, the one whose arguments the config states, if any."""
    own = [e for e in SAMPLERS.values() if e.diffusers_class == config.get("_class_name")]
    stated = [
        entry for entry in own if all(config.get(key) == value for key, value in _telling(entry))
    ]
    return next(iter([*sorted(stated, key=lambda e: -len(_telling(e))), *own]), None)


def _telling(entry: SamplerEntry) -> list[tuple[str, object]]:
    """Return the arguments that tell a sampler from others of its class."""
    return [(key, value) for key, value in entry.diffusers_arguments if "sigmas" not in key]
