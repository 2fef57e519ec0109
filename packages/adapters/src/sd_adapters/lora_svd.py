"""The best low-rank approximation of a weight's change: its greatest singular values."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sd_adapters.adapter import AdapterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """Say how far to reduce: to a rank, or to the least rank that keeps a share of the energy.

    The energy is the sum of the squared singular values, which is that of the squared weights; a
    share of 0.9 keeps nine tenths of it. With both, the rank is the most there will be.
    Raises ``AdapterError`` for values that are neither.
    """

    rank: int | None = None
    energy: float | None = None

    def __post_init__(self) -> None:
        if self.rank is None and self.energy is None:
            raise AdapterError("give a rank, or the share of the energy to keep, such as 0.9")
        if self.rank is not None and self.rank < 1:
            raise AdapterError(f"LoRA rank {self.rank} is below 1: give 1 or more")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise AdapterError(f"energy {self.energy} is no share: give more than 0, and 1 at most")

    def rank_for(self, singular_values: Tensor) -> int:
        """Return how many of the singular values (n,), greatest first, to keep; 1 at least."""
        most = len(singular_values) if self.rank is None else min(self.rank, len(singular_values))
        if self.energy is None:
            return max(most, 1)
        shares = _cumulated(singular_values)
        # Half a rounding error of the sum must not cost a rank.
        needed = int((shares < self.energy - 1e-12).sum()) + 1
        return max(min(needed, most), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """A low-rank product: ``down`` (r, in), ``up`` (out, r), and the share of energy it keeps."""

    down: Tensor
    up: Tensor
    energy: float


def factors_of(weight: Tensor, reduction: Reduction) -> Factors:
    """Reduce a matrix (out, in) to the nearest of a lower rank (Eckart and Young, 1936)."""
    u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    return _reduced(u, s, vh, reduction)


def factors_of_product(down: Tensor, up: Tensor, reduction: Reduction) -> Factors:
    """Reduce the product of ``up`` (out, r) and ``down`` (r, in), without ever making it.

    With QR of either the singular values are those of an (r, r) matrix.
    """
    up_q, up_r = torch.linalg.qr(up.double())
    down_q, down_r = torch.linalg.qr(down.double().T)
    u, s, vh = torch.linalg.svd(up_r @ down_r.T, full_matrices=False)
    return _reduced(up_q @ u, s, vh @ down_q.T, reduction)


def _reduced(u: Tensor, s: Tensor, vh: Tensor, reduction: Reduction) -> Factors:
    rank = reduction.rank_for(s)
    root = s[:rank].sqrt()
    return Factors(
        down=(root[:, None] * vh[:rank]).float(),
        up=(u[:, :rank] * root).float(),
        energy=float(_cumulated(s)[rank - 1]),
    )


def _cumulated(singular_values: Tensor) -> Tensor:
    """Return the share of the energy in the first 1, 2, ... values; 1 where there is none."""
    sums = singular_values.square().cumsum(0)
    return sums / sums[-1] if sums[-1] > 0 else torch.ones_like(sums)
