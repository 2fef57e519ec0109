"""JSON without its traps."""

import json
import math
from typing import Any, NoReturn

__all__ = ["parse_json"]

_MAX_CONTAINERS = 1_000_000
_MAX_ITEMS = 8_000_000


def parse_json(data: bytes, *, infinity: bool = False) -> Any:
    """Parse UTF-8 JSON; raise `ValueError` with a line on what is wrong.

    Two equal keys in one object are refused, for readers differ in which they believe; so are NaN,
    and the infinities unless `infinity`, which are no JSON but stand in schedulers' configs. So is
    what would take far more memory than the text has bytes.
    """
    if data.count(b"{") + data.count(b"[") > _MAX_CONTAINERS or data.count(b",") > _MAX_ITEMS:
        raise ValueError("it has more than a million objects and lists")

    def constant(name: str) -> float:
        if infinity and name != "NaN":
            return -math.inf if name.startswith("-") else math.inf
        raise ValueError(f"it says {name}, which is no JSON")

    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_object, parse_constant=constant, parse_int=_int
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse_repeated(pairs)
    return found


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> NoReturn:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"the key {key[:80]!r} stands there twice")
        seen.add(key)
    raise AssertionError(pairs)


def _int(digits: str) -> int:
    if len(digits) > 40:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)
