"""Batches for a denoiser: latents and text, from caches where their encoders are frozen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sd_train.cache import Rows
from sd_train.data import PictureFolder
from sd_train.data_buckets import by_size, name_of
from sd_train.images import to_float
from sd_train.label_table import LabelTable
from sd_train.task import Batch
from sd_unet import Backbone, DiTConfig
from sd_vae import AutoencoderKL

_CHUNK = 16


def encode_pictures(
    vae: AutoencoderKL, folder: PictureFolder, places: Sequence[int]
) -> dict[str, Tensor]:
    """Return the posteriors' `mean` and `std` (N, C, h, w) of pictures of one size, fp16 on CPU.

    Where the folder has masks, `mask` (N, 1, h, w), fp32, has their means over the latents' areas.
    """
    device = next(vae.parameters()).device
    width, height = (side // vae.config.downsampling for side in folder.sizes[places[0]])
    shape = (len(places), vae.config.latent_channels, height, width)
    mean = torch.empty(shape, dtype=torch.float16)
    std = torch.empty(shape, dtype=torch.float16)
    mask = torch.empty(len(places) if folder.has_masks else 0, 1, height, width)
    for start in range(0, len(places), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        shown = folder.masked(places[chunk])
        with torch.no_grad():
            posterior = vae.encode(to_float(shown["images"].to(device)))
        mean[chunk], std[chunk] = posterior.mean, posterior.std
        if folder.has_masks:
            mask[chunk] = area_mean(shown["mask"], height, width)
    masks = {"mask": mask} if folder.has_masks else {}
    return {"mean": mean, "std": std, **masks}


def smallest_step(unet: Backbone, vae: AutoencoderKL) -> int:
    """Return of how many pixels the sides of pictures must be multiples for both networks."""
    config = unet.config
    if isinstance(config, DiTConfig):
        return vae.config.downsampling * config.patch_size
    return vae.config.downsampling << (config.num_levels - 1)


def area_mean(mask: Tensor, height: int, width: int) -> Tensor:
    """Shrink masks (B, 1, H, W) to (B, 1, height, width): the mean over the area of each."""
    return functional.interpolate(mask, (height, width), mode="area")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTable:
    """The texts of N pictures: rows of `values`, tensors (U, ...) by their names in a batch.

    Row i of `rows` (N, K) names the K texts of picture i, of which a batch gets one at random. The
    last row of the values is that of the empty prompt; with `zeros_for_empty` it stands for zeros,
    as SDXL has it where nothing is told.
    """

    values: Mapping[str, Tensor | Rows]
    rows: Tensor
    zeros_for_empty: bool = False

    def take(
        self, indices: Sequence[int], dropped: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Gather the text of pictures, the empty prompt where `dropped` (B,).

        Without a generator a picture's text is its first. `told` (B,), where zeros stand for the
        empty prompt, is False for what they are to replace.
        """
        rows = self.rows[list(indices)]
        num_texts, column = rows.shape[1], torch.zeros(len(rows), 1, dtype=torch.long)
        if generator is not None and num_texts > 1:
            column = torch.randint(num_texts, column.shape, generator=generator)
        empty = len(next(iter(self.values.values()))) - 1
        chosen = rows.gather(1, column).squeeze(1).masked_fill(dropped, empty)
        told = {"told": chosen != empty} if self.zeros_for_empty else {}
        return {**{name: values[chosen] for name, values in self.values.items()}, **told}


class DenoiserSource:
    """The training pictures of a folder with their text.

    A batch has `mean` and `std` if they are cached, else `images`; `token_ids` (and `token_ids_2`
    for a second text encoder), or `hidden_states` and `pooled`; `told` as `TextTable.take` says;
    `class_labels` (N,) where there are `labels`, dropped where captions are;
    `sizes` where there are some: (N, 6), what SDXL is told of each picture; and `mask` where the
    folder has masks: (N, 1, h, w) from 0, not learnt, to 1, as large as latents or pictures. With
    buckets a batch is of one size.
    """

    def __init__(
        self,
        folder: PictureFolder,
        posteriors: Mapping[str, Tensor | Rows],
        text: TextTable | None,
        sizes: Tensor | None = None,
        labels: LabelTable | None = None,
    ) -> None:
        self.folder = folder
        self.posteriors = posteriors
        self.text = text
        self.sizes = sizes
        self.labels = labels
        members = by_size(range(len(folder)), folder.sizes).values()
        self._rows = {place: row for each in members for row, place in enumerate(each)}

    @property
    def groups(self) -> list[list[int]] | None:
        """The training pictures of a size each, None where all are of one."""
        if not self.folder.config.buckets:
            return None
        sizes = [self.folder.sizes[place] for place in self.folder.training]
        return list(by_size(range(len(sizes)), sizes).values())

    def __len__(self) -> int:
        """Count the training pictures."""
        return len(self.folder.training)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """Gather pictures; captions and classes are dropped at random."""
        places = [self.folder.training[i] for i in indices]
        chance = torch.rand(len(places), generator=generator)
        dropped = chance < self.folder.config.caption_dropout
        return {
            **self._told(places, dropped, generator),
            **(self.cached(places) or self.folder.masked(places, generator)),
        }

    def held_out(self) -> list[Batch]:
        """Return the held-out pictures with their captions, those of a size in a batch."""
        return self.fixed_batches(self.folder.held_out)

    def fixed_batches(self, places: Sequence[int]) -> list[Batch]:
        """Return pictures as `fixed` does, those of a size in a batch."""
        return [self.fixed(each) for each in by_size(places, self.folder.sizes).values()]

    def fixed(self, places: Sequence[int]) -> Batch:
        """Return pictures whole and with their captions, the same each time."""
        kept = torch.zeros(len(places), dtype=torch.bool)
        return {
            **self._told(places, kept),
            **(self.cached(places) or self.folder.masked(places)),
        }

    def cached(self, places: Sequence[int]) -> dict[str, Tensor]:
        """Return the cached posteriors of pictures, nothing if there are none."""
        if not self.folder.config.buckets:
            return {name: values[list(places)] for name, values in self.posteriors.items()}
        size, rows = name_of(self.folder.sizes[places[0]]), [self._rows[place] for place in places]
        return {
            name.partition("/")[0]: values[rows]
            for name, values in self.posteriors.items()
            if name.partition("/")[2] == size
        }

    def _told(
        self, places: Sequence[int], dropped: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Gather what is told of pictures: text, classes, sizes."""
        told: dict[str, Tensor] = {}
        if self.text is not None:
            told |= self.text.take(places, dropped, generator)
        if self.labels is not None:
            untold = dropped if self.text is not None else torch.zeros_like(dropped)
            told |= self.labels.take(places, untold, generator)
        if self.sizes is not None:
            told["sizes"] = self.sizes[list(places)]
        return told
