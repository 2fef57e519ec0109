"""The bands of an activation: how high they are, and what it takes to keep all of it."""

import math
from bisect import bisect_right
from collections.abc import Iterator

import torch

from sd_vae.tiling.budget import MemoryBudget
from sd_vae.tiling.rows import Kept, Rows, row_values
from sd_vae.tiling.stores import Storeroom

__all__ = ["Plan", "Workspace"]


class Workspace:
    """Compute activations band by band, and keep them in a storeroom."""

    def __init__(self, storeroom: Storeroom, budget: MemoryBudget, dtype: torch.dtype) -> None:
        self.band_values = budget.bands // dtype.itemsize
        self._storeroom = storeroom

    def keep(self, rows: Rows) -> Kept:
        """Compute all rows; each is computed once."""
        kept = Kept(rows.shape, self._storeroom.place(rows.shape))
        for start, stop in self.bands(rows):
            kept.append(start, rows.read(start, stop))
        return kept

    def release(self, kept: Kept) -> None:
        """Let go of an activation."""
        self._storeroom.release(kept.store)

    def bands(self, rows: Rows) -> Iterator[tuple[int, int]]:
        """Yield first and last row + 1 of as few bands as fit, of equal height but for one row."""
        height = rows.shape[2]
        heights = range(1, height + 1)
        highest = bisect_right(heights, self.band_values, key=lambda num: _values_for(rows, num))
        assert highest, "the plan found that a row fits"
        count = math.ceil(height / highest)
        for band in range(count):
            yield band * height // count, (band + 1) * height // count


class Plan:
    """Walk through a network without computing, to learn what it will take."""

    def __init__(self, storeroom: Storeroom, budget: MemoryBudget, dtype: torch.dtype) -> None:
        self.band_values = budget.bands // dtype.itemsize
        self.largest_activation = 0
        self.largest_row = 0
        self._storeroom = storeroom

    def keep(self, rows: Rows) -> Kept:
        """Take note of an activation and give it its place, which stays empty."""
        self.note(rows)
        return Kept(rows.shape, self._storeroom.place(rows.shape))

    def release(self, kept: Kept) -> None:
        """Take note that a place is free."""
        self._storeroom.release(kept.store)

    def note(self, rows: Rows) -> None:
        """Take note of the values of an activation, and of those that its lowest band takes."""
        self.largest_activation = max(self.largest_activation, math.prod(rows.shape))
        self.largest_row = max(self.largest_row, _values_for(rows, 1))


def _values_for(rows: Rows, num_rows: int) -> int:
    """Count what is alive while rows are computed and then written through a buffer."""
    return rows.values_for(num_rows) + num_rows * row_values(rows)
