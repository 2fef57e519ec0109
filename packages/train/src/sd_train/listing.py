"""A folder's captions in one file, metadata.jsonl: a line of JSON for each picture."""

import json
import os
from pathlib import Path
from typing import Any

from sd_train.entries import (
    CaptionError,
    CaptionSource,
    Entry,
    Found,
    Skipped,
    caption_of_name,
    decode_caption,
    label_of,
    mask_beside,
)
from sd_train.errors import TrainError

LISTING = "metadata.jsonl"

_MEND = 'write {"file_name": ..., "text": ...}'


class _LineError(Exception):
    """Say why a line cannot be used: `what` is the picture that it names, None where it has none.

    `reason` has the mend.
    """

    def __init__(self, what: Path | None, reason: str) -> None:
        self.what, self.reason = what, reason
        super().__init__(reason)


def read_listing(listing: Path, found: Found) -> None:
    """Add the pictures that a listing names with their captions, and the lines of no use.

    A picture may have lines with several captions. Pictures outside of the listing's folder are not
    opened. Raises TrainError where the listing cannot be read.
    """
    try:
        lines = listing.read_bytes().splitlines()
    except OSError as error:
        raise TrainError(f"{listing} cannot be read ({error.strerror}); mend it") from error
    failed: dict[int, _LineError] = {}
    seen: dict[tuple[str, str], int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = _entry(line, listing.parent)
            first = seen.setdefault((str(entry.path), entry.caption), number)
            if first != number:
                raise _LineError(None, f"says what line {first} says; remove one of them")
        except _LineError as error:
            failed[number] = error
        else:
            found.entries.append(entry)
    used = {entry.path for entry in found.entries}
    for number, failure in failed.items():
        # A picture that another line tells of is not left out: the line is.
        by_line = failure.what is None or failure.what in used
        what = f"{listing} line {number}" if by_line else str(failure.what)
        where = "" if by_line else f" (line {number} of {LISTING})"
        found.skipped.append(Skipped(what, failure.reason + where, "listing"))


def _entry(line: bytes, folder: Path) -> Entry:
    record = _record(line)
    path = _path(record, folder)
    caption, origin = _caption(record, path)
    label = label_of(record.get("label"))
    return Entry(path, caption, origin, mask=mask_beside(path), label=label)


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _LineError(None, "is not UTF-8; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise _LineError(None, f"is not JSON ({error}); {_MEND}") from error
    if not isinstance(record, dict):
        raise _LineError(None, f"is no JSON object; {_MEND}")
    return record


def _path(record: dict[str, Any], folder: Path) -> Path:
    """Return the file that a line names, which lies in the folder or below it."""
    name = record.get("file_name")
    if not isinstance(name, str) or not name:
        told = "has no file_name" if name in (None, "") else "has a file_name that is no text"
        raise _LineError(None, f"{told}; {_MEND}")
    path, root = folder / name, os.path.abspath(folder)
    if not os.path.isfile(path):  # Path.is_file raises on names that are too long
        told = "is no file" if os.path.exists(path) else "does not exist"
        raise _LineError(path, f"it {told}; correct file_name")
    whole = os.path.abspath(path)
    if os.path.commonpath([whole, root]) != root:
        raise _LineError(path, f"it lies outside of {folder}; move it into that folder")
    return folder / os.path.relpath(whole, root)


def _caption(record: dict[str, Any], path: Path) -> tuple[str, CaptionSource]:
    """Return a line's caption; beside a label none is wanted, and the picture's name will do."""
    if "text" not in record and "label" in record:
        return caption_of_name(path.stem), "name"
    text = record.get("text")
    if not isinstance(text, str):
        told = "there is no text" if text is None else "its text is no string"
        raise _LineError(path, f"{told}; {_MEND}")
    try:
        # \ud800 in JSON is half a character, which decode_caption refuses like other bytes.
        return decode_caption(text.encode("utf-8", "surrogatepass"), "its text"), "listing"
    except CaptionError as error:
        raise _LineError(path, str(error)) from error
