"""The one error type of tensor files, and how it lists keys."""

from collections.abc import Iterable

__all__ = ["CheckpointError", "first_line", "name_keys"]

_MAX_NAMED = 8
_MAX_KEY = 160
_MAX_MESSAGE = 4000


class CheckpointError(ValueError):
    """Say in one line which file or keys are wrong, and what to do about it.

    What a file says of itself ends up in messages, so line breaks and control characters are
    written as escapes, and the line has an end.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


def name_keys(keys: Iterable[str]) -> str:
    """List at most eight keys in one line, and say how many more there are."""
    names = sorted(keys)
    shown = ", ".join(
        name if len(name) <= _MAX_KEY else f"{name[:_MAX_KEY]}…" for name in names[:_MAX_NAMED]
    )
    more = len(names) - _MAX_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def first_line(error: Exception) -> str:
    """Return the first line of what another library says."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _one_line(message: str) -> str:
    if len(message) > _MAX_MESSAGE:
        message = f"{message[:_MAX_MESSAGE]}…"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
