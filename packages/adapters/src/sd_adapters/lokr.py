"""LoKr: the Kronecker product of a small matrix and a larger one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from sd_adapters.adapter import AdapterError
from sd_adapters.layer import WeightLayer
from sd_adapters.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class KroneckerForm:
    """Say how a LoKr's two factors are kept.

    ``first`` is the shape (rows, columns) of the small factor; the larger one's follows from the
    weight's. A rank of None keeps a factor whole, otherwise it is a low-rank product, with
    ``tucker`` of the larger one in Tucker's form.
    """

    first: tuple[int, int]
    rank_1: int | None = None
    rank_2: int | None = None
    tucker: bool = False


class LokrLayer(WeightLayer):
    """The addition (alpha / rank) W1 (x) W2 to one linear or convolution.

    KronA, Edalati et al., arXiv:2212.10650; LyCORIS, arXiv:2309.14859, calls it LoKr. Where both
    factors are whole there is no rank, the scale is 1, and alpha means nothing.
    Raises ``AdapterError`` where the target's sizes are no multiples of the small factor's.
    """

    marks = frozenset(
        {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"}
    )

    def __init__(self, target: Target, alpha: float, form: KroneckerForm) -> None:
        super().__init__(target, form.rank_2 or form.rank_1, alpha)
        out_channels, in_channels, *kernel = self.shape
        rows, columns = form.first
        if rows < 1 or columns < 1 or out_channels % rows or in_channels % columns:
            raise AdapterError(
                f"a weight of {out_channels} x {in_channels} is no Kronecker product "
                f"with {rows} x {columns}"
            )
        second = (out_channels // rows, in_channels // columns)
        self.form = form
        self.second_shape = (*second, *kernel)
        self._make_first()
        self._make_second()

    @classmethod
    def of_rank(
        cls, target: Target, rank: int, alpha: float, *, factor: int = -1, tucker: bool = False
    ) -> Self:
        """Make a new layer: the small factor's sizes as near to the larger one's as can be.

        ``factor``, if positive, limits them. The larger factor is kept whole where the rank would
        save nothing.
        """
        out_channels, in_channels, *kernel = target.weight.shape
        rows, columns = _small_divisor(out_channels, factor), _small_divisor(in_channels, factor)
        is_whole = rank >= max(out_channels // rows, in_channels // columns) / 2
        form = KroneckerForm(
            first=(rows, columns),
            rank_2=None if is_whole else rank,
            tucker=tucker and not is_whole and math.prod(kernel) > 1,
        )
        return cls(target, alpha, form)

    @classmethod
    def like(cls, target: Target, parts: Mapping[str, Tensor]) -> Self:
        """Make a layer that is built as a file's tensors are: see ``WeightLayer``."""
        rank_1 = rank_2 = None
        if "lokr_w1" in parts:
            rows, columns = parts["lokr_w1"].shape[0], parts["lokr_w1"].shape[1]
        else:
            rows, columns = parts["lokr_w1_a"].shape[0], parts["lokr_w1_b"].shape[1]
            rank_1 = parts["lokr_w1_b"].shape[0]
        if "lokr_w2" not in parts:
            rank_2 = parts["lokr_w2_b"].shape[0]
        tucker = "lokr_t2" in parts
        form = KroneckerForm(first=(rows, columns), rank_1=rank_1, rank_2=rank_2, tucker=tucker)
        return cls(target, float(rank_2 or rank_1 or 1), form)

    def product(self) -> Tensor:
        """Return the Kronecker product, in the weight's shape."""
        w1, w2 = self._first(), self._second()
        return torch.einsum("ac,bd...->abcd...", w1, w2).reshape(self.shape)

    def _make_first(self) -> None:
        rows, columns = self.form.first
        if self.form.rank_1 is None:
            self.lokr_w1 = _drawn(rows, columns)
        else:
            self.lokr_w1_a = _drawn(rows, self.form.rank_1)
            self.lokr_w1_b = _drawn(self.form.rank_1, columns)

    def _make_second(self) -> None:
        """Make the larger factor zero, so that a new layer adds nothing."""
        (rows, columns, *kernel), rank = self.second_shape, self.form.rank_2
        if rank is None:
            self.lokr_w2 = nn.Parameter(torch.zeros(self.second_shape))
        elif self.form.tucker:
            self.lokr_t2 = _drawn(rank, rank, *kernel)
            self.lokr_w2_a = _drawn(rank, rows)
            self.lokr_w2_b = nn.Parameter(torch.zeros(rank, columns))
        else:
            self.lokr_w2_a = _drawn(rows, rank)
            self.lokr_w2_b = nn.Parameter(torch.zeros(rank, columns * math.prod(kernel)))

    def _first(self) -> Tensor:
        if self.form.rank_1 is None:
            return self.lokr_w1.float()
        return self.lokr_w1_a.float() @ self.lokr_w1_b.float()

    def _second(self) -> Tensor:
        if self.form.rank_2 is None:
            return self.lokr_w2.float()
        w2_a, w2_b = self.lokr_w2_a.float(), self.lokr_w2_b.float()
        if self.form.tucker:
            return torch.einsum("ij...,io,jc->oc...", self.lokr_t2.float(), w2_a, w2_b)
        return (w2_a @ w2_b).reshape(self.second_shape)


def _drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5)))


def _small_divisor(number: int, factor: int) -> int:
    """Return the greatest divisor that is no more than the root, and than a positive factor."""
    limit = math.isqrt(number) if factor < 1 else min(factor, math.isqrt(number))
    return next(divisor for divisor in range(limit, 0, -1) if number % divisor == 0)
