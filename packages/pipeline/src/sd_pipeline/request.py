"""What a user asks for, checked before a model is loaded."""

from dataclasses import dataclass

from sd_pipeline.errors import PipelineError
from sd_sampler import parse_sampler, parse_schedule

_MAX_SIDE = 8192
_MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Txt2Img:
    """Everything that makes pictures from a prompt.

    Sides are in pixels; None is the model's own size. ``sampler`` and ``schedule`` None are the
    model's own. ``guidance_scale`` 1 is no guidance. Picture i of ``count`` has seed ``seed + i``;
    ``batch_size`` of them are made at a time, which changes no noise.

    Raises ``PipelineError`` for a value outside its range.
    """

    prompt: str
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    num_steps: int | None = None
    sampler: str | None = None
    schedule: str | None = None
    guidance_scale: float | None = None
    seed: int = 0
    count: int = 1
    batch_size: int = 1

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise PipelineError("the prompt is empty; say what to draw")
        for name, side in (("width", self.width), ("height", self.height)):
            if side is not None and (side < 8 or side > _MAX_SIDE or side % 8):
                near = min(max(round(side / 8) * 8, 8), _MAX_SIDE)
                raise PipelineError(
                    f"{name} is {side}; it must be a multiple of 8 "
                    f"from 8 to {_MAX_SIDE}, try {near}"
                )
        for name, number in (
            ("steps", self.num_steps),
            ("count", self.count),
            ("batch", self.batch_size),
        ):
            if number is not None and number < 1:
                raise PipelineError(f"{name} is {number}; it must be at least 1")
        scale = self.guidance_scale
        if scale is not None and not 1 <= scale <= 100:
            raise PipelineError(f"guidance is {scale}; it must be from 1 (none) to 100")
        if not 0 <= self.seed <= _MAX_SEED - self.count:
            raise PipelineError(f"seed is {self.seed}; it must be from 0 to 2**63 - 1")
        if self.sampler is not None:
            parse_sampler(self.sampler)  # raises for a name that is not there
        if self.schedule is not None:
            parse_schedule(self.schedule)
