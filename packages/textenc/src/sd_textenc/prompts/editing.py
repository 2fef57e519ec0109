"""Prompts that change while a picture is drawn: `[from:to:when]`, `[to:when]`, `[a|b]`.

The syntax is that of the web UI (AUTOMATIC1111). `when` is a step, or a share of the steps where it
is written with a point.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["EditedPrompt", "parse_editing"]

_NUMBER = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*")
_OPENS, _CLOSES = "([", ")]"
_MAX_DEPTH = 64  # brackets within brackets beyond it edit nothing: Python's stack has an end


@dataclass(frozen=True, slots=True)
class _Switch:
    """One text up to a step and another after it."""

    before: "_Parts"
    after: "_Parts"
    when: str

    def at(self, step: int, num_steps: int) -> str:
        last = float(self.when) * (num_steps if "." in self.when else 1)
        # An endless row of digits is a number without end, which no int is.
        last = int(min(last, num_steps))
        return _text(self.before if step <= last else self.after, step, num_steps)


@dataclass(frozen=True, slots=True)
class _Turns:
    """Texts that take turns, a step each."""

    options: tuple["_Parts", ...]

    def at(self, step: int, num_steps: int) -> str:
        return _text(self.options[(step - 1) % len(self.options)], step, num_steps)


_Parts = tuple["str | _Switch | _Turns", ...]


@dataclass(frozen=True, slots=True)
class EditedPrompt:
    """Hold a prompt whose text depends on the step."""

    _parts: _Parts

    @property
    def constant(self) -> bool:
        """Tell whether every step has the same text."""
        return all(isinstance(part, str) for part in self._parts)

    def at(self, step: int, num_steps: int) -> str:
        """Return the text at a step from 1 to `num_steps`; weights and escapes stay in it."""
        return _text(self._parts, step, num_steps)

    def schedule(self, num_steps: int) -> list[tuple[int, str]]:
        """Return (last step, text) of every stretch of equal text, the last ends at `num_steps`."""
        stretches: list[tuple[int, str]] = []
        for step in range(1, num_steps + 1):
            text = self.at(step, num_steps)
            if stretches and stretches[-1][1] == text:
                stretches.pop()
            stretches.append((step, text))
        return stretches


def parse_editing(prompt: str) -> EditedPrompt:
    """Read a prompt's editing; never raises, for brackets that edit nothing stay in the text."""
    return EditedPrompt(_parse(prompt))


def _parse(prompt: str, depth: int = 0) -> _Parts:
    parts: list[str | _Switch | _Turns] = []
    at = 0
    closing = _pairs(prompt) if depth < _MAX_DEPTH else {}
    while at < len(prompt):
        if prompt[at] == "\\":
            parts.append(prompt[at : at + 2])
            at += 2
        elif prompt[at] == "[" and at in closing:
            end = closing[at]
            parts += _bracket(prompt[at + 1 : end], depth + 1)
            at = end + 1
        else:
            parts.append(prompt[at])
            at += 1
    return _joined(parts)


def _bracket(inner: str, depth: int) -> _Parts:
    """Read what stands between square brackets."""
    pieces = _split(inner, ":")
    if len(pieces) in (2, 3) and _NUMBER.fullmatch(pieces[-1]):
        before = _parse(pieces[0], depth) if len(pieces) == 3 else ()
        return (_Switch(before, _parse(pieces[-2], depth), pieces[-1].strip()),)
    options = _split(inner, "|")
    if len(options) > 1:
        return (_Turns(tuple(_parse(option, depth) for option in options)),)
    return ("[", *_parse(inner, depth), "]")


def _pairs(text: str) -> dict[int, int]:
    """Return where each square bracket that is opened is closed."""
    pairs, opened, at = {}, [], 0
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == "[":
            opened.append(at)
        elif text[at] == "]" and opened:
            pairs[opened.pop()] = at
        at += 1
    return pairs


def _split(text: str, mark: str) -> list[str]:
    """Split at a mark that stands in no brackets of the text's own."""
    pieces, depth, start, at = [], 0, 0, 0
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
        elif letter in _OPENS:
            depth += 1
        elif letter in _CLOSES:
            depth = max(0, depth - 1)
        elif letter == mark and depth == 0:
            pieces.append(text[start:at])
            start = at + 1
        at += 1
    return [*pieces, text[start:]]


def _joined(parts: Sequence[str | _Switch | _Turns]) -> _Parts:
    joined: list[str | _Switch | _Turns] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return tuple(joined)


def _text(parts: _Parts, step: int, num_steps: int) -> str:
    return "".join(p if isinstance(p, str) else p.at(step, num_steps) for p in parts)
