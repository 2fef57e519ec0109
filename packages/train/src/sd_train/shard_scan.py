"""What lies in shards: tar files whose members of one name are a picture and its caption."""

import json
import os
import re
from pathlib import Path

from sd_pipeline.picture_opener import MAX_BYTES
from sd_train.entries import (
    CAPTION_SUFFIXES,
    MASK_SUFFIX,
    CaptionError,
    CaptionSource,
    Entry,
    Found,
    Skipped,
    caption_of_name,
    decode_caption,
)
from sd_train.errors import TrainError
from sd_train.folder_scan import (
    OTHER_PICTURE_SUFFIXES,
    PICTURE_SUFFIXES,
    SHARD_SUFFIX,
    name_mask,
)
from sd_train.tar_index import index_tar
from sd_train.tar_member import TarMember

COMPRESSED_SUFFIXES = (
    ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst",
)  # fmt: skip
JSON_SUFFIX = ".json"
LABEL_SUFFIX = ".cls"
MAX_JSON_BYTES = 2**20
MAX_SHARDS = 100_000

_JSON_KEYS = ("caption", "text")
_RANGE = re.compile(r"\{([0-9]{1,9})\.\.([0-9]{1,9})\}")


def is_shard(name: str) -> bool:
    """Tell whether a file or pattern is by its name one of shards, be they compressed or not."""
    return name.lower().endswith((SHARD_SUFFIX, *COMPRESSED_SUFFIXES))


def shards_in(folder: Path) -> list[Path]:
    """Return the files of a folder, but not of those below, that are shards by name, sorted.

    A folder that cannot be read has none.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    shards = (folder / name for name in names if is_shard(name) and not name.startswith("."))
    return [shard for shard in shards if os.path.isfile(shard)]


def shards_named(pattern: str) -> list[Path]:
    """Return the shards that a pattern such as "shards/{000..012}.tar" names.

    Numbers keep the zeros before the first of a range. Raises TrainError for a range that counts
    down or is too long, and for a shard that is not there or is compressed.
    """
    paths = [Path(name) for name in _expanded(pattern)]
    for path in paths:
        if not os.path.isfile(path):  # Path.is_file raises on names that are too long
            raise TrainError(f"data.folder {pattern!r}: {path} is not there; correct the name")
        if path.name.lower().endswith(COMPRESSED_SUFFIXES):
            what = f"{path} is compressed, so no picture can be sought in it"
            raise TrainError(f"data.folder {pattern!r}: {what}; unpack it to a plain .tar")
    return paths


def scan_shards(shards: list[Path], found: Found) -> None:
    """Add the pictures of shards with their captions to `found`, and what cannot be used.

    A picture's caption is in the member of its name with .txt or .caption, else in that with .json
    under "caption" or "text", else it is its name. Its label is in that with .cls. All of them lie
    in one shard, in any order.
    """
    found.notes.append(f"shards: {len(shards)}")
    for shard in shards:
        _scan(shard, found)


def _expanded(pattern: str) -> list[str]:
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    after = _expanded(pattern[match.end() :])
    first, last, width = int(match[1]), int(match[2]), len(match[1])
    if first > last or (last - first + 1) * len(after) > MAX_SHARDS:
        raise TrainError(
            f"data.folder {pattern!r}: {match[0]} must count up, to at most {MAX_SHARDS:,} shards"
        )
    before = pattern[: match.start()]
    return [f"{before}{n:0{width}}{rest}" for n in range(first, last + 1) for rest in after]


def _scan(shard: Path, found: Found) -> None:
    pictures: list[TarMember] = []
    captions: dict[str, TarMember] = {}
    masks: dict[str, TarMember] = {}
    labels: dict[str, TarMember] = {}
    others: list[TarMember] = []
    for member in index_tar(shard, found):
        suffix = member.suffix.lower()
        if member.file_name.startswith("."):
            found.others.append(Skipped(str(member), "hidden", "hidden"))
        elif member.name.endswith(MASK_SUFFIX):
            masks[member.name.removesuffix(MASK_SUFFIX)] = member
        elif suffix in PICTURE_SUFFIXES:
            pictures.append(member)
        elif suffix in OTHER_PICTURE_SUFFIXES:
            reason = f"{suffix} is not read; convert it to PNG or JPEG"
            found.skipped.append(Skipped(str(member), reason, "format not read"))
        elif suffix == LABEL_SUFFIX:
            labels[member.base] = member
        elif suffix in (*CAPTION_SUFFIXES, JSON_SUFFIX):
            captions[member.base + suffix] = member
        else:
            others.append(member)
    for picture in pictures:
        _add_picture(picture, captions, masks.get(picture.base), labels.get(picture.base), found)
    found.others += [Skipped(str(each), "no picture by its name", "other file") for each in others]
    bases = {picture.base for picture in pictures}
    found.others += [_caption_file(each, each.base in bases) for each in captions.values()]
    found.others += [_label_file(each, base in bases) for base, each in labels.items()]
    for base, mask in masks.items():
        name_mask(mask, base in bases, found)


def _add_picture(
    picture: TarMember,
    captions: dict[str, TarMember],
    mask: TarMember | None,
    label: TarMember | None,
    found: Found,
) -> None:
    for file in (picture, mask):
        if file is not None and file.size > MAX_BYTES:
            reason = f"{file.name} has {file.size:,} bytes, more than {MAX_BYTES:,}"
            skipped = Skipped(str(picture), f"{reason}; make it smaller", "too many bytes")
            found.skipped.append(skipped)
            return
    try:
        caption = _caption(picture, captions)
    except CaptionError as error:
        found.skipped.append(Skipped(str(picture), f"its caption file {error}", "caption file"))
        return
    origin: CaptionSource = "file"
    if caption is None:
        caption, origin = caption_of_name(picture.base.rpartition("/")[2]), "name"
    told = None if label is None else _label(label)
    found.entries.append(Entry(picture, caption, origin, mask=mask, label=told))


def _caption(picture: TarMember, captions: dict[str, TarMember]) -> str | None:
    """Read a picture's caption, None where there is none; raises CaptionError."""
    for suffix in (*CAPTION_SUFFIXES, JSON_SUFFIX):
        member = captions.get(picture.base + suffix)
        if member is not None:
            is_json = suffix == JSON_SUFFIX
            return _json_caption(member) if is_json else decode_caption(_read(member), member.name)
    return None


