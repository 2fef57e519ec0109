"""Captioned pictures in a folder, as uint8 tensors."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor

from sd_pipeline.classes import Classes
from sd_pipeline.picture_opener import PictureError
from sd_pipeline.printable import printable
from sd_train.buckets import Size
from sd_train.caption_tags import TagOrder, in_orders
from sd_train.config import DataConfig
from sd_train.data_buckets import bucket_of
from sd_train.data_check import check_pictures
from sd_train.data_summary import dropped_lines, summarise, summary_lines
from sd_train.entry_pictures import open_entry
from sd_train.errors import TrainError
from sd_train.labels import find_labelled
from sd_train.seeds import generator_for
from sd_train.task import Batch

_DROPPED_SHOWN = 200
_OPENER = "picture_opener 1"  # change it when `open_picture` gives other pixels


class PictureFolder:
    """The usable pictures of a folder; `report` tells of every file, `skipped` of those left out.

    In memory the pictures are one uint8 tensor (N, size, size, 3), or with buckets one each, so an
    epoch costs no decoding; where `has_masks`, these are a fourth channel. `sizes` are those in
    which the pictures are handed out, width and height: only equal ones together. `training` has a
    picture as often as its repeats say. `classes` are those of the pictures where `data.labels`
    says so, else None.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        found = find_labelled(config)
        self.classes = Classes(names=found.classes) if config.labels else None
        masked = any(entry.mask is not None for entry in found.entries)
        self.has_masks = masked or config.alpha_is_mask
        count, channels = len(found.entries), 4 if self.has_masks else 3
        images: Tensor | list[Tensor] | None = None
        if config.in_memory and config.buckets:
            images = [torch.empty(0)] * count
        elif config.in_memory:
            images = torch.empty((count, config.size, config.size, channels), dtype=torch.uint8)

        def keep(number: int, image: Image.Image, mask: Image.Image | None) -> None:
            if images is not None:
                images[number] = self._channels(image, mask, bucket_of(*image.size, config))

        self.report = check_pictures(found, config, on_picture=keep)
        self.entries = [picture.entry for picture in self.report.used]
        self.skipped = self.report.skipped
        used = [picture.number for picture in self.report.used]
        if isinstance(images, list):
            images = [images[number] for number in used]
        elif images is not None and self.skipped:
            images = images[used]
        self._images = images
        self.sizes: list[Size] = [
            bucket_of(picture.width, picture.height, config) for picture in self.report.used
        ]
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

    def in_orders(self, captions: Sequence[str], seed: int) -> list[list[str]]:
        """Return each picture's caption as it is written, and its tags' other orders.

        Of every picture as many: one where nothing is shuffled.
        """
        config, orders = self.config, [entry.tag_order for entry in self.entries]
        if config.shuffle_tags:
            ours = TagOrder(shuffle=True, keep_tokens=config.keep_tags)
            orders = [order if order.shuffle else ours for order in orders]
        count = config.tag_orders if any(order.shuffle for order in orders) else 1
        return [
            in_orders(caption, order, count, generator_for(seed, "tags", place))
            for place, (caption, order) in enumerate(zip(captions, orders, strict=True))
        ]

    @property
    def labels(self) -> list[int]:
        """The numbers of the pictures' classes, in the order of the pictures; none without."""
        if self.classes is None:
            return []
        number_of = {name: number for number, name in enumerate(self.classes.names)}
        return [number_of[entry.label] for entry in self.entries if entry.label is not None]

    def pictures(self, indices: Sequence[int]) -> Tensor:
        """Return whole pictures of one size, uint8 (B, 3, H, W), channels last in memory."""
        return self._wholes(indices)[:, :3]

    def squares(self, indices: Sequence[int]) -> Tensor:
        """Return the squares in the middle, uint8 (B, 3, size, size), whatever the buckets."""
        if not self.config.buckets:
            return self.pictures(indices)
        side = (self.config.size, self.config.size)
        images = torch.stack([self._open(i, side) for i in indices])
        return rearrange(images, "b h w c -> b c h w")[:, :3]

    def crops(self, indices: Sequence[int], generator: torch.Generator) -> Tensor:
        """Return random squares, uint8 (B, 3, crop, crop), mirrored at random if so configured.

        With buckets they are whole pictures of one size, mirrored or not.
        """
        return self._windows(indices, generator)[:, :3]

    def masked(self, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """Return {"images": ...} as `crops` does, or as `pictures` does without a generator.

        Where `has_masks`, "mask" says what of these is learnt: float (B, 1, H, W) in [0, 1].
        """
        whole = self._wholes(indices) if generator is None else self._windows(indices, generator)
        mask = {"mask": whole[:, 3:].float() / 255} if self.has_masks else {}
        return {"images": whole[:, :3], **mask}

    def _wholes(self, indices: Sequence[int]) -> Tensor:
        if isinstance(self._images, Tensor):
            images = self._images[torch.as_tensor(indices)]
        else:
            images = torch.stack([self._whole(i) for i in indices])
        return rearrange(images, "b h w c -> b c h w")

    def _whole(self, index: int) -> Tensor:
        return self._images[index] if self._images is not None else self._open(index)

    def _windows(self, indices: Sequence[int], generator: torch.Generator) -> Tensor:
        size, crop = self.config.size, self.config.crop or self.config.size
        if crop == size and not self.config.flip:
            return self._wholes(indices)
        corners = torch.randint(size - crop + 1, (len(indices), 2), generator=generator).tolist()
        mirrored = torch.rand(len(indices), generator=generator).lt(0.5).tolist()
        squares = []
        for index, (top, left), mirror in zip(indices, corners, mirrored, strict=True):
            window = self._whole(index)
            if not self.config.buckets:
                window = window[top : top + crop, left : left + crop]
            squares.append(window.flip(1) if mirror and self.config.flip else window)
        return rearrange(torch.stack(squares), "b h w c -> b c h w")

    def fingerprint(self, places: Sequence[int] | None = None) -> str:
        """Hash the contents of pictures, or all, and masks, as this folder hands them out."""
        places = range(len(self)) if places is None else places
        digest = hashlib.sha256(f"{self.config.size}/{len(places)}".encode())
        if self._images is None:  # the files alone do not say how they are opened
            digest.update(f"{_OPENER}/{self.config.background}".encode())
            digest.update(f"/masks, alpha {self.config.alpha_is_mask}".encode() * self.has_masks)
        if self.config.buckets:
            digest.update(f"/buckets {[self.sizes[place] for place in places]}".encode())
        for index in places:
            entry = self.entries[index]
            if self._images is not None:
                digest.update(self._images[index].numpy().data)
            else:
                digest.update(entry.path.read_bytes())
                if entry.mask is not None:
                    digest.update(b"mask" + entry.mask.read_bytes())
        return digest.hexdigest()

    def _open(self, index: int, size: Size | None = None) -> Tensor:
        try:
            opened = open_entry(self.entries[index], self.config)
            return self._channels(*opened, size or self.sizes[index])
        except PictureError as error:
            raise TrainError(f"picture can no longer be read: {error}") from error

    def _channels(self, image: Image.Image, mask: Image.Image | None, size: Size) -> Tensor:
        colours = covering(image, size)
        if not self.has_masks:
            return colours
        if mask is None:
            return torch.cat([colours, torch.full_like(colours[..., :1], 255)], -1)
        # The mean over a pixel's area, where Lanczos would overshoot.
        levels = ImageOps.fit(mask, size, Image.Resampling.BOX)
        return torch.cat([colours, torch.from_numpy(np.array(levels)).unsqueeze(-1)], -1)

    def _require_enough(self) -> None:
        if len(self.entries) <= self.config.holdout:
            first = "; ".join(["", *dropped_lines(self.report, 1)])
            raise TrainError(
                f"data.folder {self.config.folder!r} has {len(self.entries)} usable pictures, not "
                f"more than data.holdout {self.config.holdout}; add pictures or lower holdout"
                f"{first}"
            )


def covering(image: Image.Image, size: Size) -> Tensor:
    """Return what of the middle of an RGB picture has the shape of a size, uint8 (H, W, 3)."""
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
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


def check_least_size(config: DataConfig, least: int, what: str, *, halved: bool) -> None:
    """Raise TrainError where the squares that training sees are too small for `what`."""
    name = "crop" if config.crop else "size"
    side = getattr(config, name)
    if side >> halved < least:
        raise TrainError(
            f"data.{name} = {side}{', halved by equivariance,' * halved} is too small for "
            f"{what}; use {least << halved} or more"
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
