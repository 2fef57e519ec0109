"""Captioned pictures in a folder, as uint8 tensors."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor

from sd_train.config import DataConfig
from sd_train.data_check import check_pictures, find_pictures
from sd_train.data_summary import dropped_lines, summarise, summary_lines
from sd_train.errors import TrainError
from sd_train.picture_opener import PictureError, open_picture
from sd_train.printable import printable
from sd_train.task import Batch

_DROPPED_SHOWN = 10
_OPENER = "picture_opener 1"  # change it when `open_picture` gives other pixels


class PictureFolder:
    """The usable pictures of a folder; `report` tells of every file, `skipped` of those left out.

    In memory the pictures are one uint8 tensor (N, size, size, 3), so an epoch costs no decoding.
    `training` has a picture as often as its repeats say.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        found = find_pictures(config.folder)
        shape = (len(found.entries), config.size, config.size, 3)
        images = torch.empty(shape, dtype=torch.uint8) if config.in_memory else None

        def keep(number: int, image: Image.Image) -> None:
            if images is not None:
                images[number] = square(image, config.size)

        self.report = check_pictures(found, config, on_picture=keep)
        self.entries = [picture.entry for picture in self.report.used]
        self.skipped = self.report.skipped
        if images is not None and self.skipped:
            images = images[[picture.number for picture in self.report.used]]
        self._images = images
        self._require_enough()
        count = len(self.entries)
        held_out = {i * count // config.holdout for i in range(config.holdout)}
        self.held_out = sorted(held_out)
        learnt = (i for i in range(count) if i not in held_out)
        self.training = [i for i in learnt for _ in range(self.entries[i].repeats)]

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
        if self._images is None:  # the files alone do not say how they are opened
            digest.update(f"{_OPENER}/{self.config.background}".encode())
        for index, entry in enumerate(self.entries):
            if self._images is not None:
                digest.update(self._images[index].numpy().data)
            else:
                digest.update(entry.path.read_bytes())
        return digest.hexdigest()

    def _open(self, index: int) -> Tensor:
        path, config = self.entries[index].path, self.config
        try:
            image = open_picture(path, background=config.background, max_pixels=config.max_pixels)
        except PictureError as error:
            raise TrainError(f"picture can no longer be read: {error}") from error
        return square(image, config.size)

    def _require_enough(self) -> None:
        if len(self.entries) <= self.config.holdout:
            first = "; ".join(["", *dropped_lines(self.report, 1)])
            raise TrainError(
                f"data.folder {self.config.folder!r} has {len(self.entries)} usable pictures, not "
                f"more than data.holdout {self.config.holdout}; add pictures or lower holdout"
                f"{first}"
            )


def square(image: Image.Image, size: int) -> Tensor:
    """Return the centre square of an RGB picture at `size` px, uint8 (size, size, 3)."""
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image))


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
    """Say what is learnt from, what `sdcli data check` says of it, and what was left out."""
    learnt, examples = len(folder) - len(folder.held_out), len(folder.training)
    repeats = f", {examples} examples an epoch" * (examples != learnt)
    return [
        f"{printable(folder.config.folder)}: {learnt} pictures to learn from{repeats}, "
        f"{len(folder.held_out)} held out",
        *summary_lines(summarise(folder.report), folder.report),
        *dropped_lines(folder.report, _DROPPED_SHOWN),
    ]


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
