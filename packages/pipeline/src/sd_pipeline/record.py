"""What made a picture, and how it is written into the file."""

import json
import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

from sd_pipeline.adapter_use import AdapterUse
from sd_pipeline.autoencoding import Tiling
from sd_pipeline.engine import EngineName
from sd_pipeline.request import Blend, Seamless, check_unicode
from sd_pipeline.typed_values import read_values
from sd_sampler import DiffusionConfig, GuidanceOptions, get_sampler

_CAPITALS = ("ddim", "kl", "lcm", "sgm", "xl")
# Halves of characters, which UTF-8 has not, and two code points that XML has not.
_NOT_IN_FILES = re.compile("[\ud800-\udfff\ufffe\uffff]")


def versions() -> dict[str, str]:
    """Return the versions of what a picture's digits hang on."""
    packages = ("sd-pipeline", "sd-sampler", "sd-unet", "torch")
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    return {**{name: version(name) for name in packages}, **machine}


def engine_versions(engine: EngineName) -> dict[str, str]:
    """Return the versions with an engine that computes, which is installed."""
    return {**versions(), engine: version(engine)} if engine == "openvino" else versions()


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Hold every setting of one picture.

    `process` is the model's diffusion process as it was used, which may not be as its files say.
    `edit` is what a picture that was begun with another adds: strength (None where the model takes
    none), fit, the size asked for, `source`, `mask` and `depth` as the SHA-256 of their pixels.
    `model_hash` is that of the model's weights.
    `batch_seed` is the seed of its batch's first picture, and `batch_size` how many there were:
    what stands beside a picture may change its last digits, unless it is `batch_invariant`.
    `tiling` is that of the autoencoder; `int8`: the UNet's weights were held in eight bits;
    `engine`: what computed the UNet;
    `tiny_vae`: what drew in place of the autoencoder's decoder, and the hash of its weights;
    `blend`, `seamless`, `clip_skip`, `reuse_features`, `merge_tokens` and `adapters` are the
    request's, the latter with their files' hashes. `class_name` is the class that was drawn, where
    it was one. Raises `PipelineError` for a prompt that is no Unicode.
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
    blend: Blend | None = None
    seamless: Seamless = "none"
    clip_skip: int = 0
    class_name: str | None = None
    adapters: tuple[AdapterUse, ...] = ()
    reuse_features: int = 1
    merge_tokens: float = 0.0
    batch_invariant: bool = False
    tiling: Tiling = "auto"
    int8: bool = False
    engine: EngineName = "torch"
    tiny_vae: str | None = None
    tiny_vae_hash: str | None = None
    model_hash: str | None = None
    variant: str | None = None
    use_ema: bool = False
    batch_seed: int = 0
    batch_size: int = 1
    versions: Mapping[str, str] = field(default_factory=versions)

    def __post_init__(self) -> None:
        for prompt in (self.prompt, self.negative_prompt):
            check_unicode(prompt)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Record":
        """Read what `json` wrote; raises `ValueError` where it is not that."""
        return read_values(cls, values)

    def with_seed(self, seed: int) -> "Record":
        """Return the record of the picture with another seed; what it blends with moves along."""
        blend = self.blend
        if blend is not None and blend.seed is not None:
            blend = replace(blend, seed=blend.seed + seed - self.seed)
        return replace(self, seed=seed, blend=blend)

    def json(self, **more: Any) -> str:
        """Return the record, and what else is told, as one line of JSON for UTF-8 or XML."""
        values = {**asdict(self, dict_factory=_plain), **more}
        text = json.dumps(values, ensure_ascii=False, allow_nan=False)
        return _NOT_IN_FILES.sub(lambda one: f"\\u{ord(one[0]):04x}", text)

    def parameters(self, more: Mapping[str, str] | None = None) -> str:
        """Return the web UI's ``parameters`` text, which its and our readers take apart again.

        It cannot tell a line "Negative prompt:" of a prompt from its own, and loses white space at
        the ends of prompts; NUL, which PNG forbids, is U+FFFD in it. The record loses nothing.
        `more` are settings to name after the others.
        """
        settings = {
            "Steps": self.num_steps,
            "Sampler": get_sampler(self.sampler).label,
            "Schedule type": _schedule_label(self.schedule),
            "CFG scale": _number(self.guidance_scale),
        }
        if self.guidance.image_scale is not None:
            settings["Image CFG scale"] = _number(self.guidance.image_scale)
        settings |= {
            "Seed": self.seed,
            "Size": f"{self.width}x{self.height}",
            "Model": _quoted(self.model),
        }
        if self.model_hash is not None:
            settings["Model hash"] = self.model_hash[:10]
        if self.class_name is not None:
            settings["Class"] = _quoted(self.class_name)
        if self.clip_skip:
            settings["Clip skip"] = self.clip_skip + 1
        if self.edit.get("strength") is not None:
            settings["Denoising strength"] = _number(self.edit["strength"])
        settings |= {name: _quoted(value) for name, value in (more or {}).items()}
        tags = [use.tag for use in self.adapters if use.kind != "embedding"]
        lines = [" ".join([self.prompt, *tags])]
        if self.negative_prompt:
            lines.append(f"Negative prompt: {self.negative_prompt}")
        lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
        text = "\n".join(lines).replace("\0", "\ufffd")
        return text.encode("utf-8", "replace").decode()


def _schedule_label(name: str) -> str:
    words = name.split("_")
    return " ".join(word.upper() if word in _CAPITALS else word.capitalize() for word in words)


def _number(value: float) -> str:
    return str(value).removesuffix(".0")


def _quoted(value: str) -> str:
    # The readers of this text split at commas and colons unless the value is a JSON string.
    plain = value == value.strip() and not any(c in value for c in ',:\n"')
    return value if plain else json.dumps(value, ensure_ascii=False)


def _plain(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dataclass's values as JSON has them: it has no number without end."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in pairs
    }
