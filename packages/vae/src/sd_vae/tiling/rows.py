"""Activations that are computed when asked for, a band of rows at a time, exactly.

They nest: a `Convolved` of a `Normed` of what is kept reads, norms and convolves one band. Each
also says how many values are alive while it does so, from which the height of the bands follows.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_vae.blocks import Downsample
from sd_vae.tiling.moments import Moments
from sd_vae.tiling.stores import Shape, Store

__all__ = [
    "Convolved",
    "Doubled",
    "Given",
    "Halved",
    "Kept",
    "Normed",
    "Rows",
    "Sum",
    "input_copies",
    "row_values",
]


class Rows(Protocol):
    """An activation of `shape` (B, C, H, W), of which bands of rows can be had."""

    @property
    def shape(self) -> Shape:
        """The shape of the whole."""
        ...

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows (B, C, stop - start, W), which may be overwritten, good until the next."""
        ...

    def values_for(self, num_rows: int) -> int:
        """Return how many values are alive at most while so many rows are read."""
        ...


def row_values(rows: Rows) -> int:
    """Return the values of one row of all channels and pictures."""
    batch, channels, _, width = rows.shape
    return batch * channels * width


class Given:
    """The input (B, C, H, W), brought to a layer's device and type a band at a time."""

    def __init__(self, whole: Tensor, like: Tensor) -> None:
        batch, channels, height, width = whole.shape
        self.shape = (batch, channels, height, width)
        self._whole, self._like = whole, like

    def read(self, start: int, stop: int) -> Tensor:
        """Copy rows out of the input."""
        rows = self._whole[:, :, start:stop].to(self._like)
        return rows.clone(memory_format=torch.channels_last)

    def values_for(self, num_rows: int) -> int:
        """Count the copy, and the rows before it."""
        return 2 * num_rows * row_values(self)


class Kept:
    """An activation that a store keeps whole, with the moments of its channels."""

    def __init__(self, shape: Shape, store: Store) -> None:
        self.shape = shape
        self.store = store
        self.moments = Moments()

    def append(self, start: int, rows: Tensor) -> None:
        """Store rows, and take them into the moments."""
        self.moments.add(rows)
        self.store.write(start, rows)

    def read(self, start: int, stop: int) -> Tensor:
        """Read rows out of the store."""
        return self.store.read(start, stop)

    def values_for(self, num_rows: int) -> int:
        """Count the rows read."""
        return num_rows * row_values(self)


class Normed:
    """A group norm by the moments of the whole, and SiLU unless told otherwise."""

    def __init__(self, norm: nn.GroupNorm, source: Kept, *, activate: bool = True) -> None:
        self.shape = source.shape
        self._norm, self._source, self._activate = norm, source, activate

    def read(self, start: int, stop: int) -> Tensor:
        """Norm rows in place."""
        rows = self._source.read(start, stop)
        scale, shift = self._source.moments.scale_and_shift(self._norm)
        wide = rows.to(scale.dtype)
        normed = torch.addcmul(shift, wide, scale, out=wide).to(rows.dtype)
        return F.silu(normed, inplace=True) if self._activate else normed

    def values_for(self, num_rows: int) -> int:
        """Count the rows; half-precision ones are normed in float32, twice their size."""
        copies = 1 if self._norm.weight.dtype.itemsize > 2 else 4
        return copies * self._source.values_for(num_rows)


class Convolved:
    """A convolution of stride 1 that keeps height and width.

    It is called as a module, so that hooks on it work, on rows that reach half a kernel further
    than those asked for. What it takes for padding above and below is right at the picture's
    edges, and elsewhere only spoils the rows that are cut off again. Where it pads from the other
    side of the picture, the rows beyond an edge are those of the other side.
    """

    def __init__(self, conv: nn.Conv2d, source: Rows) -> None:
        batch, _, height, width = source.shape
        self.shape = (batch, conv.out_channels, height, width)
        self._conv, self._source = conv, source
        self._halo = conv.kernel_size[0] // 2
        self._wraps = _wraps(conv)

    def read(self, start: int, stop: int) -> Tensor:
        """Convolve rows and their neighbours."""
        first, last = start - self._halo, stop + self._halo
        if not self._wraps:
            first, last = max(first, 0), min(last, self.shape[2])
        rows: Tensor = self._conv(self._around(first, last))
        return rows[:, :, start - first : stop - first]

    def _around(self, first: int, last: int) -> Tensor:
        """Read rows, of which those above 0 and below the height are of the other side."""
        height = self.shape[2]
        if first >= 0 and last <= height:
            return self._source.read(first, last)
        parts = ((height + first, height), (max(first, 0), min(last, height)), (0, last - height))
        # A source's rows are good until its next ones only.
        read = [self._source.read(*part).clone() for part in parts if 0 <= part[0] < part[1]]
        return torch.cat(read, dim=2)

    def values_for(self, num_rows: int) -> int:
        """Count rows going in and out, and what is copied of them."""
        reached = num_rows + 2 * self._halo
        if not self._wraps:
            reached = min(reached, self.shape[2])
        copies = input_copies(self._conv) + (2 if self._wraps else 0)
        values = copies * row_values(self._source) + 2 * row_values(self)
        return self._source.values_for(reached) + reached * values


