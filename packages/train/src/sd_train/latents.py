"""Batches for a denoiser: latents and text, from caches where their encoders are frozen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sd_train.data import PictureFolder
from sd_train.images import to_float
from sd_train.task import Batch
from sd_vae import AutoencoderKL

_CHUNK = 16
_TELL_EVERY = 2048


def encode_folder(
    vae: AutoencoderKL, folder: PictureFolder, tell: Callable[[str], None]
) -> dict[str, Tensor]:
    """Return the posteriors' `mean` and `std` (N, C, h, w) of all pictures, fp16 on the CPU."""
    device = next(vae.parameters()).device
    side = folder.config.size // vae.config.downsampling
    shape = (len(folder), vae.config.latent_channels, side, side)
    mean = torch.empty(shape, dtype=torch.float16)
    std = torch.empty(shape, dtype=torch.float16)
    for start in range(0, len(folder), _CHUNK):
        if start % _TELL_EVERY == 0:
            tell(f"encoding pictures: {start} of {len(folder)}")
        indices = range(start, min(start + _CHUNK, len(folder)))
        with torch.no_grad():
            posterior = vae.encode(to_float(folder.pictures(indices).to(device)))
        mean[start : indices.stop] = posterior.mean
        std[start : indices.stop] = posterior.std
    return {"mean": mean, "std": std}


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTable:
    """The text of N pictures: row `rows[i]` of `values` (U, T) ids or (U, T, D) hidden states.

    The last row is that of the empty prompt.
    """

    key: str
    values: Tensor
    rows: Tensor

    def take(self, indices: Sequence[int], dropped: Tensor) -> Tensor:
        """Gather the text of pictures, the empty prompt where `dropped` (B,)."""
        rows = self.rows[list(indices)].masked_fill(dropped, len(self.values) - 1)
        return self.values[rows]


class DenoiserSource:
    """The training pictures of a folder with their text.

    A batch has `mean` and, if cached, `std`, else `images`; and `token_ids` or `hidden_states`.
    """

    def __init__(
        self, folder: PictureFolder, posteriors: dict[str, Tensor], text: TextTable
    ) -> None:
        self.folder = folder
        self.posteriors = posteriors
        self.text = text

    def __len__(self) -> int:
        """Count the training pictures."""
        return len(self.folder.training)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """Gather pictures; captions are dropped at random."""
        places = [self.folder.training[i] for i in indices]
        chance = torch.rand(len(places), generator=generator)
        dropped = chance < self.folder.config.caption_dropout
        return {
            self.text.key: self.text.take(places, dropped),
            **(self.cached(places) or {"images": self.folder.crops(places, generator)}),
        }

    def held_out(self) -> Batch:
        """Return the held-out pictures with their captions."""
        places = self.folder.held_out
        kept = torch.zeros(len(places), dtype=torch.bool)
        return {
            self.text.key: self.text.take(places, kept),
            **(self.cached(places) or {"images": self.folder.pictures(places)}),
        }

    def cached(self, places: Sequence[int]) -> dict[str, Tensor]:
        """Return the cached posteriors of pictures, nothing if there are none."""
        return {name: values[list(places)] for name, values in self.posteriors.items()}
