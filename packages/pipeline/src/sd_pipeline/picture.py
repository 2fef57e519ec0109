"""Finished pictures and the files they go into."""

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sd_checkpoint import atomic_path
from sd_pipeline.errors import PipelineError
from sd_pipeline.picture_file import picture_bytes
from sd_pipeline.picture_format import PictureFormat, is_file_name
from sd_pipeline.record import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture, what made it, and its share of its batch's seconds."""

    image: Image.Image
    record: Record
    seconds: float


def check_out(out: Path, count: int) -> None:
    """Find out before the work whether ``count`` pictures can be written to ``out``.

    ``out`` is a .png, .jpg, .jpeg or .webp file, which takes one picture, or a folder, which is
    made if need be. Raises ``PipelineError`` when they cannot.
    """
    is_file = is_file_name(out)
    if is_file and count > 1:
        raise PipelineError(f"--out {out} is one file for {count} pictures; name a folder")
    folder = out.parent if is_file else out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(
            f"cannot write to {folder}: {error.strerror}; choose another --out"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PipelineError(f"cannot write to {folder}: permission denied; choose another --out")


def save_picture(picture: Picture, out: Path, file_format: PictureFormat | None = None) -> Path:
    """Write a picture with its record and return its path.

    A file ``out`` is replaced; in a folder, made if need be, the picture gets a new name: a running
    number, the beginning of the prompt, the seed. ``file_format`` None is the file's own, PNG in a
    folder. Raises ``PipelineError`` where the picture cannot be written there, or not in that
    format.
    """
    if file_format is None:
        chosen = PictureFormat.of(out)
    else:
        chosen = PictureFormat.of(out, file_format.name, file_format.quality)
    data = picture_bytes(picture.image, picture.record, chosen)
    try:
        if not is_file_name(out):
            out.mkdir(parents=True, exist_ok=True)
            stem = f"{_slug(picture.record.prompt)}-{picture.record.seed}"
            return _write_new(data, out, stem, chosen.suffix)
        with atomic_path(out) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise PipelineError(
            f"cannot write to {out}: {error.strerror}; choose another --out"
        ) from error
    return out


def _write_new(data: bytes, folder: Path, stem: str, suffix: str) -> Path:
    temporary = folder / f".tmp-{secrets.token_hex(4)}{suffix}"
    taken = [int(m[1]) for m in (re.match(r"(\d+)-", path.name) for path in folder.iterdir()) if m]
    number = max(taken, default=0) + 1
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a name must not outlive a power cut without its data
        while True:
            path = folder / f"{number:05d}-{stem}{suffix}"
            try:
                os.link(temporary, path)  # unlike a rename, refuses a name that is taken
            except FileExistsError:
                number += 1
            else:
                return path
    finally:
        temporary.unlink(missing_ok=True)


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:48].rstrip("-") or "picture"
