"""The one error of this package."""

from collections.abc import Iterable
from difflib import get_close_matches


class SamplerError(ValueError):
    """Tell the user, in one line, which value is wrong, what the limit is and how to mend it."""


def unknown(what: str, name: str, known: Iterable[str]) -> SamplerError:
    """Build the error for a name that is not in `known`, with the nearest match if there is one."""
    names = list(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return SamplerError(f"unknown {what} {name!r}: choose from {', '.join(names)}{hint}")
