"""Where a tensor lies in a file."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sd_checkpoint.mapped import MappedFile

__all__ = ["Entry"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Say where a tensor lies; whoever makes one has checked that it lies within the file.

    `offset` counts bytes from the file's start, `strides` elements; None means contiguous.
    """

    file: MappedFile
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None = None

    def read(self) -> Tensor:
        """Return the tensor, a view of the file's memory wherever that can be."""
        length = self._num_elements()
        if not length:
            return torch.empty(self.shape, dtype=self.dtype)
        if self.dtype == torch.bool:
            # Any byte may stand in the file, and a bool that is neither 0 nor 1 is undefined.
            flat = self._flat(torch.uint8, length) != 0
        else:
            flat = self._flat(self.dtype, length)
        if self.strides is None:
            return flat.view(self.shape)
        return flat.as_strided(self.shape, self.strides)

    def _flat(self, dtype: torch.dtype, length: int) -> Tensor:
        if self.offset % dtype.itemsize:
            # Views must begin at a multiple of their element's size.
            own = self.file.copy(self.offset, length * dtype.itemsize)
            return torch.frombuffer(own, dtype=dtype, count=length)
        return torch.frombuffer(self.file.memory, dtype=dtype, count=length, offset=self.offset)

    def _num_elements(self) -> int:
        """Count the elements from the first to the last, those between strided ones included."""
        if 0 in self.shape:
            return 0
        if self.strides is None:
            return int(torch.Size(self.shape).numel())
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
