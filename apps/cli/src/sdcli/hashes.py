"""The hashes of models' files, kept between runs, for reading gigabytes takes long."""

import json
import os
from contextlib import suppress
from pathlib import Path

_NAME = "hashes.json"


def known_hash(model: Path, variant: str | None = None) -> str:
    """Return the SHA-256 of a model's file, or of its folder's UNet.

    A file of the Hub's cache is named by its hash; of any other it is computed once and kept in
    the user's cache folder, until the file's size or time changes.
    """
    from sd_checkpoint import CheckpointError, save_json
    from sd_pipeline import sha256, weight_file

    path = weight_file(model, variant).resolve()
    if path.parent.name == "blobs" and len(path.name) == 64:
        return path.name
    status = path.stat()
    key = f"{path}|{status.st_size}|{status.st_mtime_ns}"
    store = _store()
    known = _read(store)
    if key not in known:
        known[key] = sha256(path)
        with suppress(CheckpointError):  # a folder that cannot be written to costs time alone
            save_json(store, known)
    return known[key]


def _store() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sdcli" / _NAME


def _read(store: Path) -> dict[str, str]:
    try:
        values = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
