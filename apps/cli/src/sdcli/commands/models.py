"""`sdcli models`: what is installed."""

import json
import re
from pathlib import Path

from rich.console import Console
from rich.table import Table


def models() -> None:
    """List the installed models with their size, licence and folder."""
    from sd_scenes import MODEL_NAME, SceneError, model_folder

    table = Table(box=None, pad_edge=False)
    for column in ("model", "parts", "size", "licence", "folder"):
        table.add_column(column, overflow="fold")
    try:
        folder = model_folder()
    except SceneError as error:
        table.add_row(MODEL_NAME, "-", "-", "-", str(error))
    else:
        table.add_row(MODEL_NAME, _parts(folder), _size(folder), _licence(folder), str(folder))
    Console().print(table)


def _parts(folder: Path) -> str:
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return ", ".join(
        name
        for name, value in sorted(index.items())
        if not name.startswith("_") and isinstance(value, list) and value[1]
    )


def _size(folder: Path) -> str:
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{total / 1e6:.1f} MB"


def _licence(folder: Path) -> str:
    # The Hub's convention: the model card's front matter names the licence.
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    found = re.search(r"^license:\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else "not stated"
