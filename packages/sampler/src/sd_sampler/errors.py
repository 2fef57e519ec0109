"""The one error of this package."""

import re
from collections.abc import Iterable
from difflib import get_close_matches


class SamplerError(ValueError):
    """Tell the user, in one line, which value is wrong, what the limit is and how to mend it."""


def unknown(what: str, name: str, known: Iterable[str]) -> SamplerError:
    """Build the error for a name that is not in `known`, with the nearest match if there is one."""
    names = {squeezed(one): one for one in known}
    close = get_close_matches(squeezed(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {names[close[0]]!r}?" if close else ""
    return SamplerError(f"unknown {what} {name!r}: choose from {', '.join(names.values())}{hint}")


def squeezed(name: str) -> str:
    """Return a name without what spellings differ in: case, spaces, how ++ is written."""
    short = re.sub(r"[\s_-]", "", name.lower()).replace("++", "pp")
    return short.replace("ancestral", "a")
