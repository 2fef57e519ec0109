"""One prompt out of many: `{red|blue} ball`, and `__animal__` out of a file of animals."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from sd_textenc.errors import TextEncoderError

__all__ = ["Wildcards", "expand"]

_WILDCARD = re.compile(r"__([\w/-]+?)__")
_INNERMOST = re.compile(r"(?<!\\)\{([^{}]*)(?<!\\)\}")
_ESCAPED = re.compile(r"\\([{}])")
_MAX_DEPTH = 16
_MAX_LENGTH = 100_000


@dataclass(frozen=True, slots=True)
class Wildcards:
    """Hold the choices of each wildcard by its name."""

    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def from_folder(cls, folder: Path) -> "Wildcards":
        """Read every .txt file below a folder: a choice a line, `#` begins a comment.

        The file `animals/pets.txt` is `__animals/pets__`. Raises `TextEncoderError` when the folder
        is not there or a file holds no choice.
        """
        if not folder.is_dir():
            raise TextEncoderError(f"{folder} is no folder; name the one with the wildcards' files")
        choices = {}
        for path in sorted(folder.rglob("*.txt")):
            lines = [line.split("#")[0].strip() for line in _lines(path)]
            name = path.relative_to(folder).with_suffix("").as_posix()
            choices[name] = tuple(line for line in lines if line)
            if not choices[name]:
                raise TextEncoderError(f"{path} holds no choice; give one a line")
        return cls(choices)


def expand(prompt: str, seed: int, wildcards: Wildcards | None = None) -> str:
    r"""Choose one of each `{a|b}` and of each `__name__`, the same for the same seed.

    What is chosen may hold braces and wildcards of its own. `\{` is the brace itself. Braces that
    hold no `|` stay as they are. Raises `TextEncoderError` for a wildcard that is not there, and
    for wildcards that name one another without end.
    """
    random = Random(f"prompt/{seed}")
    known = wildcards or Wildcards()
    for _ in range(_MAX_DEPTH):
        filled = _WILDCARD.sub(lambda match: _choose(match[1], known, random), prompt)
        filled = _alternatives(filled, random)
        if filled == prompt:
            return str(_ESCAPED.sub(r"\1", prompt))
        if len(filled) > _MAX_LENGTH:
            break
        prompt = filled
    raise TextEncoderError(f"the wildcards of {prompt[:60]!r} name one another without end")


def _alternatives(prompt: str, random: Random) -> str:
    """Choose from the innermost braces outwards."""
    # Braces without a choice, put away until all is done, as what no Unicode text has.
    kept = {"{": "\ud800", "}": "\ud801"}

    def choose(match: re.Match[str]) -> str:
        if "|" not in match[1]:
            return f"{kept['{']}{match[1]}{kept['}']}"
        return str(random.choice(match[1].split("|")))

    while True:
        chosen = _INNERMOST.sub(choose, prompt)
        if chosen == prompt:
            break
        prompt = chosen
    for brace, away in kept.items():
        prompt = prompt.replace(away, brace)
    return prompt


def _choose(name: str, wildcards: Wildcards, random: Random) -> str:
    if name not in wildcards.choices:
        known = ", ".join(sorted(wildcards.choices)) or "none"
        raise TextEncoderError(f"there is no wildcard __{name}__; there are: {known}")
    return random.choice(wildcards.choices[name])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TextEncoderError(f"cannot read {path}: {error}") from error
