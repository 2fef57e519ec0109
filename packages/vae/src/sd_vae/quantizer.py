"""The codebook of a discrete latent (van den Oord et al. 2017, arXiv:1711.00937)."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

__all__ = ["CodebookUsage", "Quantized", "VectorQuantizer"]

_MOST_DISTANCES = 2**24  # held at once: 64 MiB


class Quantized(NamedTuple):
    """Hold the codes (B, C, h, w) of a latent, their numbers (B, h, w) and two scalars to learn by.

    `codes` hands its gradient to the latent as it is. `codebook` pulls codes to latents,
    `commitment` latents to codes; both are means over the values of a latent.
    """

    codes: Tensor
    indices: Tensor
    codebook: Tensor
    commitment: Tensor


class VectorQuantizer(nn.Module):
    """Replace each vector of a latent by the nearest one of a codebook.

    Keys are those of diffusers' VQModel below `quantize.`, and of latent diffusion's.
    """

    def __init__(self, num_embeddings: int, num_channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_embeddings, num_channels)
        nn.init.uniform_(self.embedding.weight, -1.0 / num_embeddings, 1.0 / num_embeddings)

    def forward(self, z: Tensor) -> Quantized:
        """Quantise z (B, C, h, w), in float32, straight through.

        van den Oord et al. 2017, section 3.1 and the last two terms of equation 3.
        """
        z = z.float()
        batch, _, height, _ = z.shape
        indices = self._nearest(rearrange(z.detach(), "b c h w -> (b h w) c"))
        indices = rearrange(indices, "(b h w) -> b h w", b=batch, h=height)
        codes = rearrange(self.embedding(indices).float(), "b h w c -> b c h w")
        return Quantized(
            codes=z + (codes - z).detach(),
            indices=indices,
            codebook=(codes - z.detach()).square().mean(),
            commitment=(z - codes.detach()).square().mean(),
        )

    @torch.no_grad()
    def _nearest(self, vectors: Tensor) -> Tensor:
        """Return the numbers (N,) of the codes nearest to vectors (N, C), a part at a time."""
        book = self.embedding.weight.float()
        with torch.autocast(vectors.device.type, enabled=False):
            parts = torch.split(vectors, max(1, _MOST_DISTANCES // len(book)))
            return torch.cat([torch.cdist(part, book).argmin(dim=1) for part in parts])


class CodebookUsage:
    """Count which codes are in use."""

    def __init__(self, num_embeddings: int) -> None:
        self._counts = torch.zeros(num_embeddings, dtype=torch.double)

    def add(self, indices: Tensor) -> None:
        """Take in the numbers of some codes, of any shape."""
        self._counts += torch.bincount(indices.flatten().cpu(), minlength=len(self._counts))

    @property
    def share(self) -> float:
        """The share of the codes that were in use at all, 0 to 1."""
        return float((self._counts > 0).double().mean())

    @property
    def perplexity(self) -> float:
        """How many codes would be in use if all of these were equally often, 1 or more."""
        shares = self._counts[self._counts > 0] / self._counts.sum()
        return float(torch.exp(-(shares * shares.log()).sum()))
