"""What frozen encoders say of the data: computed once, kept in pieces on disk."""

import hashlib
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sd_checkpoint import Checkpoint, CheckpointError, save_safetensors
from sd_train.errors import TrainError
from sd_train.processes import first_goes_first

PIECE = 64
"""How many pictures or texts a piece is of: what a process that is killed may lose."""
_HEADER = 1024  # bytes of a file beside its tensors, or fewer
_ABANDONED = 3600.0  # seconds after which nobody is writing a temporary file any more


@dataclass(slots=True)
class ToEncode:
    """What is not in a cache yet: the seconds that it takes to make, and bytes."""

    seconds: float = 0.0
    num_bytes: int = 0


_to_encode: ContextVar[ToEncode | None] = ContextVar("to_encode", default=None)


@contextmanager
def first_for_all() -> Iterator[ToEncode]:
    """Let caches make one piece where many are missing, and put it in the place of all of them.

    For those who want a run's modules and shapes but learn nothing. What the others would cost is
    counted, as if each took as long as the first; none is written.
    """
    found = ToEncode()
    token = _to_encode.set(found)
    try:
        yield found
    finally:
        _to_encode.reset(token)


class Rows:
    """Rows of tensors (n, ...) one after another; those in files are read as they are wanted."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        self._places = [
            (each, row) for each in range(len(tensors)) for row in range(len(tensors[each]))
        ]

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._places)

    def __getitem__(self, rows: Sequence[int] | Tensor) -> Tensor:
        """Gather rows (B, ...)."""
        # Not stacked: autocast to bfloat16 knows no way to put float16 together.
        found = self._tensors[0].new_empty((len(rows), *self._tensors[0].shape[1:]))
        for place, wanted in enumerate(rows):
            each, row = self._places[int(wanted)]
            found[place] = self._tensors[each][row]
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """Tensors in a folder, a file for each hash of all that they depend on, up to `limit` bytes.

    What has not been used for longest makes room. Without a folder nothing is kept.
    """

    folder: Path | None = None
    limit: int = 0
    tell: Callable[[str], None] = print

    def rows(
        self, name: str, keys: Sequence[str], compute: Callable[[int], dict[str, Tensor]]
    ) -> dict[str, Tensor | Rows]:
        """Return the rows of what `compute` gives for the number of each key, by their names.

        Whatever is there whole is read: what a killed process had finished, and what others make at
        the same time, for files are written whole or not at all. Damaged ones are told and made
        anew. Raises TrainError where limit or disk are too small, before the second piece is made.
        """
        pieces: Sequence[Mapping[str, Tensor]]
        if (to_encode := _to_encode.get()) is not None:
            pieces = self._first_for_all(to_encode, name, keys, compute)
        elif self.folder is None:
            pieces = [compute(number) for number in range(len(keys))]
        else:
            with first_goes_first():
                pieces = self._pieces(self.folder, name, keys, compute)
        columns = {column: [piece[column] for piece in pieces] for column in pieces[0]}
        return {
            column: each[0] if len(each) == 1 else Rows(each) for column, each in columns.items()
        }

    def _first_for_all(
        self,
        to_encode: ToEncode,
        name: str,
        keys: Sequence[str],
        compute: Callable[[int], dict[str, Tensor]],
    ) -> Sequence[Mapping[str, Tensor]]:
        # The last piece may be shorter; that a repeated one has rows too many hurts nobody.
        files = [] if self.folder is None else _files(self.folder, name, keys)
        missing = sum(not path.is_file() for path, _ in files) if files else len(keys)
        if not missing and (there := self._read(*files[0])) is not None:
            return [there] * len(keys)
        began = time.perf_counter()
        first = compute(0)
        to_encode.seconds += (time.perf_counter() - began) * missing
        size = sum(tensor.nbytes for tensor in first.values())
        to_encode.num_bytes += size * missing
        if self.folder is not None and size * len(keys) > self.limit:
            raise self._too_large(name, size * len(keys))
        return [first] * len(keys)

    def _pieces(
        self,
        folder: Path,
        name: str,
        keys: Sequence[str],
        compute: Callable[[int], dict[str, Tensor]],
    ) -> list[Mapping[str, Tensor]]:
        paths, hashes = zip(*_files(folder, name, keys), strict=True)
        pieces = [self._read(path, each) for path, each in zip(paths, hashes, strict=True)]
        missing = [number for number, piece in enumerate(pieces) if piece is None]
        there = sum(path.stat().st_size for path in paths if path.is_file())
        if there > self.limit:
            raise self._too_large(name, there)
        for number in missing:
            tensors = compute(number)
            size = sum(tensor.nbytes for tensor in tensors.values())
            if number == missing[0]:
                self._require_room(folder, name, size * len(keys), size * len(missing))
            self._make_room(folder, size + _HEADER, keep=set(paths))
            texts = {"key": hashes[number], "crc32": _checksum(tensors)}
            save_safetensors(paths[number], tensors, texts)
            pieces[number] = Checkpoint.open(paths[number])
        return [piece for piece in pieces if piece is not None]

    def _read(self, path: Path, key: str) -> Mapping[str, Tensor] | None:
        """Open a file if it is there and whole, and note that it was used."""
        if not path.is_file():
            return None
        try:
            found = Checkpoint.open(path)
            told = found.metadata
            if (told.get("key"), told.get("crc32")) == (key, _checksum(found)):
                os.utime(path)
                return found
        except (CheckpointError, OSError):
            pass  # damaged, or another process has just made room
        self.tell(f"{path} is damaged; what it held is made anew")
        return None

    def _too_large(self, name: str, size: int) -> TrainError:
        return TrainError(
            f"the cache of {name} takes about {_told(size)}, and data.cache_gb allows "
            f"{_told(self.limit)}; raise it"
        )

    def _require_room(self, folder: Path, name: str, whole: int, missing: int) -> None:
        if whole > self.limit:
            raise self._too_large(name, whole)
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if missing > free:
            raise TrainError(
                f"the cache of {name} takes about {_told(missing)} more, and {folder} has "
                f"{_told(free)} free; make room or choose another folder"
            )

    def _make_room(self, folder: Path, size: int, *, keep: set[Path]) -> None:
        """Remove what killed processes left behind, and what was used longest ago, as need be."""
        found: list[tuple[float, int, Path]] = []
        for path in folder.iterdir():
            try:
                status = path.stat()
                if path.name.startswith(".tmp-"):
                    if time.time() - status.st_mtime > _ABANDONED:
                        path.unlink()
                elif path.suffix == ".safetensors":
                    found.append((status.st_mtime, status.st_size, path))
            except FileNotFoundError:  # another process was faster
                continue
        held = size + sum(each for _, each, _ in found)
        for _, each, path in sorted(found):
            if held <= self.limit:
                break
            if path not in keep:
                path.unlink(missing_ok=True)
                held -= each


def _files(folder: Path, name: str, keys: Sequence[str]) -> list[tuple[Path, str]]:
    """Return each key's file and the hash that it has to hold."""
    hashes = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
    return [(folder / f"{name}-{each[:20]}.safetensors", each) for each in hashes]


def module_fingerprint(module: nn.Module) -> str:
    """Hash a module's state: names, shapes, dtypes and values."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name}/{tuple(plain.shape)}/{plain.dtype}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    found = 0
    for name in sorted(tensors):
        plain = tensors[name].detach().cpu().contiguous()
        found = zlib.crc32(plain.flatten().view(torch.uint8).numpy().data, found)
    return f"{found:08x}"


def _told(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.3g} GB"
