"""A file of tensors as a mapping that reads them when they are asked for."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from sd_checkpoint.entry import Entry
from sd_checkpoint.errors import CheckpointError, name_keys
from sd_checkpoint.kinds import PICKLE, ZIP, kind_of
from sd_checkpoint.mapped import MappedFile
from sd_checkpoint.pickles import PICKLE_SUFFIXES, read_entries, require_pickle
from sd_checkpoint.safetensors_header import read_header

__all__ = ["Checkpoint"]


class Checkpoint(Mapping[str, Tensor]):
    """Read the tensors of a file one by one, when they are asked for.

    They are views of the file's memory, private to this process: one that is written to changes
    here and never in the file. One key gives the same memory each time, until `release`.
    """

    def __init__(
        self, path: Path, entries: Mapping[str, Entry], metadata: Mapping[str, str]
    ) -> None:
        self.path = path
        self._entries = entries
        self._metadata = metadata

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Checkpoint":
        """Open `path`, reading no tensor: safetensors, or what `torch.save` wrote.

        The latter only under the names .ckpt, .pt, .pth and .bin; its structure is read in a child
        process, and nothing in it is run. A training checkpoint shows its `state_dict`.
        Raises `CheckpointError` when the file is broken, is something else than its name says, or
        asks for more than tensors and containers.
        """
        file = MappedFile(Path(path))
        if file.path.suffix.lower() in PICKLE_SUFFIXES:
            require_pickle(file)
            return cls(file.path, *read_entries(file))
        _require_no_pickle(file)
        return cls(file.path, *read_header(file))

    @property
    def metadata(self) -> dict[str, str]:
        """The header's text entries; of a pickle, the texts and numbers beside the tensors."""
        return dict(self._metadata)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Where each tensor lies."""
        return self._entries

    def under(self, prefix: str) -> "Checkpoint":
        """View the keys that begin with `prefix` ("first_stage_model."), without it.

        Raises `CheckpointError` when there are none.
        """
        entries = {
            key.removeprefix(prefix): entry
            for key, entry in self._entries.items()
            if key.startswith(prefix)
        }
        if not entries:
            raise CheckpointError(
                f"{self.path} has no keys under {prefix!r}; it holds {name_keys(self._entries)}"
            )
        return Checkpoint(self.path, entries, self._metadata)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return every tensor's shape without reading the tensors."""
        return {key: entry.shape for key, entry in self._entries.items()}

    def dtypes(self) -> dict[str, torch.dtype]:
        """Return every tensor's type without reading the tensors."""
        return {key: entry.dtype for key, entry in self._entries.items()}

    def release(self) -> bool:
        """Let go of the memory of the tensors read so far: it is freed when they are.

        Returns True: what is read from now on, no earlier reader has.
        """
        for file in {entry.file for entry in self._entries.values()}:
            file.release()
        return True

    def __getitem__(self, key: str) -> Tensor:
        return self._entries[key].read()

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _require_no_pickle(file: MappedFile) -> None:
    kind = kind_of(file.read(0, 512))
    if kind in (ZIP, PICKLE):
        names = ", ".join(PICKLE_SUFFIXES)
        raise CheckpointError(
            f"{file.path} is not a whole safetensors file ({kind}); if that is what you want, "
            f"give it one of the names {names}"
        )
    if kind is not None and not kind.startswith("a safetensors"):
        raise CheckpointError(f"{file.path} is not a whole safetensors file: it is {kind}")