def _json_caption(member: TarMember) -> str | None:
    if member.size > MAX_JSON_BYTES:
        raise CaptionError(f"{member.name} is larger than 1 MiB; shorten it")
    try:
        values = json.loads(_read(member))
    except (ValueError, RecursionError) as error:
        raise CaptionError(f"{member.name} is not JSON ({error}); mend it") from error
    told = [values.get(key) for key in _JSON_KEYS] if isinstance(values, dict) else []
    texts = [text for text in told if text is not None]
    if not texts:  # it may tell other things of the picture
        return None
    if not isinstance(texts[0], str):
        raise CaptionError(f"{member.name} has a caption that is no string; mend it")
    # \ud800 in JSON is half a character, which decode_caption refuses like other bytes.
    return decode_caption(texts[0].encode("utf-8", "surrogatepass"), member.name)


def _label(member: TarMember) -> str | None:
    """Read a picture's label, None where there is none to read."""
    try:
        return _read(member).decode("utf-8-sig")
    except (CaptionError, UnicodeDecodeError):
        return None


def _read(member: TarMember) -> bytes:
    """Read a caption's bytes, no more of them than it takes to see that they are too many."""
    part = TarMember(member.shard, member.name, member.offset, min(member.size, MAX_JSON_BYTES))
    try:
        return part.read_bytes()
    except OSError as error:
        raise CaptionError(f"{member.name} cannot be read ({error})") from error


def _label_file(member: TarMember, is_used: bool) -> Skipped:
    if is_used:
        return Skipped(str(member), "a label file", "label file")
    return Skipped(str(member), "a label without a picture", "label without a picture")


def _caption_file(member: TarMember, is_used: bool) -> Skipped:
    if is_used:
        return Skipped(str(member), "a caption file", "caption file")
    return Skipped(str(member), "a caption without a picture", "caption without a picture")
