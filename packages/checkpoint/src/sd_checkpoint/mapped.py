"""A file whose bytes are memory."""

import mmap
import os
import weakref
from pathlib import Path

from sd_checkpoint.errors import CheckpointError, first_line

__all__ = ["MappedFile", "require_file"]


_O_CLOEXEC, _O_BINARY = getattr(os, "O_CLOEXEC", 0), getattr(os, "O_BINARY", 0)  # Unix; Windows
_MAX_READ = 2**26  # bytes of one call


class MappedFile:
    """Map a file into private memory: what is written there never reaches the file.

    Memory that has not been written to is the file's own pages. Replacing the file (renaming
    another into its place, as `atomic_path` does) leaves them as they are; truncating it in place
    ends every process that then reads the lost part, as with any mapped file.
    """

    def __init__(self, path: Path) -> None:
        require_file(path)
        try:
            self.descriptor = os.open(path, os.O_RDONLY | _O_CLOEXEC | _O_BINARY)
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
        weakref.finalize(self, os.close, self.descriptor)
        self.path = path
        self.size = os.fstat(self.descriptor).st_size
        self._memory: mmap.mmap | None = None

    @property
    def memory(self) -> mmap.mmap:
        """The whole file as memory; raises `CheckpointError` when it cannot be mapped."""
        if self._memory is None:
            try:
                self._memory = mmap.mmap(self.descriptor, self.size, access=mmap.ACCESS_COPY)
            except (OSError, ValueError) as error:
                raise CheckpointError(
                    f"cannot read {self.path} ({first_line(error)}); it may have changed meanwhile"
                ) from error
        return self._memory

    def read(self, offset: int, length: int) -> bytes:
        """Return a copy of at most `length` bytes, by a read rather than through the memory."""
        try:
            return _read_at(self.descriptor, length, offset)
        except OSError as error:
            raise CheckpointError(f"cannot read {self.path}: {first_line(error)}") from error

    def copy(self, offset: int, length: int) -> bytearray:
        """Return a copy of `length` bytes; raises `CheckpointError` when there are not so many."""
        own = bytearray(length)
        rest = memoryview(own)
        while rest:
            piece = self.read(offset, min(len(rest), _MAX_READ))
            if not piece:
                raise CheckpointError(f"cannot read {self.path}: it has become shorter meanwhile")
            rest[: len(piece)] = piece
            rest, offset = rest[len(piece) :], offset + len(piece)
        return own

    def release(self) -> None:
        """Let go of the memory: its pages are given back as soon as the tensors in it are gone.

        What is read from now on lies in new memory that no earlier tensor shares.
        """
        self._memory = None


def _read_at(descriptor: int, length: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, length, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)  # Windows has no pread
    return os.read(descriptor, length)


def require_file(path: Path) -> None:
    """Raise `CheckpointError` unless `path` is a regular file."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, not a file; name a file in it")
    if not path.is_file():
        if path.exists():
            raise CheckpointError(f"{path} is no regular file; copy its content into one")
        raise CheckpointError(f"{path} does not exist; check the path")
