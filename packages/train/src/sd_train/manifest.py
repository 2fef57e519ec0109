"""What a checkpoint holds, by hash, so that a damaged one is told from a whole one."""

import hashlib
from pathlib import Path

from sd_checkpoint import CheckpointError, load_json, save_json

_NAME = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Write the size and SHA-256 of every file of a folder into its `manifest.json`."""
    files = {path.name: _state_of(path) for path in sorted(folder.iterdir())}
    save_json(folder / _NAME, {"files": files})


def damage_of(folder: Path) -> str | None:
    """Say what of a folder is not as its manifest says, or None where all is.

    A folder without a manifest, as earlier versions wrote them, is believed.
    """
    path = folder / _NAME
    if not path.is_file():
        return None
    try:
        files = load_json(path)["files"]
        for name, state in files.items():
            if Path(name).name != name or not (folder / name).is_file():
                return f"it lacks {name}"
            # The size first: it tells most damages, and costs nothing.
            if (folder / name).stat().st_size != state["bytes"]:
                return f"{name} has another size"
            if _state_of(folder / name) != state:
                return f"{name} has other contents"
    except (CheckpointError, OSError, KeyError, TypeError, AttributeError) as error:
        return f"its {_NAME} cannot be read ({error!r:.60})"
    return None


def _state_of(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
