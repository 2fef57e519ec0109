"""What a checkpoint holds, by hash, so that a damaged one is told from a whole one."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from sd_checkpoint import CheckpointError, load_json, save_json

_NAME = "manifest.json"
_STATE = "state.json"


class FileState(TypedDict):
    """How a file is: its size and its SHA-256."""

    bytes: int
    sha256: str


def write_manifest(folder: Path, known: Mapping[str, FileState] | None = None) -> None:
    """Write the size and SHA-256 of every file of a folder into its `manifest.json`.

    Those of `known` files, by name, are not read again.
    """
    known = known or {}
    paths = sorted(folder.iterdir())
    files = {path.name: known.get(path.name) or state_of(path) for path in paths}
    save_json(folder / _NAME, {"files": files})


def damage_of(folder: Path) -> str | None:
    """Say what of a folder is not as its manifest says, or None where all is.

    A manifest that says nothing of the run's state says nothing at all.
    """
    path = folder / _NAME
    if not path.is_file():
        return f"it lacks {_NAME}"
    try:
        files = load_json(path)["files"]
        if _STATE not in files:
            return f"its {_NAME} lacks {_STATE}"
        for name, state in files.items():
            if Path(name).name != name or not (folder / name).is_file():
                return f"it lacks {name}"
            # The size first: it tells most damages, and costs nothing.
            if (folder / name).stat().st_size != state["bytes"]:
                return f"{name} has another size"
            if state_of(folder / name) != state:
                return f"{name} has other contents"
    except (CheckpointError, OSError, KeyError, TypeError, AttributeError) as error:
        return f"its {_NAME} cannot be read ({error!r:.60})"
    return None


def state_of(path: Path) -> FileState:
    """Return the size and hash of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
