"""Mappings that make their tensors when they are asked for."""

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from sd_checkpoint.errors import CheckpointError, name_keys

__all__ = ["only", "release"]


def only(tensors: Mapping[str, Tensor], keys: Iterable[str]) -> Mapping[str, Tensor]:
    """View the tensors under `keys`, reading none; raises `CheckpointError` when one is not there.

    A dict made of a lazy mapping would hold every tensor at once, and `load_into` would have to
    copy them; this stays lazy.
    """
    wanted = tuple(keys)
    there = set(tensors)  # asking a mapping whether it has a key may read the tensor
    absent = [key for key in wanted if key not in there]
    if absent:
        raise CheckpointError(f"{len(absent)} keys are missing: {name_keys(absent)}")
    return _Only(tensors, wanted)


def release(tensors: Mapping[str, Tensor]) -> bool:
    """Let go of the memory behind a lazy mapping, if it has any: see `Checkpoint.release`.

    Returns whether every tensor read from now on is in memory that no one else holds.
    """
    method = getattr(tensors, "release", None)
    return bool(method()) if method is not None else False


class _Only(Mapping[str, Tensor]):
    """Some of the tensors of another mapping."""

    def __init__(self, tensors: Mapping[str, Tensor], keys: tuple[str, ...]) -> None:
        self._tensors = tensors
        self._keys = dict.fromkeys(keys)

    def release(self) -> bool:
        """See `release`."""
        return release(self._tensors)

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        return self._tensors[key]

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
