"""Parameters of commands that stand for many options at once."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose parameters that are dataclasses are spelt out, field by field.

    Typer reads options from a function's signature and knows no groups of them. The dataclass's
    fields carry the `Annotated` types and the defaults; the command gets the dataclass itself.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)
    }
    parameters = [
        shown
        for parameter in inspect.signature(command).parameters.values()
        for shown in _spelt_out(parameter, hints[parameter.name])
    ]

    @wraps(command)
    def spelt_out(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{one.name: values.pop(one.name) for one in fields(kind)})
        command(**values)

    signature = inspect.Signature(parameters)
    spelt_out.__signature__ = signature  # type: ignore[attr-defined]
    spelt_out.__annotations__ = {one.name: one.annotation for one in parameters}
    return spelt_out


def _spelt_out(parameter: inspect.Parameter, kind: Any) -> Iterator[inspect.Parameter]:
    if not is_dataclass(kind):
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind)
        return
    hints = get_type_hints(kind, include_extras=True)
    for one in fields(kind):
        default = inspect.Parameter.empty if one.default is MISSING else one.default
        yield inspect.Parameter(
            one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[one.name]
        )
