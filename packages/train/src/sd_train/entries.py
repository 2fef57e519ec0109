"""What a data set is made of: pictures with captions, and what is left out of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sd_train.caption_tags import AS_WRITTEN, TagOrder
from sd_train.errors import TrainError

CAPTION_SUFFIXES = (".txt", ".caption")
MAX_CAPTION_BYTES = 2**16

CaptionSource = Literal["listing", "file", "class", "name"]


class CaptionError(TrainError):
    """Say why the caption file beside a picture cannot be used."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture file, what it shows and who says so; `repeats` is how often an epoch has it."""

    path: Path
    caption: str
    caption_from: CaptionSource = "file"
    repeats: int = 1
    tag_order: TagOrder = AS_WRITTEN


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
    """

    entries: list[Entry] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    others: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


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
            # A name may have bytes that are no text, which no tokenizer takes.
            name = path.stem.encode("utf-8", "ignore").decode()
            caption, origin = name.replace("_", " "), "name"
        whole = " ".join(part for part in (self.prefix, caption, self.suffix) if part)
        return Entry(path, whole, origin, self.repeats, self.tag_order)


def caption_beside(picture: Path, suffixes: tuple[str, ...] = CAPTION_SUFFIXES) -> str | None:
    """Read the caption file beside a picture, its lines joined; None if there is none.

    Raises CaptionError if it is not UTF-8, larger than 64 KiB or may not be read.
    """
    for suffix in suffixes:
        sidecar = picture.with_name(picture.stem + suffix)
        if sidecar.is_file():
            return _read_caption(sidecar)
    return None


def _read_caption(sidecar: Path) -> str:
    try:
        with sidecar.open("rb") as file:
            content = file.read(MAX_CAPTION_BYTES + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CaptionError(f"{sidecar.name} is not UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise CaptionError(f"{sidecar.name} cannot be read ({error.strerror})") from error
    if len(content) > MAX_CAPTION_BYTES:
        raise CaptionError(f"{sidecar.name} is larger than 64 KiB; shorten it")
    return " ".join(text.split())
