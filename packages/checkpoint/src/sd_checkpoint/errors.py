"""The one error type of tensor files, and how it lists keys."""

from collections.abc import Iterable

__all__ = ["CheckpointError", "name_keys"]

_MAX_NAMED = 8


class CheckpointError(ValueError):
    """Say in one line which file or keys are wrong, and what to do about it."""


def name_keys(keys: Iterable[str]) -> str:
    """List at most eight keys in one line, and say how many more there are."""
    names = sorted(keys)
    shown = ", ".join(names[:_MAX_NAMED])
    more = len(names) - _MAX_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
