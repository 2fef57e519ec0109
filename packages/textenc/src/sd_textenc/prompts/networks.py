"""Adapters named in a prompt: `<lora:name:0.8>`, `<hypernet:name>`.

The syntax is that of the web UI (AUTOMATIC1111): behind the name stand strengths in order, for a
LoRA of the text encoder and then of the UNet, the first serving for both; or with their names,
`te=0.5`, `unet=0.8`. Here any other name is the beginning of the UNet's module paths, and its
strength comes on top: `<lora:name:0.8:down_blocks=0.5>`; `lbw=` is that of the extension "LoRA
Block Weight", see `block_weights`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sd_textenc.errors import TextEncoderError
from sd_textenc.prompts.block_weights import block_weights

__all__ = ["NetworkTag", "parse_networks"]

NetworkKind = Literal["lora", "hypernetwork"]

_KINDS: Mapping[str, NetworkKind] = {
    "lora": "lora",
    "lyco": "lora",
    "hypernet": "hypernetwork",
}
_TAG = re.compile(rf"<({'|'.join(_KINDS)}):([^<>:]+)((?::[^<>:]*)*)>")
_BY_NAME = {"te": 0, "unet": 1}
_MAX_STRENGTH = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkTag:
    """Hold what a tag asks for: how strongly in the UNet, in the text encoder, in which blocks."""

    kind: NetworkKind
    name: str
    strength: float = 1.0
    text_strength: float = 1.0
    blocks: Mapping[str, float] = field(default_factory=dict)


def parse_networks(prompt: str) -> tuple[str, tuple[NetworkTag, ...]]:
    """Return a prompt without its tags, and these in order.

    Raises `TextEncoderError` for a strength that is no number from -100 to 100, or one too many.
    """
    tags: list[NetworkTag] = []

    def take(match: re.Match[str]) -> str:
        tags.append(_tag(match))
        return ""

    return _TAG.sub(take, prompt), tuple(tags)


def _tag(match: re.Match[str]) -> NetworkTag:
    kind = _KINDS[match[1]]
    strengths: dict[int, float] = {}
    blocks: dict[str, float] = {}
    place, base = 0, 1.0
    for text in match[3].split(":")[1:]:
        name, equals, value = text.rpartition("=")
        if name.strip() == "lbw":
            base, weights = block_weights(value.strip())
            blocks |= weights
            continue
        number = _number(value, match[0])
        if not equals:
            strengths[place] = number
            place += 1
        elif name.strip() in _BY_NAME:
            strengths[_BY_NAME[name.strip()]] = number
        else:
            blocks[name.strip()] = number
    most = 2 if kind == "lora" else 1
    if place > most or (kind == "hypernetwork" and (blocks or len(strengths) > 1)):
        raise TextEncoderError(f"{match[0]} says more than a {kind} has; give it {most} strengths")
    text_strength = strengths.get(0, strengths.get(1, 1.0))
    return NetworkTag(
        kind=kind,
        name=match[2].strip(),
        strength=strengths.get(1, text_strength),
        text_strength=base * text_strength,
        blocks=blocks,
    )


def _number(text: str, tag: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) <= _MAX_STRENGTH:
        raise TextEncoderError(f"{tag} has the strength {text!r}; give a number from -100 to 100")
    return number
