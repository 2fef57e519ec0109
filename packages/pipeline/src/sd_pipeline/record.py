"""What made a picture, and how it is written into the file."""

import json
from dataclasses import asdict, dataclass, replace

from sd_sampler import DiffusionConfig, GuidanceOptions, get_sampler

_CAPITALS = ("ddim", "kl", "lcm", "sgm", "xl")


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Hold every setting of one picture.

    `process` is the model's diffusion process as it was used, which may not be as its files say.
    `source` and `mask` are the SHA-256 of the pixels that a picture was begun with.
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
    strength: float | None = None
    source: str | None = None
    mask: str | None = None

    def with_seed(self, seed: int) -> "Record":
        """Return the record of the picture with another seed."""
        return replace(self, seed=seed)

    def json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

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
        if self.strength is not None:
            settings["Denoising strength"] = f"{self.strength:g}"
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
