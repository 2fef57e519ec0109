"""The classes of pictures, as a denoiser is told them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelTable:
    """The classes of N pictures by number; `null`, which is no class, stands for what is dropped.

    The share `dropout` is, for guidance without a classifier (Ho and Salimans, arXiv:2207.12598).
    """

    labels: Tensor
    null: int
    dropout: float = 0.0

    def take(
        self, indices: Sequence[int], dropped: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Gather {"class_labels": (B,)} of pictures: of those `dropped` (B,) no class.

        With a generator a share of the others is dropped too.
        """
        if generator is not None:
            dropped = dropped | (torch.rand(len(dropped), generator=generator) < self.dropout)
        return {"class_labels": self.labels[list(indices)].masked_fill(dropped, self.null)}
