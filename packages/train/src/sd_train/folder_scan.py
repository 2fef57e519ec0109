"""What lies in a folder of training pictures: plain, with a metadata.jsonl, or kohya's."""

import json
import os
import re
from pathlib import Path
from typing import Any

from sd_pipeline.printable import printable
from sd_train.entries import (
    CAPTION_SUFFIXES,
    MASK_SUFFIX,
    CaptionError,
    CaptionSource,
    Entry,
    Found,
    Skipped,
    Subset,
    caption_of_name,
    label_of,
    mask_beside,
)
from sd_train.errors import TrainError
from sd_train.tar_member import TarMember

PICTURE_SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff",
)  # fmt: skip
OTHER_PICTURE_SUFFIXES = (
    ".avif", ".heic", ".heif", ".jxl", ".jp2", ".tga", ".psd", ".svg", ".ico", ".dng", ".cr2",
    ".nef", ".arw", ".exr",
)  # fmt: skip
LISTING = "metadata.jsonl"
MAX_REPEATS = 1000

_KOHYA_FOLDER = re.compile(r"([0-9]+)_(.*)", re.DOTALL)


def scan(folder: Path) -> Found:
    """List the pictures below `folder` with their captions, and what cannot be used.

    Captions come from metadata.jsonl (`file_name`, `text`, and perhaps `label`), else from a .txt
    or .caption file beside the picture, else from its name. A picture below a subfolder `10_dog` is
    seen ten times an epoch, and where it has no caption file its caption is "dog".
    """
    found = Found()
    pictures = list_pictures(folder, found)
    listing = folder / LISTING
    if listing.is_file():
        _read_listing(listing, found)
        _name_unlisted(folder, pictures, found)
        return found
    subsets: dict[str, Subset] = {}
    for path in pictures:
        name = _top_folder(path, folder)
        if name not in subsets:
            subsets[name] = _subset_of(name, found)
        add_entry(path, subsets[name], found)
    return found


def add_entry(path: Path, subset: Subset, found: Found) -> None:
    """Add a picture to what was found, or the reason why its caption cannot be used."""
    if not subset.repeats:
        reason = "its folder's name begins with 0 repeats; begin it with 1_ to use it"
        found.skipped.append(Skipped(str(path), reason, "0 repeats"))
        return
    try:
        found.entries.append(subset.entry(path))
    except CaptionError as error:
        found.skipped.append(Skipped(str(path), f"its caption file {error}", "caption file"))


def class_of_folder(name: str) -> str:
    """Return the class that a folder is called by: "dog" of `dog`, and of kohya's `10_dog`."""
    match = _KOHYA_FOLDER.fullmatch(name)
    return match[2] if match is not None and int(match[1]) <= MAX_REPEATS else name


def list_pictures(folder: Path, found: Found) -> list[Path]:
    """Return the files below `folder` that are pictures by name, sorted; name the rest in `found`.

    Hidden files and folders and links to folders are not gone into.
    """
    pictures: list[Path] = []
    others: list[Path] = []

    def unreadable(error: OSError) -> None:
        reason = f"the folder cannot be read ({error.strerror}); change its permissions"
        found.skipped.append(Skipped(str(error.filename), reason, "no permission"))

    for place, folders, files in os.walk(folder, onerror=unreadable):
        for path in sorted(Path(place, name) for name in folders):
            if path.name.startswith("."):
                folders.remove(path.name)
                found.others.append(Skipped(str(path), "hidden", "hidden"))
            elif path.is_symlink():
                reason = "a link to a folder, which is not followed; move the folder itself here"
                found.skipped.append(Skipped(str(path), reason, "link"))
        folders.sort()
        for name in sorted(files):
            _sort_file(Path(place, name), pictures, others, found)
    masks = [path for path in pictures if path.name.endswith(MASK_SUFFIX)]
    pictures = sorted(set(pictures).difference(masks))
    stems = {path.with_suffix("") for path in pictures}
    found.others += [_other(path, stems) for path in sorted(others)]
    for mask in sorted(masks):
        name_mask(mask, mask.with_name(mask.name.removesuffix(MASK_SUFFIX)) in stems, found)
    return pictures


