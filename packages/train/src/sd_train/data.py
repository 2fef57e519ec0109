"""Captioned pictures in a folder, as uint8 tensors."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from sd_train.config import DataConfig
from sd_train.errors import TrainError
from sd_train.images import open_square
from sd_train.task import Batch

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture file and what it shows."""

    path: Path
    caption: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is left out, and why."""

    what: str
    reason: str


def scan_folder(folder: Path) -> tuple[list[Entry], list[Skipped]]:
    """List the pictures of `folder` with their captions, and what cannot be used.

    Captions come from metadata.jsonl (`file_name`, `text`), else from a .txt or .caption file
    beside the picture, else from its name.
    """
    if not folder.is_dir():
        raise TrainError(f"data.folder {str(folder)!r} is not a folder; name one with pictures")
    listing = folder / "metadata.jsonl"
    if listing.is_file():
        return _read_listing(listing)
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
    return [Entry(path, _caption_beside(path)) for path in paths], []


def _read_listing(listing: Path) -> tuple[list[Entry], list[Skipped]]:
    entries, skipped = [], []
    with listing.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                path, caption = listing.parent / record["file_name"], record["text"]
            except (ValueError, KeyError, TypeError) as error:
                skipped.append(Skipped(f"{listing.name} line {number}", f"not usable: {error!r}"))
                continue
            if path.is_file() and isinstance(caption, str):
                entries.append(Entry(path, caption))
            else:
                reason = "text is not a string" if path.is_file() else "file does not exist"
                skipped.append(Skipped(str(path), reason))
    return entries, skipped


def _caption_beside(path: Path) -> str:
    for suffix in (".txt", ".caption"):
        sidecar = path.with_suffix(suffix)
        if sidecar.is_file():
            return " ".join(sidecar.read_text(encoding="utf-8").split())
    return path.stem.replace("_", " ")


class PictureFolder:
    """The usable pictures of a folder; `skipped` tells of the others.

    In memory the pictures are one uint8 tensor (N, size, size, 3), so an epoch costs no decoding.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        found, self.skipped = scan_folder(Path(config.folder))
        self._images: Tensor | None = None
        self.entries = self._load(found) if config.in_memory else self._check(found)
        if len(self.entries) <= config.holdout:
            reason = f"; first skipped: {self.skipped[0]}" if self.skipped else ""
            raise TrainError(
                f"data.folder {config.folder!r} has {len(self.entries)} usable pictures, not more "
                f"than data.holdout {config.holdout}; add pictures or lower holdout{reason}"
            )
        held_out = {i * len(self.entries) // config.holdout for i in range(config.holdout)}
        self.held_out = sorted(held_out)
        self.training = [i for i in range(len(self.entries)) if i not in held_out]

    def __len__(self) -> int:
        """Count the usable pictures, held-out ones included."""
        return len(self.entries)

    @property
    def captions(self) -> list[str]:
        """The captions in the order of the pictures."""
        return [entry.caption for entry in self.entries]

    def pictures(self, indices: Sequence[int]) -> Tensor:
        """Return whole squares, uint8 (B, 3, size, size), channels last in memory."""
        if self._images is not None:
            images = self._images[torch.as_tensor(indices)]
        else:
            images = torch.stack([self._open(i) for i in indices])
        return rearrange(images, "b h w c -> b c h w")

    def crops(self, indices: Sequence[int], generator: torch.Generator) -> Tensor:
        """Return random squares, uint8 (B, 3, crop, crop), mirrored at random if so configured."""
        size, crop = self.config.size, self.config.crop or self.config.size
        if crop == size and not self.config.flip:
            return self.pictures(indices)
        corners = torch.randint(size - crop + 1, (len(indices), 2), generator=generator).tolist()
        mirrored = torch.rand(len(indices), generator=generator).lt(0.5).tolist()
        squares = []
        for index, (top, left), mirror in zip(indices, corners, mirrored, strict=True):
            image = self._images[index] if self._images is not None else self._open(index)
            square = image[top : top + crop, left : left + crop]
            squares.append(square.flip(1) if mirror and self.config.flip else square)
        return rearrange(torch.stack(squares), "b h w c -> b c h w")

    def fingerprint(self) -> str:
        """Hash the contents of all pictures, as this folder hands them out."""
        digest = hashlib.sha256(f"{self.config.size}/{len(self)}".encode())
        for index, entry in enumerate(self.entries):
            if self._images is not None:
                digest.update(self._images[index].numpy().data)
            else:
                digest.update(entry.path.read_bytes())
        return digest.hexdigest()

    def _open(self, index: int) -> Tensor:
        path = self.entries[index].path
        try:
            return open_square(path, self.config.size)
        except _BROKEN as error:
            raise TrainError(f"picture {path} can no longer be read: {error}") from error

    def _load(self, found: list[Entry]) -> list[Entry]:
        size = self.config.size
        images = torch.empty((len(found), size, size, 3), dtype=torch.uint8)

        def load(index: int) -> str:
            try:
                images[index] = open_square(found[index].path, size)
            except _BROKEN as error:
                return str(error) or type(error).__name__
            return ""

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            problems = list(pool.map(load, range(len(found))))
        good = self._sort_out(found, problems)
        self._images = images if len(good) == len(found) else images[good]
        return [found[i] for i in good]

    def _check(self, found: list[Entry]) -> list[Entry]:
        def check(entry: Entry) -> str:
            try:
                with Image.open(entry.path) as image:
                    image.verify()
            except _BROKEN as error:
                return str(error) or type(error).__name__
            return ""

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            problems = list(pool.map(check, found))
        return [found[i] for i in self._sort_out(found, problems)]

    def _sort_out(self, found: list[Entry], problems: list[str]) -> list[int]:
        pairs = zip(found, problems, strict=True)
        self.skipped += [Skipped(str(entry.path), problem) for entry, problem in pairs if problem]
        return [i for i, problem in enumerate(problems) if not problem]


def check_sizes(config: DataConfig, multiple: int) -> None:
    """Raise TrainError unless size and crop are multiples of the autoencoder's downsampling."""
    for name in ("size", "crop"):
        value = getattr(config, name)
        if value % multiple:
            raise TrainError(
                f"data.{name} = {value} is not a multiple of {multiple}, by which the autoencoder "
                f"shrinks; use {max(1, round(value / multiple)) * multiple}"
            )


def describe(folder: PictureFolder) -> list[str]:
    """Say what was found and what was left out, a line each."""
    lines = [
        f"{folder.config.folder}: {len(folder.training)} pictures to learn from, "
        f"{len(folder.held_out)} held out, {len(folder.skipped)} skipped"
    ]
    shown = folder.skipped[:10]
    lines += [f"skipped {item.what}: {item.reason}" for item in shown]
    if len(folder.skipped) > len(shown):
        lines.append(f"... and {len(folder.skipped) - len(shown)} more skipped")
    return lines


class CropSource:
    """Random squares of the training pictures, as batches {"images": uint8 (B, 3, H, W)}."""

    def __init__(self, folder: PictureFolder) -> None:
        self.folder = folder

    def __len__(self) -> int:
        """Count the training pictures."""
        return len(self.folder.training)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """Gather one square of each picture."""
        places = [self.folder.training[i] for i in indices]
        return {"images": self.folder.crops(places, generator)}
