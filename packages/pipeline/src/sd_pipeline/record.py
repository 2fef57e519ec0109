"""What made a picture, and how it is written into the file."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

from sd_sampler import DiffusionConfig, GuidanceOptions, get_sampler

_CAPITALS = ("ddim", "kl", "lcm", "sgm", "xl")


def versions() -> dict[str, str]:
    """Return the versions of what a picture's digits hang on."""
    packages = ("sd-pipeline", "sd-sampler", "sd-unet", "torch")
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    return {**{name: version(name) for name in packages}, **machine}


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Hold every setting of one picture.

    `process` is the model's diffusion process as it was used, which may not be as its files say.
    `edit` is what a picture that was begun with another adds: strength, fit, the size asked for,
    `source` and `mask` as the SHA-256 of their pixels. `model_hash` is that of the model's weights.
    `batch_seed` is the seed of its batch's first picture, and `batch_size` how many there were:
    what stands beside a picture may change its last digits.
    """

    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_steps: int
    sampler: str
    schedule: str
    guidance_scale: float
    guidance: GuidanceOptions
    seed: int
    model: str
    dtype: str
    device: str
    attention: str
    process: DiffusionConfig
    edit: Mapping[str, Any] = field(default_factory=dict)
    model_hash: str | None = None
    variant: str | None = None
    use_ema: bool = False
    batch_seed: int = 0
    batch_size: int = 1
    versions: Mapping[str, str] = field(default_factory=versions)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Record":
        """Read what `json` wrote; raises `TypeError` or `ValueError` where it is not that."""
        nested = {
            "guidance": GuidanceOptions(
                **{**values["guidance"], "interval": tuple(values["guidance"]["interval"])}
            ),
            "process": DiffusionConfig(**values["process"]),
        }
        return cls(**{**values, **nested})

    def with_seed(self, seed: int) -> "Record":
        """Return the record of the picture with another seed."""
        return replace(self, seed=seed)

    def json(self, **more: str) -> str:
        """Return the record, and what else is told, as one line of JSON."""
        return json.dumps({**asdict(self), **more}, ensure_ascii=False)

    def parameters(self) -> str:
        """Return the web UI's ``parameters`` text."""
        settings = {
            "Steps": self.num_steps,
            "Sampler": get_sampler(self.sampler).label,
            "Schedule type": _schedule_label(self.schedule),
            "CFG scale": f"{self.guidance_scale:g}",
            "Seed": self.seed,
            "Size": f"{self.width}x{self.height}",
            "Model": _quoted(self.model),
        }
        if self.model_hash is not None:
            settings["Model hash"] = self.model_hash[:10]
        if "strength" in self.edit:
            settings["Denoising strength"] = f"{self.edit['strength']:g}"
        lines = [self.prompt]
        if self.negative_prompt:
            lines.append(f"Negative prompt: {self.negative_prompt}")
        lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
        return "\n".join(lines)


def _schedule_label(name: str) -> str:
    words = name.split("_")
    return " ".join(word.upper() if word in _CAPITALS else word.capitalize() for word in words)


def _quoted(value: str) -> str:
    # The readers of this text split at commas and colons unless the value is a JSON string.
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ",:\n") else value
