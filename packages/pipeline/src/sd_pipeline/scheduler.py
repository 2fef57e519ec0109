"""What `scheduler_config.json` says: the diffusion process, and the sampler of choice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sd_sampler import SAMPLERS, DiffusionConfig, get_sampler

# Keys that diffusers' DDIMScheduler has and the others do not, for which they warn.
_DDIM_ALONE = ("clip_sample", "clip_sample_range", "set_alpha_to_one", "thresholding")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheduler:
    """A model's diffusion process, its sampler and its ladder of sigmas.

    ``sampler`` and ``schedule`` are sd_sampler's names; ``schedule`` None is the process's own
    spacing of timesteps.
    """

    diffusion: DiffusionConfig
    sampler: str = "dpmpp_2m"
    schedule: str | None = "karras"

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> "Scheduler":
        """Read a scheduler_config.json; a class that is not ours is sampled by dpmpp_2m.

        Raises ``SamplerError`` for a process that we do not have.
        """
        diffusion = DiffusionConfig.from_diffusers(config)
        named = {entry.diffusers_class: entry for entry in SAMPLERS.values()}
        entry = named.get(str(config.get("_class_name")))
        if entry is None:
            return cls(diffusion=diffusion)
        karras = config.get("use_karras_sigmas", False)
        return cls(diffusion=diffusion, sampler=entry.name, schedule="karras" if karras else None)

    def to_diffusers(self) -> dict[str, Any]:
        """Return the scheduler_config.json with which diffusers samples as we do."""
        entry = get_sampler(self.sampler)
        config = self.diffusion.to_diffusers()
        if entry.diffusers_class != "DDIMScheduler":
            config = {key: value for key, value in config.items() if key not in _DDIM_ALONE}
        if self.schedule == "karras":
            config["use_karras_sigmas"] = True
        settings = dict(entry.diffusers_arguments)
        return {**config, **settings, "_class_name": entry.diffusers_class}
