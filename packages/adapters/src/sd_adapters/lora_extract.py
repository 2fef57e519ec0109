"""A LoRA out of two models: what training has added to the one that makes it the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from sd_adapters.adapter import AdapterError
from sd_adapters.lora_parts import low_rank
from sd_adapters.lora_svd import Reduction, factors_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """A LoRA of kohya's layout, what it keeps of each layer's change, and what it cannot hold.

    ``energies`` are shares (0 to 1) by layer; ``left_out`` are the keys of the model that changed
    and are no linear's or convolution's weight: norms, biases, embeddings.
    """

    tensors: Mapping[str, Tensor]
    energies: Mapping[str, float]
    left_out: tuple[str, ...]


def extract_lora(
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    keys: Mapping[str, str],
    reduction: Reduction,
    on_item: Callable[[int], None] | None = None,
) -> Extracted:
    """Approximate the difference of two models' weights, one state dict from the other.

    ``keys`` gives by flat name the keys of the layers' weights, as ``keys_by_name`` does; of these
    norms are left out. A layer that did not change is not in the result. ``on_item`` hears which
    of the ``len(before)`` tensors, from 1 on, it has come to. Raises
    ``AdapterError`` listing the keys that only one model has, or has in another shape, or when
    nothing changed.
    """
    strange = set(before) ^ set(after)
    strange |= {k for k in set(before) & set(after) if before[k].shape != after[k].shape}
    if strange:
        raise AdapterError("the two models are of different families", strange)
    names = {key: name for name, key in keys.items()}
    found: dict[str, Tensor] = {}
    energies: dict[str, float] = {}
    left_out = []
    for number, key in enumerate(before, start=1):
        if on_item is not None:
            on_item(number)
        change = after[key].double() - before[key].double()
        if not change.any():
            continue
        if key not in names or change.ndim < 2:
            left_out.append(key)
            continue
        factors = factors_of(change.flatten(1), reduction)
        ones = [1] * (change.ndim - 2)
        down = factors.down.reshape(-1, *change.shape[1:])
        found |= low_rank(names[key], down, factors.up.reshape(*factors.up.shape, *ones))
        energies[names[key]] = factors.energy
    if not found:
        raise AdapterError("no linear or convolution of the two models differs", left_out)
    return Extracted(tensors=found, energies=energies, left_out=tuple(left_out))