class Doubled:
    """Twice the height and width by repeating pixels."""

    def __init__(self, source: Rows) -> None:
        batch, channels, height, width = source.shape
        self.shape = (batch, channels, 2 * height, 2 * width)
        self._source = source

    def read(self, start: int, stop: int) -> Tensor:
        """Repeat the rows that these come from."""
        first = start // 2
        rows = self._source.read(first, (stop + 1) // 2)
        doubled = F.interpolate(rows, scale_factor=2.0, mode="nearest")
        return doubled[:, :, start - 2 * first : stop - 2 * first]

    def values_for(self, num_rows: int) -> int:
        """Count rows before and after; a band may begin and end in the middle of a pair."""
        num_sources = min(num_rows // 2 + 1, self.shape[2] // 2)
        return self._source.values_for(num_sources) + 2 * num_sources * row_values(self)


class Halved:
    """Half the height and width by the encoder's convolution of stride 2."""

    def __init__(self, layer: Downsample, source: Rows) -> None:
        batch, _, height, width = source.shape
        self.shape = (batch, layer.conv.out_channels, height // 2, width // 2)
        self._conv, self._source = layer.conv, source

    def read(self, start: int, stop: int) -> Tensor:
        """Convolve two rows for each, and one more below, which is padding at the very bottom."""
        height = self._source.shape[2]
        last = min(2 * stop + 1, height)
        rows = self._source.read(2 * start, last)
        out: Tensor = self._conv(F.pad(rows, (0, 1, 0, 2 * stop + 1 - last)))
        return out

    def values_for(self, num_rows: int) -> int:
        """Count rows going in, padded and copied, and rows going out."""
        reached = 2 * num_rows + 1
        source = self._source.values_for(min(reached, self._source.shape[2]))
        copied = (1 + input_copies(self._conv)) * reached * row_values(self._source)
        return source + copied + 2 * num_rows * row_values(self)


class Sum:
    """The sum of two activations of one shape."""

    def __init__(self, first: Rows, second: Rows) -> None:
        self.shape = first.shape
        self._first, self._second = first, second

    def read(self, start: int, stop: int) -> Tensor:
        """Add rows to rows in place."""
        return self._first.read(start, stop).add_(self._second.read(start, stop))

    def values_for(self, num_rows: int) -> int:
        """Count both."""
        return self._first.values_for(num_rows) + self._second.values_for(num_rows)


def input_copies(conv: nn.Conv2d) -> int:
    """Return how often a convolution may copy its input.

    On the CPU the types that oneDNN does not take are unfolded, a column for each kernel element.
    A fast path pads a copy, and has its tiles' results beside the picture's.
    """
    weight = conv.weight
    if weight.device.type == "cpu" and weight.dtype in (torch.float16, torch.float64):
        return weight.shape[2] * weight.shape[3]
    return 2 if getattr(conv, "fast", False) else 1


def _wraps(conv: nn.Conv2d) -> bool:
    """Tell whether a convolution pads the picture's top from its bottom, as for seamless pictures.

    Hooks may do so as well; so one that does not pad with zeros itself is asked to show it.
    """
    if conv.kernel_size[0] == 1 or (conv.padding != (0, 0) and conv.padding_mode == "zeros"):
        return False
    probe = conv.weight.new_zeros(1, conv.in_channels, 3, 3)
    probe[:, :, 2] = torch.nan
    return bool(conv(probe)[:, :, 0].isnan().any())
