"""What a request says of an adapter."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sd_pipeline.errors import PipelineError

AdapterKind = Literal["lora", "hypernetwork", "embedding"]
_MAX_STRENGTH = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterUse:
    """Hold an adapter's file, and how strongly it is to count.

    `strength` is that in the UNet, `text_strength` that in the text encoders, None for the same.
    `blocks` scale, on top, what lies under the beginnings of the UNet's module paths ("mid_block",
    "up_blocks.1"), the first that fits. Only a LoRA has these two, and an embedding, which prompts
    name as its file is named, no strength. `sha256` is that of the file, None where not known.
    Raises `PipelineError` for values outside their range.
    """

    kind: AdapterKind
    file: str
    strength: float = 1.0
    text_strength: float | None = None
    blocks: Mapping[str, float] = field(default_factory=dict)
    sha256: str | None = None

    def __post_init__(self) -> None:
        for number in (self.strength, self.text_strength or 0.0, *self.blocks.values()):
            if not abs(number) <= _MAX_STRENGTH:
                raise PipelineError(
                    f"the strength of {self.file} is {number}; it must be from -100 to 100"
                )

    @property
    def name(self) -> str:
        """What prompts call it: the file's name without its ending."""
        return Path(self.file).stem

    @property
    def tag(self) -> str:
        """The web UI's way to write it into a prompt; of an embedding the name."""
        if self.kind == "embedding":
            return self.name
        strengths = [self.strength]
        if self.text_strength is not None and self.text_strength != self.strength:
            strengths = [self.text_strength, self.strength]
        word = "lora" if self.kind == "lora" else "hypernet"
        blocks = [f"{name}={value:g}" for name, value in self.blocks.items()]
        return f"<{':'.join([word, self.name, *(f'{one:g}' for one in strengths), *blocks])}>"
