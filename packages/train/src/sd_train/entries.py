"""What a data set is made of: pictures with captions, and what is left out of it."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sd_train.caption_tags import AS_WRITTEN, TagOrder
from sd_train.errors import TrainError
from sd_train.tar_member import TarMember

CAPTION_SUFFIXES = (".txt", ".caption")
MASK_SUFFIX = ".mask.png"
MAX_CAPTION_BYTES = 2**16

CaptionSource = Literal["listing", "file", "class", "name"]


class CaptionError(TrainError):
    """Say why the caption file beside a picture cannot be used."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture file, what it shows and who says so; `repeats` is how often an epoch has it.

    The file lies in a folder or in a shard, and so does `mask`, which says what of it is learnt.
    `label` is what its class is called.
    """

    path: Path | TarMember
    caption: str
    caption_from: CaptionSource = "file"
    repeats: int = 1
    tag_order: TagOrder = AS_WRITTEN
    mask: Path | TarMember | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is left out, and why; `kind` is the reason in a word or two, to count by."""

    what: str
    reason: str
    kind: str


@dataclass(kw_only=True, slots=True)
class Found:
    """What lies in a data set before a picture is opened.

    `others` are files that are no pictures by their names. `notes` tell of settings, a line each.
    `classes` are the labels that there are, in the order of their numbers.
    """

    entries: list[Entry] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    others: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Subset:
    """How the pictures of one folder are captioned.

    A file beside the picture comes first, then `class_caption`, then, if that is None, the
    picture's own name.
    """

    class_caption: str | None = None
    caption_suffixes: tuple[str, ...] = CAPTION_SUFFIXES
    prefix: str = ""
    suffix: str = ""
    repeats: int = 1
    tag_order: TagOrder = AS_WRITTEN

    def entry(self, path: Path) -> Entry:
        """Find a picture's caption; raises CaptionError for a caption file that cannot be read."""
        caption = caption_beside(path, self.caption_suffixes)
        origin: CaptionSource = "file"
        if caption is None and self.class_caption is not None:
            caption, origin = self.class_caption, "class"
        elif caption is None:
            caption, origin = caption_of_name(path.stem), "name"
        whole = " ".join(part for part in (self.prefix, caption, self.suffix) if part)
        return Entry(path, whole, origin, self.repeats, self.tag_order, mask_beside(path))


def mask_beside(picture: Path) -> Path | None:
    """Return the mask beside a picture: `name.mask.png` beside `name.jpg`, if it is there."""
    mask = picture.with_name(picture.stem + MASK_SUFFIX)
    return mask if os.path.lexists(mask) else None  # a link to nothing is a mask that is lost


def caption_beside(picture: Path, suffixes: tuple[str, ...] = CAPTION_SUFFIXES) -> str | None:
    """Read the caption file beside a picture, its lines joined; None if there is none.

    A suffix may be in capitals. Raises CaptionError if the file is not UTF-8, larger than 64 KiB,
    may not be read or is no file.
    """
    for suffix in suffixes:
        for told in dict.fromkeys((suffix, suffix.upper())):
            sidecar = picture.with_name(picture.stem + told)
            if os.path.lexists(sidecar):  # a link to nothing is a caption that is lost
                return _read_caption(sidecar)
    return None


def caption_of_name(stem: str) -> str:
    """Return what serves as the caption of a picture that has none: its name without the suffix."""
    # A name may have bytes that are no text, which no tokenizer takes.
    return stem.encode("utf-8", "ignore").decode().replace("_", " ")


def label_of(value: object) -> str | None:
    """Return what JSON calls a picture's class: a text or a whole number; None for all else."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value) if isinstance(value, str) or abs(value) < 2**31 else None


def decode_caption(content: bytes, name: str) -> str:
    """Return the caption in the bytes of the file called `name`, its lines joined.

    Raises CaptionError unless they are UTF-8 text of at most 64 KiB.
    """
    if len(content) > MAX_CAPTION_BYTES:
        raise CaptionError(f"{name} is larger than 64 KiB; shorten it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CaptionError(f"{name} is not UTF-8; save it as UTF-8") from error
    if "\0" in text:  # as UTF-16 has them, whose letters can pass for UTF-8
        raise CaptionError(f"{name} has zero bytes and is no text; save it as UTF-8")
    return " ".join(text.split())


def _read_caption(sidecar: Path) -> str:
    try:
        if not stat.S_ISREG(sidecar.stat().st_mode):  # opening a pipe would wait for ever
            raise CaptionError(f"{sidecar.name} is a folder, pipe or device; put a file there")
        with sidecar.open("rb") as file:
            content = file.read(MAX_CAPTION_BYTES + 1)
    except OSError as error:
        what = f"{sidecar.name} cannot be read ({error.strerror})"
        raise CaptionError(f"{what}; mend it or remove it") from error
    return decode_caption(content, sidecar.name)
