"""Finished pictures and the files they go into."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch
from einops import rearrange
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from sd_checkpoint import atomic_path
from sd_pipeline.errors import PipelineError
from sd_pipeline.images import pixel_hash
from sd_pipeline.metadata import PARAMETERS_KEY, RECORD_KEY, XMP, XMP_KEY
from sd_pipeline.record import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture, what made it, and its share of its batch's seconds."""

    image: Image.Image
    record: Record
    seconds: float


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Turn pixels (B, 3, H, W) in [-1, 1] into 8-bit RGB images."""
    scaled = (pixels.detach().float() / 2 + 0.5).clamp(0, 1) * 255
    array = rearrange(scaled.round().to(torch.uint8).cpu(), "b c h w -> b h w c").numpy()
    return [Image.fromarray(one) for one in array]


def check_out(out: Path, count: int) -> None:
    """Find out before the work whether ``count`` pictures can be written to ``out``.

    ``out`` is a PNG file, which takes one picture, or a folder, which is made if need be.
    Raises ``PipelineError`` when they cannot.
    """
    is_file = _is_file(out)
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


def save_picture(picture: Picture, out: Path) -> Path:
    """Write a PNG with its record and return its path.

    A file ``out`` is replaced; in a folder the picture gets a new name: a running number, the
    beginning of the prompt, the seed.
    """
    if _is_file(out):
        with atomic_path(out) as temporary:
            _write_png(picture, temporary)
        return out
    stem = f"{_slug(picture.record.prompt)}-{picture.record.seed}"
    taken = [int(m[1]) for m in (re.match(r"(\d+)-", path.name) for path in out.iterdir()) if m]
    number = max(taken, default=0) + 1
    with NamedTemporaryFile(dir=out, prefix=".tmp-", suffix=".png") as temporary:
        _write_png(picture, Path(temporary.name))
        Path(temporary.name).chmod(0o644)  # temporary files are their owner's alone
        while True:
            path = out / f"{number:05d}-{stem}.png"
            try:
                os.link(temporary.name, path)  # unlike a rename, refuses a name that is taken
            except FileExistsError:
                number += 1
            else:
                return path


def _write_png(picture: Picture, path: Path) -> None:
    info = PngInfo()
    info.add_itxt(PARAMETERS_KEY, picture.record.parameters())
    info.add_itxt(RECORD_KEY, picture.record.json(pixels=pixel_hash(picture.image)))
    info.add_itxt(XMP_KEY, XMP)
    picture.image.save(path, format="PNG", pnginfo=info)


def _is_file(out: Path) -> bool:
    if out.suffix and not out.is_dir() and out.suffix.lower() != ".png":
        raise PipelineError(
            f"--out {out} ends in {out.suffix}; pictures are .png, or name a folder"
        )
    return out.suffix.lower() == ".png" and not out.is_dir()


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:48].rstrip("-") or "picture"
