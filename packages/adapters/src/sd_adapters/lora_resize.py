"""A LoRA made smaller, and what of it is kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from sd_adapters.lora_parts import by_layer, low_rank, require_no_dora, without_mid
from sd_adapters.lora_svd import Reduction, factors_of_product


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """A LoRA of kohya's layout, and by layer the share (0 to 1) of its energy that was kept."""

    tensors: Mapping[str, Tensor]
    energies: Mapping[str, float]


def resize_lora(
    tensors: Mapping[str, Tensor],
    reduction: Reduction,
    on_item: Callable[[int], None] | None = None,
) -> Reduced:
    """Reduce each layer of a LoRA of kohya's layout to the nearest of a lower rank.

    A rank does not grow. Tensors are float32, and the scale is 1. ``on_item`` hears how many layers
    are done. Raises ``AdapterError`` listing the layers that are not low-rank, or are DoRAs.
    """
    layers = by_layer(tensors)
    require_no_dora(layers)
    resized: dict[str, Tensor] = {}
    energies: dict[str, float] = {}
    for done, (name, parts) in enumerate(layers.items(), start=1):
        down, up = without_mid(name, parts)
        found = factors_of_product(down.flatten(1), up.flatten(1), reduction)
        resized |= low_rank(
            name,
            found.down.reshape(-1, *down.shape[1:]),
            found.up.reshape(len(up), -1, *up.shape[2:]),
        )
        energies[name] = found.energy
        if on_item is not None:
            on_item(done)
    return Reduced(tensors=resized, energies=energies)
