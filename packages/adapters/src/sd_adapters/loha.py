"""LoHa: the element-wise product of two low-rank matrices."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from sd_adapters.layer import WeightLayer
from sd_adapters.targets import Target


class LohaLayer(WeightLayer):
    """The addition (alpha / rank) (A1 B1) * (A2 B2), whose rank is up to the square of ``rank``.

    FedPara, Hyeon-Woo et al., arXiv:2108.06098, proposition 1; LyCORIS, arXiv:2309.14859, calls it
    LoHa. With ``tucker`` each of the two is a kernel between two matrices (proposition 3).
    """

    marks = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"})

    def __init__(self, target: Target, rank: int, alpha: float, *, tucker: bool = False) -> None:
        super().__init__(target, rank, alpha)
        out_channels, in_channels, *kernel = self.shape
        if tucker and kernel:
            first, second = (rank, out_channels), (rank, in_channels)
            self.hada_t1 = nn.Parameter(torch.empty(rank, rank, *kernel))
            self.hada_t2 = nn.Parameter(torch.empty(rank, rank, *kernel))
        else:
            first, second = (out_channels, rank), (rank, self.shape[1:].numel())
        self.hada_w1_a = nn.Parameter(torch.empty(first))
        self.hada_w1_b = nn.Parameter(torch.empty(second))
        self.hada_w2_a = nn.Parameter(torch.empty(first))
        self.hada_w2_b = nn.Parameter(torch.empty(second))
        self.tucker = tucker and bool(kernel)
        self._draw()

    @classmethod
    def like(cls, target: Target, parts: Mapping[str, Tensor]) -> Self:
        """Make a layer that is built as a file's tensors are: see ``WeightLayer``."""
        rank = parts["hada_w1_b"].shape[0]
        return cls(target, rank, float(rank), tucker="hada_t1" in parts)

    def product(self) -> Tensor:
        """Return (A1 B1) * (A2 B2), in the weight's shape."""
        w1_a, w1_b = self.hada_w1_a.float(), self.hada_w1_b.float()
        w2_a, w2_b = self.hada_w2_a.float(), self.hada_w2_b.float()
        if not self.tucker:
            return ((w1_a @ w1_b) * (w2_a @ w2_b)).reshape(self.shape)
        first = torch.einsum("ij...,io,jc->oc...", self.hada_t1.float(), w1_a, w1_b)
        second = torch.einsum("ij...,io,jc->oc...", self.hada_t2.float(), w2_a, w2_b)
        return first * second

    def _draw(self) -> None:
        """Draw as LyCORIS does; one factor is zero, so that a new layer adds nothing."""
        nn.init.normal_(self.hada_w1_a, std=0.1)
        nn.init.normal_(self.hada_w1_b)
        nn.init.zeros_(self.hada_w2_a)
        nn.init.normal_(self.hada_w2_b)
        if self.tucker:
            nn.init.normal_(self.hada_t1, std=0.1)
            nn.init.normal_(self.hada_t2, std=0.1)
