"""A look at every picture of a data set before it is learnt from."""

import os
import re
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sd_pipeline.images import pixel_hash
from sd_pipeline.picture_opener import PictureError
from sd_train.config import DataConfig
from sd_train.data_buckets import bucket_of
from sd_train.entries import Entry, Found, Skipped
from sd_train.entry_pictures import open_entry
from sd_train.errors import TrainError
from sd_train.folder_scan import scan
from sd_train.kohya_dataset import scan_dataset_file
from sd_train.shard_scan import is_shard, scan_shards, shards_in, shards_named
from sd_train.tar_member import TarMember

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
    bucket_step: int = 0
    classes: tuple[str, ...] = ()


def find_pictures(place: str) -> Found:
    """List what lies in a folder, in shards, or in the folders that kohya's dataset TOML names.

    Shards are named by a pattern such as "shards/{000..012}.tar", or by a folder that has some and
    no pictures. Raises TrainError if `place` is none of these, a shard is missing or the TOML is
    wrong.
    """
    path = Path(place)
    if path.suffix.lower() == ".toml" and path.is_file():
        return scan_dataset_file(path)
    if os.path.isdir(path):  # Path.is_dir raises on names that are too long
        return _scan_folder(path)
    if not is_shard(place):
        raise TrainError(f"data.folder {place!r} is not a folder; name one with pictures")
    found = Found()
    scan_shards(shards_named(place), found)
    return found


def _scan_folder(folder: Path) -> Found:
    found = scan(folder)
    shards = [] if found.entries else shards_in(folder)
    if shards:
        known = {str(shard) for shard in shards}
        found.skipped = [item for item in found.skipped if item.what not in known]
        found.others = [item for item in found.others if item.what not in known]
        scan_shards(shards, found)
    return found


def check_pictures(
    found: Found,
    config: DataConfig,
    *,
    on_picture: Callable[[int, Image.Image, Image.Image | None], None] | None = None,
    on_item: Callable[[int], None] | None = None,
) -> DataReport:
    """Open every picture that was found and say what is to be said of it.

    `on_picture` gets each one's number, pixels and mask, in any order and from several threads;
    `on_item` the count of those done.
    """

    def look(number: int) -> "_Facts | PictureError":
        try:
            image, mask = open_entry(found.entries[number], config)
        except PictureError as error:
            return error
        if on_picture is not None:
            on_picture(number, image, mask)
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
    return _Facts(*image.size, pixel_hash(image))


def _report(found: Found, results: "list[_Facts | PictureError]", config: DataConfig) -> DataReport:
    used, skipped = [], list(found.skipped)
    first_of: dict[str, Path | TarMember] = {}
    named: dict[str, Path | TarMember] = {}
    for number, (entry, result) in enumerate(zip(found.entries, results, strict=True)):
        if isinstance(result, PictureError):
            skipped.append(Skipped(str(entry.path), result.reason, result.kind))
            continue
        first = first_of.get(result.pixels)
        first_of.setdefault(result.pixels, entry.path)
        remarks = (
            *_remarks(entry, result, first, config),
            *_shared_name(entry, named.setdefault(_stem(entry.path), entry.path)),
        )
        used.append(
            UsedPicture(
                number=number,
                entry=entry,
                width=result.width,
                height=result.height,
                remarks=remarks,
            )
        )
    masked = sum(picture.entry.mask is not None for picture in used)
    masks = [f"masks: beside {masked} of {len(used)} pictures"] * bool(masked)
    return DataReport(
        folder=config.folder,
        size=config.size,
        used=used,
        skipped=skipped,
        others=found.others,
        notes=found.notes + masks,
        bucket_step=config.bucket_step,
        classes=found.classes,
    )


def _stem(path: Path | TarMember) -> str:
    return str(path.with_suffix("")) if isinstance(path, Path) else f"{path.shard}:{path.base}"


def _shared_name(entry: Entry, first: Path | TarMember) -> list[Remark]:
    """Remark that two pictures, such as a.jpg and a.png, have one caption file."""
    if first == entry.path or entry.caption_from != "file":
        return []
    return [Remark("shared caption", f"its caption file is that of {first}, too")]


def _remarks(
    entry: Entry, facts: _Facts, first: Path | TarMember | None, config: DataConfig
) -> list[Remark]:
    remarks = []
    if entry.caption_from == "name" and config.labels:
        pass  # its label is what it shows
    elif entry.caption_from == "name":
        remarks.append(Remark("uncaptioned", f"no caption; its name serves: {entry.caption!r}"))
    elif entry.caption_from == "class" and not entry.caption:
        remarks.append(Remark("uncaptioned", "no caption and no class"))
    elif len(re.findall(r"\w", entry.caption)) < _FEWEST_LETTERS:
        remarks.append(Remark("near-empty caption", f"the caption is {entry.caption!r}"))
    if first is not None:
        again = "the same picture again, with another caption"
        told = again if first == entry.path else f"the same pixels as {first}"
        remarks.append(Remark("duplicate", told))
    width, height = bucket_of(facts.width, facts.height, config)
    if facts.width < width or facts.height < height:
        told = f"{width} x {height}" if config.buckets else f"{width}"
        remarks.append(Remark("too small", f"{facts.width} x {facts.height} is enlarged to {told}"))
    return remarks
