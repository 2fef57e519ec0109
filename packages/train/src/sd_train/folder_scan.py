"""What lies in a folder of training pictures: plain, with a metadata.jsonl, or kohya's."""

import os
import re
from pathlib import Path

from sd_pipeline.printable import printable
from sd_train.entries import (
    CAPTION_SUFFIXES,
    MASK_SUFFIX,
    CaptionError,
    Found,
    Skipped,
    Subset,
)
from sd_train.listing import LISTING, read_listing
from sd_train.tar_member import TarMember

PICTURE_SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff",
)  # fmt: skip
OTHER_PICTURE_SUFFIXES = (
    ".avif", ".heic", ".heif", ".jxl", ".jp2", ".tga", ".psd", ".svg", ".ico", ".dng", ".cr2",
    ".nef", ".arw", ".exr",
)  # fmt: skip
SHARD_SUFFIX = ".tar"
MAX_REPEATS = 1000

_FILE_SUFFIXES = (*PICTURE_SUFFIXES, *OTHER_PICTURE_SUFFIXES, *CAPTION_SUFFIXES, SHARD_SUFFIX)
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
    if os.path.isfile(listing):  # Path.is_file raises where the folder may not be read
        read_listing(listing, found)
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
            elif path.suffix.lower() in _FILE_SUFFIXES:
                found.others.append(Skipped(str(path), "a folder, for all its name", "folder"))
        folders.sort()
        for name in sorted(files):
            _sort_file(Path(place, name), pictures, others, found)
    masks = [path for path in pictures if path.name.endswith(MASK_SUFFIX)]
    pictures = sorted(set(pictures).difference(masks))
    stems = {path.with_suffix("") for path in pictures}
    for path in sorted(others):
        _name_other(path, stems, found)
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


def _name_other(path: Path, stems: set[Path], found: Found) -> None:
    """Say of a file that is no picture by its name what it is."""
    suffix = path.suffix.lower()
    if suffix == SHARD_SUFFIX:
        reason = "a shard among other files; name a folder of shards alone"
        found.skipped.append(Skipped(str(path), reason, "shard"))
    elif path.name == LISTING:
        found.others.append(Skipped(str(path), "the captions", "caption file"))
    elif suffix not in CAPTION_SUFFIXES:
        found.others.append(Skipped(str(path), "no picture by its name", "other file"))
    elif path.with_suffix("") in stems:
        found.others.append(Skipped(str(path), "a caption file", "caption file"))
    else:
        kind = "caption without a picture"
        found.others.append(Skipped(str(path), f"a {kind}", kind))


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
