"""Reading and writing JSON files."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sd_checkpoint.atomic import atomic_path
from sd_checkpoint.errors import CheckpointError, first_line
from sd_checkpoint.mapped import require_file
from sd_checkpoint.strict_json import parse_json

__all__ = ["load_config", "load_json", "save_json"]

_MAX_BYTES = 64 * 2**20
_REMOTE = ("auto_map", "trust_remote_code", "custom_pipeline", "custom_pipelines")
_ORIGINS = ("_name_or_path", "name_or_path")  # where its maker had it; never followed


def load_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the JSON object in `path`, at most 64 MiB.

    Infinity passes, which schedulers' configs hold. Raises `CheckpointError` when the file is
    missing, broken or too long, or has a key twice.
    """
    path = Path(path)
    require_file(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes; {_MAX_BYTES} are allowed")
        value = parse_json(path.read_bytes(), infinity=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({first_line(error)})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value


def load_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a model's config as `load_json` does, and refuse one that asks for code or leads out.

    Code is asked for by `auto_map`, `trust_remote_code` and `custom_pipeline`, at any depth.
    A text with `..` in a path leads out of the folder, save under `_name_or_path`, which says where
    its maker had the model and which nobody here follows.
    """
    config = load_json(path)
    rest: list[tuple[str, Any]] = list(config.items())
    while rest:
        key, value = rest.pop()
        if key in _REMOTE and value:
            raise CheckpointError(
                f"{os.fspath(path)} asks for code of its maker's ({key}), which is never run; "
                "remove the key if the model is one that we know"
            )
        if isinstance(value, str) and key not in _ORIGINS and _leads_out(value):
            raise CheckpointError(f"{os.fspath(path)} leads out of its folder: {key} = {value!r}")
        if isinstance(value, dict):
            rest += value.items()
        elif isinstance(value, list):
            rest += ((key, item) for item in value)
    return config


def save_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Write `value` to `path` as indented JSON, whole or not at all."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with atomic_path(path) as temporary:
        try:
            temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"cannot write {os.fspath(path)}: {first_line(error)}") from error


def _leads_out(text: str) -> bool:
    return ".." in text.replace("\\", "/").split("/")
