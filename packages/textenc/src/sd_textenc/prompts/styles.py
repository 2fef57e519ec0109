"""Styles: named additions to prompts, in the web UI's file of them."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sd_textenc.errors import TextEncoderError

__all__ = ["Style", "Styles"]

_PLACE = "{prompt}"
_COLUMNS = ("name", "prompt", "negative_prompt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """Hold what is added to a prompt and to a negative prompt."""

    prompt: str = ""
    negative_prompt: str = ""


@dataclass(frozen=True, slots=True)
class Styles:
    """Hold styles by their names."""

    styles: Mapping[str, Style] = field(default_factory=dict)

    @classmethod
    def from_file(cls, path: Path) -> "Styles":
        """Read the web UI's `styles.csv`, whose columns are name, prompt and negative_prompt.

        Raises `TextEncoderError` when the file is not there or has other columns.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise TextEncoderError(f"cannot read the styles of {path}: {reason}") from error
        styles = {}
        for row in rows:
            if row.get("name") is None or row.get("prompt") is None:
                raise TextEncoderError(
                    f"{path} is no file of styles: its columns must be {', '.join(_COLUMNS)}"
                )
            styles[row["name"]] = Style(
                prompt=row["prompt"], negative_prompt=row.get("negative_prompt") or ""
            )
        return cls(styles)

    def apply(self, names: Sequence[str], prompt: str, negative_prompt: str) -> tuple[str, str]:
        """Return a prompt and a negative prompt with styles put on, one after the other.

        A style that holds `{prompt}` takes the prompt there, another is added behind a comma.
        Raises `TextEncoderError` for a style that is not there.
        """
        for name in names:
            if name not in self.styles:
                known = ", ".join(sorted(self.styles)) or "none"
                raise TextEncoderError(f"there is no style {name!r}; there are: {known}")
            style = self.styles[name]
            prompt = _merged(style.prompt, prompt)
            negative_prompt = _merged(style.negative_prompt, negative_prompt)
        return prompt, negative_prompt


def _merged(style: str, prompt: str) -> str:
    if _PLACE in style:
        return style.replace(_PLACE, prompt)
    return ", ".join(text for text in (prompt.strip(), style.strip()) if text)