def name_mask(mask: Path | TarMember, is_used: bool, found: Found) -> None:
    """Say of a mask that it is one, or that it has no picture."""
    if is_used:
        found.others.append(Skipped(str(mask), "a mask", "mask"))
    else:
        reason = (
            f"a mask without a picture; rename it to learn from it, not to end in {MASK_SUFFIX}"
        )
        found.skipped.append(Skipped(str(mask), reason, "mask without a picture"))


def _sort_file(path: Path, pictures: list[Path], others: list[Path], found: Found) -> None:
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        found.others.append(Skipped(str(path), "hidden", "hidden"))
    elif suffix in PICTURE_SUFFIXES:
        pictures.append(path)
    elif suffix in OTHER_PICTURE_SUFFIXES:
        reason = f"{suffix} is not read; convert it to PNG or JPEG"
        found.skipped.append(Skipped(str(path), reason, "format not read"))
    else:
        others.append(path)


def _other(path: Path, stems: set[Path]) -> Skipped:
    if path.name == LISTING:
        return Skipped(str(path), "the captions", "caption file")
    if path.suffix == ".tar":
        reason = "a shard among other files; name a folder of shards alone"
        return Skipped(str(path), reason, "shard")
    if path.suffix not in CAPTION_SUFFIXES:
        return Skipped(str(path), "no picture by its name", "other file")
    if path.with_suffix("") in stems:
        return Skipped(str(path), "a caption file", "caption file")
    return Skipped(str(path), "a caption without a picture", "caption without a picture")


def _top_folder(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _subset_of(name: str, found: Found) -> Subset:
    match = _KOHYA_FOLDER.fullmatch(name)
    if match is None:
        return Subset()
    shown = printable(name)
    repeats = int(match[1])
    if repeats > MAX_REPEATS:  # a year, most likely
        found.notes.append(
            f"folder {shown}: not taken for {repeats} repeats, of which {MAX_REPEATS} are allowed"
        )
        return Subset()
    found.notes.append(f"folder {shown}: {repeats} repeats, class {printable(match[2])!r}")
    return Subset(class_caption=match[2].encode("utf-8", "ignore").decode(), repeats=repeats)


def _read_listing(listing: Path, found: Found) -> None:
    try:
        lines = listing.read_bytes().splitlines()
    except OSError as error:
        raise TrainError(f"{listing} cannot be read ({error.strerror}); mend it") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig"))
            path, label = listing.parent / record["file_name"], record.get("label")
            caption, origin = _told(record, path)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f'{type(error).__name__}: {error}; write {{"file_name": ..., "text": ...}}'
            found.skipped.append(Skipped(f"{listing} line {number}", reason, "listing"))
            continue
        problem = _problem(path, caption)
        if problem:
            found.skipped.append(Skipped(str(path), f"{problem} in {LISTING}", "listing"))
        else:
            mask = mask_beside(path)
            found.entries.append(Entry(path, caption, origin, mask=mask, label=label_of(label)))


def _told(record: dict[str, Any], path: Path) -> tuple[Any, CaptionSource]:
    """Return a line's caption; beside a label none is wanted, and the picture's name will do."""
    if "label" in record and "text" not in record:
        return caption_of_name(path.stem), "name"
    return record["text"], "listing"


def _name_unlisted(folder: Path, pictures: list[Path], found: Found) -> None:
    listed = {os.path.normpath(str(entry.path)) for entry in found.entries}
    listed |= {os.path.normpath(item.what) for item in found.skipped}
    reason = f"{LISTING} has no line for it; add one"
    found.skipped += [
        Skipped(str(path), reason, "not listed")
        for path in pictures
        if os.path.normpath(path) not in listed
    ]
    found.notes += [
        f"{LISTING} stands, so folder {printable(name)} gives no repeats"
        for name in sorted({_top_folder(path, folder) for path in pictures})
        if _KOHYA_FOLDER.fullmatch(name)
    ]


def _problem(path: Path, caption: object) -> str:
    # Path.is_file raises on names that are too long.
    if not os.path.isfile(path):
        return "it does not exist; correct file_name"
    if not isinstance(caption, str):
        return "its text is not a string; correct it"
    try:
        caption.encode()
    except UnicodeEncodeError:
        return "its text has half a character; correct it"
    return ""
