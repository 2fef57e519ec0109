"""Strengths block by block as the web UI's extension "LoRA Block Weight" has them: `lbw=`.

There are as many numbers as the model has places where a LoRA is, the text encoder first. 17 are of
SD 1.x and 2.x and 12 of SDXL, for LoRAs of attention; 26 and 20, for LoRAs of all layers. Blocks
that the shorter lists leave out have none.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sd_textenc.errors import TextEncoderError

__all__ = ["PRESETS", "block_weights"]

PRESETS: Mapping[str, str] = {
    "NONE": "0" * 17,
    "ALL": "1" * 17,
    "INS": "11110000000000000",
    "IND": "10001110000000000",
    "INALL": "11111110000000000",
    "MIDD": "10001111111100000",
    "OUTD": "10000000111100000",
    "OUTS": "10000000000011111",
    "OUTALL": "10000000111111111",
}
"""The extension's names for 17 numbers of SD 1.x and 2.x."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """A UNet of two layers a block, three on the way up."""

    levels: int
    attends_down: tuple[int, ...]
    attends_up: tuple[int, ...]

    @property
    def names(self) -> list[str]:
        """All blocks as the extension names them, behind the text encoder."""
        count = 3 * self.levels
        ins, outs = ([f"{way}{n:02}" for n in range(count)] for way in ("IN", "OUT"))
        return ["BASE", *ins, "M00", *outs]

    def paths(self, name: str) -> Iterator[str]:
        """Yield the beginnings of the module paths of a block."""
        number = int(name[-2:])
        if name.startswith("M"):
            yield "mid_block"
        elif name.startswith("OUT"):
            level, layer = divmod(number, 3)
            yield f"up_blocks.{level}.resnets.{layer}"
            if level in self.attends_up:
                yield f"up_blocks.{level}.attentions.{layer}"
            if layer == 2 and level < self.levels - 1:
                yield f"up_blocks.{level}.upsamplers"
        elif number == 0:
            yield "conv_in"
        else:
            level, layer = divmod(number - 1, 3)
            if layer == 2:
                yield f"down_blocks.{level}.downsamplers"
                return
            yield f"down_blocks.{level}.resnets.{layer}"
            if level in self.attends_down:
                yield f"down_blocks.{level}.attentions.{layer}"


_SD = _Layout(levels=4, attends_down=(0, 1, 2), attends_up=(1, 2, 3))
_SDXL = _Layout(levels=3, attends_down=(1, 2), attends_up=(0, 1))
_ATTENDING = ["IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "M00"]
_BY_COUNT: Mapping[int, tuple[_Layout, list[str]]] = {
    12: (_SDXL, ["BASE", *_ATTENDING[2:], *(f"OUT{n:02}" for n in range(6))]),
    17: (_SD, ["BASE", *_ATTENDING, *(f"OUT{n:02}" for n in range(3, 12))]),
    20: (_SDXL, _SDXL.names),
    26: (_SD, _SD.names),
}


def block_weights(text: str) -> tuple[float, dict[str, float]]:
    """Return the text encoder's strength and those of the UNet's blocks, by beginnings of paths.

    `text` is 12, 17, 20 or 26 numbers between commas, or one of `PRESETS`. Raises
    `TextEncoderError` for anything else, such as the extension's letters for random numbers.
    """
    given = list(PRESETS[text]) if text in PRESETS else text.split(",")
    try:
        numbers = [float(one) for one in given]
    except ValueError:
        numbers = []
    if len(numbers) not in _BY_COUNT:
        raise TextEncoderError(
            f"lbw={text} is not known; give 17 numbers (or 26 for all layers), for SDXL 12 (or "
            f"20), or one of {', '.join(PRESETS)}"
        )
    layout, names = _BY_COUNT[len(numbers)]
    told = dict(zip(names, numbers, strict=True))
    blocks = {path: told.get(name, 0.0) for name in layout.names[1:] for path in layout.paths(name)}
    return told["BASE"], blocks
