"""Run files: read TOML, apply overrides, explain mistakes in one line, write the resolved file."""

import dataclasses
import difflib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, TypeAdapter, ValidationError

from sd_checkpoint import atomic_path
from sd_train.errors import TrainError

ConfigT = TypeVar("ConfigT", bound=BaseModel)
NetworkT = TypeVar("NetworkT")


def load_toml(
    kind: type[ConfigT], path: Path, overrides: Mapping[str, object] | None = None
) -> ConfigT:
    """Read a run file; `overrides` maps dotted names to values, None meaning not given.

    Raises TrainError naming the field, its value and the mend.
    """
    return parse_config(kind, read_values(path, overrides), origin=str(path))


def read_values(path: Path | None, overrides: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Read a run file's values, or nothing without one, and lay overrides over them.

    Raises as `load_toml`.
    """
    values: dict[str, Any] = {}
    try:
        if path is not None:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TrainError(f"run file {path} does not exist") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainError(f"run file {path} cannot be read: {error}".splitlines()[0]) from error
    for name, value in (overrides or {}).items():
        if value is not None:
            _set_dotted(values, name, value)
    return values


def parse_config(kind: type[ConfigT], values: Mapping[str, object], *, origin: str) -> ConfigT:
    """Validate settings; raise TrainError with the first mistake on one line."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise TrainError(f"{origin}: {_explain(kind, error)}") from error


def save_config(config: BaseModel, path: Path) -> None:
    """Write the settings as TOML, atomically; what is None is left out."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(tomli_w.dumps(config.model_dump(exclude_none=True)).encode())


def build_network_config(
    kind: type[NetworkT],
    presets: Mapping[str, Callable[[], NetworkT]],
    preset: str,
    fields: Mapping[str, Any],
    *,
    at: str,
) -> NetworkT:
    """Make the network config of a preset with `fields` replaced.

    `at` names the table of the run file. Raises TrainError for an unknown preset, field or value.
    """
    if preset not in presets:
        raise TrainError(f"{at}.preset = {preset!r} is not known; choose from {', '.join(presets)}")
    base: Any = presets[preset]()
    known = [f.name for f in dataclasses.fields(base)]
    for name in fields:
        if name not in known:
            raise TrainError(f"{at}.fields.{name} is not a setting{_suggest(name, known)}")
    values = {f: getattr(base, f) for f in known} | dict(fields)
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        value = f" = {first['input']!r}" if name else ""
        raise TrainError(f"{at}.fields{'.' * bool(name)}{name}{value}: {first['msg']}") from error


def field_values(network_config: Any) -> dict[str, Any]:
    """Spell out every field, so that a run file stays true when a preset changes later."""
    values = dataclasses.asdict(network_config)
    return {name: value for name, value in values.items() if value is not None}


def _set_dotted(values: dict[str, Any], name: str, value: object) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise TrainError(f"override {name!r}: {parent!r} is a value, not a table")
    values[last] = value


def _explain(kind: type[BaseModel], error: ValidationError) -> str:
    # A misspelt name first: it is often why another one is missing.
    first = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    name = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(kind, first["loc"][:-1])
        return f"{name} is not a setting{_suggest(str(first['loc'][-1]), known)}{more}"
    if first["type"] == "missing":
        return f"{name} is missing; give it a value{more}"
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict):
        return f"{name or 'settings'}: {message}{more}"
    return f"{name} = {first['input']!r}: {message}{more}"


def _fields_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        field = kind.model_fields.get(str(part))
        annotation = None if field is None else field.annotation
        # A table that may be left out is a union with None.
        tables = [
            one
            for one in (annotation, *get_args(annotation))
            if isinstance(one, type) and issubclass(one, BaseModel)
        ]
        if not tables:
            return []
        kind = tables[0]
    return list(kind.model_fields)


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; choose from: {', '.join(known)}"
