r"""Weights in a prompt: `(word)`, `((word))`, `(word:1.2)`, `[word]`; `\(` is the bracket itself.

The syntax is that of the web UI (AUTOMATIC1111), and so are the numbers: round brackets multiply by
1.1, square ones divide by it, and what is nested multiplies up.
"""

import re
import sys
from dataclasses import dataclass
from math import isfinite

__all__ = ["EMPHASIS", "Emphasis", "Span", "escape", "parse_emphasis"]

EMPHASIS = 1.1
_BREAK = "BREAK"
_LARGEST = sys.float_info.max
_PIECE = re.compile(
    r"\\[()\[\]\\]"  # an escaped bracket or backslash
    r"|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"  # a weight, up to the bracket it closes
    r"|[()\[\]]"
    r"|[^\\()\[\]:]+"
    r"|[\\:]"
)
_SEPARATOR = re.compile(rf"\s*\b{_BREAK}\b\s*")


@dataclass(frozen=True, slots=True)
class Span:
    """Hold a piece of a prompt, its syntax taken off, and its weight."""

    text: str
    weight: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Emphasis:
    """Hold a prompt's sections, which `BREAK` separates, each a row of spans.

    `notes` say in a line each what was taken otherwise than it may have been meant.
    """

    sections: tuple[tuple[Span, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Tell whether every weight is 1 and nothing breaks the prompt: the syntax said nothing."""
        weights = {span.weight for section in self.sections for span in section}
        return len(self.sections) == 1 and weights <= {1.0}

    @property
    def text(self) -> str:
        """The prompt without its syntax."""
        return " ".join("".join(span.text for span in section) for section in self.sections)


def parse_emphasis(prompt: str) -> Emphasis:
    """Read the weights of a prompt; never raises.

    A bracket that is opened and not closed reaches to the end of the prompt, one that is closed and
    not opened is a letter like any other; both are noted. Neighbours of one weight are one span.
    """
    reader = _Reader()
    for match in _PIECE.finditer(prompt):
        reader.read(match.group(), match["weight"])
    reader.finish()
    return Emphasis(sections=_sections(reader.spans), notes=tuple(reader.notes))


class _Reader:
    """Take in a prompt piece by piece; a text that is None is a BREAK."""

    def __init__(self) -> None:
        self._texts: list[str | None] = []
        self._weights: list[float] = []
        self.notes: list[str] = []
        self._opened: dict[str, list[int]] = {"(": [], "[": []}

    @property
    def spans(self) -> list[Span | None]:
        """What was read, a BREAK as None."""
        pairs = zip(self._texts, self._weights, strict=True)
        return [None if text is None else Span(text, weight) for text, weight in pairs]

    def read(self, piece: str, weight: str | None) -> None:
        if len(piece) == 2 and piece[0] == "\\":
            self._append([piece[1]])
        elif piece in self._opened:
            self._opened[piece].append(len(self._texts))
        elif (weight or piece == ")") and self._opened["("]:
            self._scale(self._opened["("].pop(), float(weight) if weight else EMPHASIS)
        elif piece == "]" and self._opened["["]:
            self._scale(self._opened["["].pop(), 1 / EMPHASIS)
        else:
            if weight or piece in (")", "]"):
                self.notes.append(f"{piece!r} closes no bracket and is taken as it stands")
            self._append(_broken(piece))

    def finish(self) -> None:
        for bracket, factor in (("(", EMPHASIS), ("[", 1 / EMPHASIS)):
            for start in self._opened[bracket]:
                self.notes.append(f"a {bracket!r} is never closed: it reaches to the prompt's end")
                self._scale(start, factor)

    def _append(self, texts: list[str | None]) -> None:
        self._texts += texts
        self._weights += [1.0] * len(texts)

    def _scale(self, start: int, factor: float) -> None:
        factor = finite(factor)
        scaled = [weight * factor for weight in self._weights[start:]]
        if not all(map(isfinite, scaled)):
            scaled = [finite(weight) for weight in scaled]
        self._weights[start:] = scaled


def finite(weight: float) -> float:
    """Return a weight, or the largest number for one without end: nothing times it is nothing."""
    return min(max(weight, -_LARGEST), _LARGEST)


def escape(text: str) -> str:
    """Return a prompt that means `text` as it stands, whatever brackets it has."""
    return re.sub(r"([()\[\]\\])", r"\\\1", text)


def _broken(piece: str) -> list[str | None]:
    parts: list[str | None] = []
    for i, text in enumerate(_SEPARATOR.split(piece)):
        if i:
            parts.append(None)
        if text:
            parts.append(text)
    return parts


def _sections(spans: list[Span | None]) -> tuple[tuple[Span, ...], ...]:
    sections: list[list[Span]] = [[]]
    for span in spans:
        if span is None:
            sections.append([])
        elif sections[-1] and sections[-1][-1].weight == span.weight:
            sections[-1][-1] = Span(sections[-1][-1].text + span.text, span.weight)
        else:
            sections[-1].append(span)
    return tuple(tuple(section) for section in sections)
