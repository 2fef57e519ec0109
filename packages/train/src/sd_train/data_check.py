"""A look at every picture of a data set before it is learnt from."""

import os
import re
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sd_train.config import DataConfig
from sd_train.entries import Entry, Found, Skipped
from sd_train.errors import TrainError
from sd_train.folder_scan import scan
from sd_train.kohya_dataset import scan_dataset_file
from sd_train.picture_opener import PictureError, open_picture

_FEWEST_LETTERS = 3


@dataclass(frozen=True, slots=True)
class Remark:
    """What is odd about a picture that is used all the same; `kind` is to count by."""

    kind: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UsedPicture:
    """A picture that can be learnt from; `number` is its place among those that were found."""

    number: int
    entry: Entry
    width: int
    height: int
    remarks: tuple[Remark, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataReport:
    """Every file of a data set: used, left out and why, or no picture by its name."""

    folder: str
    size: int
    used: list[UsedPicture]
    skipped: list[Skipped]
    others: list[Skipped]
    notes: list[str]


def find_pictures(place: str) -> Found:
    """List what lies in a folder, or in those that kohya's dataset TOML names.

    Raises TrainError if `place` is neither, or the TOML is wrong.
    """
    path = Path(place)
    if path.suffix.lower() == ".toml" and path.is_file():
        return scan_dataset_file(path)
    if not path.is_dir():
        raise TrainError(f"data.folder {place!r} is not a folder; name one with pictures")
    return scan(path)


def check_pictures(
    found: Found,
    config: DataConfig,
    *,
    on_picture: Callable[[int, Image.Image], None] | None = None,
    on_item: Callable[[int], None] | None = None,
) -> DataReport:
    """Open every picture that was found and say what is to be said of it.

    `on_picture` gets each one's number and pixels, in any order and from several threads; `on_item`
    the count of those done.
    """

    def look(number: int) -> "_Facts | PictureError":
        try:
            image = open_picture(
                found.entries[number].path,
                background=config.background,
                max_pixels=config.max_pixels,
            )
        except PictureError as error:
            return error
        if on_picture is not None:
            on_picture(number, image)
        return _facts(image)

    results = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, warnings.catch_warnings():
        # What matters of Pillow's grumbling is said in the report.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        for result in pool.map(look, range(len(found.entries))):
            results.append(result)
            if on_item is not None:
                on_item(len(results))
    return _report(found, results, config)


@dataclass(frozen=True, slots=True)
class _Facts:
    width: int
    height: int
    pixels: str


def _facts(image: Image.Image) -> _Facts:
    # Imported here: with it come the networks.
    from sd_pipeline.images import pixel_hash

    return _Facts(*image.size, pixel_hash(image))


def _report(found: Found, results: "list[_Facts | PictureError]", config: DataConfig) -> DataReport:
    used, skipped = [], list(found.skipped)
    first_of: dict[str, Path] = {}
    for number, (entry, result) in enumerate(zip(found.entries, results, strict=True)):
        if isinstance(result, PictureError):
            skipped.append(Skipped(str(entry.path), result.reason, result.kind))
            continue
        first = first_of.get(result.pixels)
        first_of.setdefault(result.pixels, entry.path)
        remarks = tuple(_remarks(entry, result, first, config.size))
        used.append(
            UsedPicture(
                number=number,
                entry=entry,
                width=result.width,
                height=result.height,
                remarks=remarks,
            )
        )
    return DataReport(
        folder=config.folder,
        size=config.size,
        used=used,
        skipped=skipped,
        others=found.others,
        notes=found.notes,
    )


def _remarks(entry: Entry, facts: _Facts, first: Path | None, size: int) -> list[Remark]:
    remarks = []
    if entry.caption_from == "name":
        remarks.append(Remark("uncaptioned", f"no caption; its name serves: {entry.caption!r}"))
    elif entry.caption_from == "class" and not entry.caption:
        remarks.append(Remark("uncaptioned", "no caption and no class"))
    elif len(re.findall(r"\w", entry.caption)) < _FEWEST_LETTERS:
        remarks.append(Remark("near-empty caption", f"the caption is {entry.caption!r}"))
    if first is not None:
        remarks.append(Remark("duplicate", f"the same pixels as {first}"))
    if min(facts.width, facts.height) < size:
        text = f"{facts.width} x {facts.height} is enlarged to {size}"
        remarks.append(Remark("too small", text))
    return remarks
