"""A network whose weights become int8 while they are read, so that it is never there whole."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from sd_checkpoint import load_into, release
from sd_ops import hold_as_int8, int8_keys, quantized

_LARGE = 2**20  # bytes, from which on a tensor's memory is given back as soon as it is read


def fill_as_int8(
    network: nn.Module, tensors: Mapping[str, Tensor], what: str, dtype: torch.dtype
) -> None:
    """Fill a network of `skeleton()`, holding the weights of its layers as int8.

    All else becomes `dtype`, and so does a weight when it is used. Raises `CheckpointError` as
    `load_into`.
    """
    if set(network.state_dict()) != set(tensors):
        load_into(network, tensors, what=what)  # raises, with the names that the file has
    network.to(dtype)
    hold_as_int8(network)
    load_into(network, _Quantized(tensors, int8_keys(network)), what=what)


class _Quantized(Mapping[str, Tensor]):
    """View tensors with values and scales in place of some weights.

    Nothing that it gives lies in a file's pages: one bias would keep all of them in memory.
    """

    def __init__(self, tensors: Mapping[str, Tensor], keys: Mapping[str, tuple[str, str]]) -> None:
        self._tensors = tensors
        self._weights = {
            key: (weight, place) for weight, pair in keys.items() for place, key in enumerate(pair)
        }
        self._names = dict.fromkeys(name for key in tensors for name in keys.get(key, (key,)))
        self._last: tuple[str, tuple[Tensor, Tensor]] | None = None  # values, then its scales

    def release(self) -> bool:
        """See `sd_checkpoint.release`."""
        return release(self._tensors)

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._weights:
            return self._tensors[key].clone()
        weight, place = self._weights[key]
        if self._last is None or self._last[0] != weight:
            tensor = self._tensors[weight]
            self._last = weight, quantized(tensor)
            if tensor.nbytes >= _LARGE:
                release(self._tensors)
        return self._last[1][place]

    def __contains__(self, key: object) -> bool:
        return key in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
