"""Prompts from a file or from stdin, one a line, each with options of its own."""

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdcli.errors import CommandError

_KINDS: dict[str, tuple[str, type]] = {
    "prompt": ("prompt", str),
    "negative": ("negative_prompt", str),
    "width": ("width", int),
    "height": ("height", int),
    "steps": ("num_steps", int),
    "sampler": ("sampler", str),
    "schedule": ("schedule", str),
    "guidance": ("guidance_scale", float),
    "seed": ("seed", int),
    "count": ("count", int),
    "batch": ("batch_size", int),
    "seamless": ("seamless", str),
    "clip-skip": ("clip_skip", int),
    "class": ("class_name", str),
    "reuse-features": ("reuse_features", int),
    "merge-tokens": ("merge_tokens", float),
}
# The names that the web UI's "prompts from file" script has for the same.
_WEB_UI = {
    "negative_prompt": "negative",
    "sampler_name": "sampler",
    "cfg_scale": "guidance",
    "n_iter": "count",
    "batch_size": "batch",
}
_FIRST_OPTION = re.compile(r"(?:^|\s)--(?=[a-z_-]*[a-z](?:[ =]|$))")


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptLine:
    """Hold a line's number, from 1, and what it sets of a `sd_pipeline.Txt2Img`."""

    number: int
    settings: dict[str, Any] = field(default_factory=dict)


def read_lines(path: Path) -> list[PromptLine]:
    """Read prompts from a file, or from stdin where it is `-`.

    A line is a prompt, and behind it may stand options: `a cat --seed 7 --negative "a dog"`. Empty
    lines and those that begin with `#` say nothing. Raises `CommandError` for an unknown option, a
    value of the wrong kind, and when there is no prompt at all.
    """
    lines = [
        _parse(number, line)
        for number, line in enumerate(_text(path).splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise CommandError(f"there is no prompt in {_name(path)}; write one a line")
    return lines


def _text(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CommandError(f"cannot read the prompts of {_name(path)}: {reason}") from error


def _parse(number: int, line: str) -> PromptLine:
    found = _FIRST_OPTION.search(line)
    prompt = line.strip() if found is None else line[: found.start()].strip()
    settings: dict[str, Any] = {"prompt": prompt} if prompt else {}
    if found is not None:
        try:
            words = shlex.split(line[found.start() :])
        except ValueError as error:
            raise CommandError(f"line {number} of the prompts: {error}".lower()) from error
        settings.update(_options(number, words))
    if not str(settings.get("prompt", "")).strip():
        raise CommandError(f"line {number} of the prompts has options but no prompt")
    return PromptLine(number=number, settings=settings)


def _options(number: int, words: list[str]) -> Iterator[tuple[str, Any]]:
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        name = _WEB_UI.get(name, name)
        if not word.startswith("--") or name not in _KINDS:
            known = ", ".join(f"--{known}" for known in _KINDS)
            raise CommandError(f"line {number} of the prompts: {word!r} is none of {known}")
        if not equals:
            value = next(rest, "")
        yield setting(name, value, f"line {number} of the prompts: --{name}")


def setting(option: str, value: str, where: str) -> tuple[str, Any]:
    """Return what an option of a picture is called in a request, and its value.

    Raises `CommandError`, which begins with `where`, for a value of the wrong kind.
    """
    name, kind = _KINDS[option]
    return name, number_in(value, kind, where)


def number_in(value: str, kind: type, where: str) -> Any:
    """Return a value as text or a number; raises `CommandError`, which begins with `where`."""
    try:
        return kind(value)
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise CommandError(f"{where} is {value!r}; it must be {wanted}") from error


def _name(path: Path) -> str:
    return "stdin" if str(path) == "-" else str(path)
