"""Dataclasses read back from JSON, every value of the type that its field states."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

_MAX_SHOWN = 60


def read_values(kind: type[T], values: object) -> T:
    """Build a dataclass from a JSON object, and the dataclasses that are its fields with it.

    Fields may be text, numbers, true and false, `Literal`, tuples, mappings and `X | None`; a
    number may be the text "inf", which JSON has no number for. Raises `ValueError` where a field
    lacks, is not known or has another type, and what the dataclass itself raises.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"it is {_shown(values)}, not an object")
    assert is_dataclass(kind)
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    unknown = values.keys() - known.keys()
    if unknown:
        raise ValueError(f"this version does not know {_shown(sorted(unknown)[0])}")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"it lacks {name}")
    return kind(**{name: _read(hints[name], value, name) for name, value in values.items()})


def _read(kind: Any, value: Any, name: str) -> Any:
    arguments, origin = get_args(kind), get_origin(kind)
    if kind is Any or (NoneType in arguments and value is None):
        return value
    if NoneType in arguments:
        (kind,) = (one for one in arguments if one is not NoneType)
        return _read(kind, value, name)
    if is_dataclass(kind):
        assert isinstance(kind, type)
        return read_values(kind, value)
    if origin is tuple and arguments[-1] is Ellipsis and isinstance(value, list):
        return tuple(_read(arguments[0], inner, name) for inner in value)
    if origin is tuple and isinstance(value, list) and len(value) == len(arguments):
        return tuple(_read(one, inner, name) for one, inner in zip(arguments, value, strict=True))
    if origin is Mapping and isinstance(value, dict):
        return {key: _read(arguments[1], inner, name) for key, inner in value.items()}
    if kind is float and value in ("inf", "-inf"):
        return float(value)
    if not _fits(kind, origin, arguments, value):
        raise ValueError(f"{name} is {_shown(value)}, which it cannot be")
    return value


def _fits(kind: Any, origin: Any, arguments: tuple[Any, ...], value: Any) -> bool:
    if origin is Literal:
        return value in arguments
    if kind is float:
        kind = int | float
        return isinstance(value, kind) and not isinstance(value, bool) and not math.isnan(value)
    if origin is not None or not isinstance(kind, type):
        return False
    # JSON's true is an int to Python.
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
