"""How a model is best drawn with."""

from dataclasses import dataclass
from pathlib import Path

from sd_checkpoint import load_json
from sd_pipeline.errors import PipelineError
from sd_pipeline.parts import Parts


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """What a request that leaves it open gets: a model's `sampling.json`.

    `upscale_strength` is what a picture that is enlarged is best drawn over with. A model that has
    seen one size alone wants less: it fills what is larger with more things.
    """

    num_steps: int = 20
    guidance_scale: float = 7.5
    upscale_strength: float = 0.35


def family_defaults(parts: Parts) -> Defaults:
    """Return what a model of its family gets that says nothing itself."""
    return Defaults(guidance_scale=parts.family.guidance_scale)


def read_defaults(folder: Path) -> Defaults | None:
    """Return what a model's `sampling.json` says, None where there is none."""
    path = folder / "sampling.json"
    if not path.is_file():
        return None
    values = load_json(path)
    try:
        return Defaults(**values)
    except TypeError as error:
        raise PipelineError(
            f"{path} holds {', '.join(values)}; it may hold num_steps, guidance_scale and "
            "upscale_strength"
        ) from error
