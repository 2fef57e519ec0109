"""Which class each picture of a data set is of."""

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from sd_pipeline.classes import Classes
from sd_pipeline.printable import printable
from sd_train.config import DataConfig
from sd_train.data_check import find_pictures
from sd_train.entries import Entry, Found, Skipped
from sd_train.errors import TrainError
from sd_train.folder_scan import class_of_folder
from sd_train.tar_member import TarMember

_MAX_NAME = 200
_MENDS = {
    "folders": "it lies in no folder of a class; move it into one",
    "data": 'it has no label; give it one, as "label" in metadata.jsonl or in a .cls of its shard',
}


def find_labelled(config: DataConfig) -> Found:
    """List the pictures of a data set as `find_pictures` does, with their classes if so configured.

    Then `classes` are those of `data.classes`, or else all that there are, sorted, numbers by size.
    A picture without a label, or with one that is no class, is left out and named.
    """
    found = find_pictures(config.folder)
    if not config.labels:
        return found
    if config.labels == "folders" and Path(config.folder).suffix.lower() == ".toml":
        raise TrainError(
            f"data.folder {config.folder!r} names folders by itself, so data.labels = 'folders' "
            "says nothing of them; name the folder that holds one folder a class"
        )
    labels = [_label(entry, config) for entry in found.entries]
    distinct = {label for label in labels if label is not None}
    names = config.classes or _distinct(distinct, found)
    classes = Classes(names=names)
    numbers = {label: classes.find(label) for label in distinct}
    entries, found.entries, found.classes = found.entries, [], names
    for entry, label in zip(entries, labels, strict=True):
        number = None if label is None else numbers[label]
        if label is None:
            found.skipped.append(Skipped(str(entry.path), _MENDS[config.labels], "no label"))
        elif number is None:
            reason = f"its label {label!r} is none of data.classes{classes.suggestion(label)}"
            found.skipped.append(Skipped(str(entry.path), reason, "unknown label"))
        else:
            found.entries.append(replace(entry, label=names[number]))
    return found


def _distinct(labels: Collection[str], found: Found) -> tuple[str, ...]:
    """Sort labels, and take those for one that differ in capitals alone."""
    names: dict[str, str] = {}
    for label in sorted(labels, key=_in_order):
        first = names.setdefault(label.casefold(), label)
        if first != label:
            found.notes.append(f"labels {printable(first)} and {printable(label)} are one class")
    return tuple(names.values())


def _label(entry: Entry, config: DataConfig) -> str | None:
    """Return what a picture's class is called, None where nothing or nonsense says so."""
    label = entry.label
    if config.labels == "folders":
        folder = _top_folder(entry.path, config.folder)
        label = class_of_folder(folder) if folder else None
    if label is None:
        return None
    name = " ".join(label.encode("utf-8", "ignore").decode().split())
    return name if name.isprintable() and 0 < len(name) <= _MAX_NAME else None


def _top_folder(path: Path | TarMember, root: str) -> str:
    if isinstance(path, TarMember):
        parts = [part for part in path.name.split("/") if part not in ("", ".")]
    else:
        parts = list(path.relative_to(root).parts)
    return parts[0] if len(parts) > 1 else ""


def _in_order(name: str) -> tuple[int, int, str]:
    return (0, int(name), "") if re.fullmatch(r"[0-9]{1,9}", name) else (1, 0, name)
