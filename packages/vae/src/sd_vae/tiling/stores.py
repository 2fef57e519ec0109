"""Where activations are kept whole between two layers: in memory, or in a file without a name."""

import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from sd_vae.config import VAEError
from sd_vae.tiling.budget import MemoryBudget

__all__ = ["FileStore", "MemoryStore", "Shape", "Store", "Storeroom"]

Shape = tuple[int, int, int, int]


class Store(Protocol):
    """Keep one activation (B, C, H, W), written and read in bands of rows."""

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows (B, C, stop - start, W) that may be overwritten, good until the next call."""
        ...

    def write(self, start: int, rows: Tensor) -> None:
        """Keep rows (B, C, n, W) from row `start` on."""
        ...

    def close(self) -> None:
        """Let go of the memory or the file."""
        ...


class MemoryStore:
    """Keep an activation in the memory of `device`, for bands at work on `home`."""

    def __init__(self, shape: Shape, device: torch.device, home: torch.device) -> None:
        self._shape, self._device, self._home = shape, device, home
        self._kept: Tensor | None = None

    def read(self, start: int, stop: int) -> Tensor:
        """Copy rows out, in channels_last."""
        assert self._kept is not None
        rows = self._kept[:, :, start:stop].clone(memory_format=torch.channels_last)
        return rows.to(self._home)

    def write(self, start: int, rows: Tensor) -> None:
        """Copy rows in."""
        if self._kept is None:
            self._kept = torch.empty(
                self._shape,
                dtype=rows.dtype,
                device=self._device,
                memory_format=torch.channels_last,
            )
        self._kept[:, :, start : start + rows.shape[2]].copy_(rows)

    def close(self) -> None:
        """Free the memory."""
        self._kept = None


class FileStore:
    """Keep an activation in a file of `folder`, in the order B, H, W, C, so that a band is one run.

    The file has no name from the start, so that nothing stays of it however the process ends. Rows
    are read and written rather than mapped: mapped pages would count as memory of the process.
    Raises `VAEError` when the disk does not take them.
    """

    def __init__(self, shape: Shape, folder: Path, home: torch.device) -> None:
        self._shape, self._folder, self._home = shape, folder, home
        self._file: FileIO | None = None
        self._buffer = bytearray()
        self._dtype = torch.float32

    def read(self, start: int, stop: int) -> Tensor:
        """Read rows into the buffer; they are its own memory, in channels_last."""
        assert self._file is not None
        rows = self._rows(stop - start)
        for part in self._parts(self._file, start, stop - start):
            while part:
                num_bytes = self._file.readinto(part)
                assert num_bytes, "these rows were never written"
                part = part[num_bytes:]
        return rows.to(self._home)

    def write(self, start: int, rows: Tensor) -> None:
        """Write rows through the buffer."""
        try:
            if self._file is None:
                self._dtype = rows.dtype
                # It outlives this call: `close` closes it.
                self._file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115
            self._rows(rows.shape[2]).copy_(rows)
            for part in self._parts(self._file, start, rows.shape[2]):
                while part:
                    part = part[self._file.write(part) :]
        except OSError as error:
            raise VAEError(
                f"{math.prod(self._shape) * rows.dtype.itemsize:,} bytes do not go into a temporary"
                f" file in {self._folder}: {error.strerror}; free some disk, choose another "
                "folder, or raise the budget's memory"
            ) from error

    def close(self) -> None:
        """Close the file, which is the end of it."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self._buffer = bytearray()

    def _parts(self, file: FileIO, start: int, num_rows: int) -> Iterator[memoryview]:
        """Go to each picture's rows in the file, and yield the buffer's bytes for them."""
        batch, channels, height, width = self._shape
        row_bytes = width * channels * self._dtype.itemsize
        for picture in range(batch):
            file.seek((picture * height + start) * row_bytes)
            part = slice(picture * num_rows * row_bytes, (picture + 1) * num_rows * row_bytes)
            yield memoryview(self._buffer)[part]

    def _rows(self, num_rows: int) -> Tensor:
        """View the buffer as rows (B, C, n, W), after fitting its size."""
        batch, channels, _, width = self._shape
        count = batch * num_rows * width * channels
        num_bytes = count * self._dtype.itemsize
        # Touching fresh memory costs time, so bands share a buffer; but a far larger one is of
        # another layer, and memory that this layer's bands count upon.
        if not num_bytes <= len(self._buffer) <= num_bytes * 5 // 4:
            self._buffer = bytearray()
            self._buffer = bytearray(num_bytes)
        flat = torch.frombuffer(self._buffer, dtype=self._dtype, count=count)
        return rearrange(flat, "(b h w c) -> b c h w", b=batch, h=num_rows, w=width)


class Storeroom:
    """Give every activation a place within the budget, and at the end close what is left."""

    def __init__(self, budget: MemoryBudget, home: torch.device, dtype: torch.dtype) -> None:
        self._folder, self._home, self._itemsize = budget.temporary_folder, home, dtype.itemsize
        host_memory = 0 if home.type == "cpu" else budget.host_memory
        self._limits = {
            "device": budget.memory - budget.bands,
            "host": host_memory,
            "disk": math.inf,
        }
        self._used: Counter[str] = Counter()
        self._kept: dict[Store, tuple[str, int]] = {}
        self.most_on_disk = 0

    def place(self, shape: Shape) -> Store:
        """Return a store for an activation (B, C, H, W), empty until it is written."""
        num_bytes = math.prod(shape) * self._itemsize
        name = next(n for n, limit in self._limits.items() if self._used[n] + num_bytes <= limit)
        store: Store
        if name == "disk":
            store = FileStore(shape, self._folder, self._home)
        else:
            device = self._home if name == "device" else torch.device("cpu")
            store = MemoryStore(shape, device, self._home)
        self._kept[store] = (name, num_bytes)
        self._used[name] += num_bytes
        self.most_on_disk = max(self.most_on_disk, self._used["disk"])
        return store

    def release(self, store: Store) -> None:
        """Close a store and free its place."""
        name, num_bytes = self._kept.pop(store)
        self._used[name] -= num_bytes
        store.close()

    def __enter__(self) -> "Storeroom":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for store in list(self._kept):
            self.release(store)
