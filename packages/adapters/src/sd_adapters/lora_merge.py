"""Several LoRAs made one that adds exactly what they add together."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sd_adapters.adapter import AdapterError
from sd_adapters.lora_parts import by_layer, low_rank, require_no_dora, without_mid


def merge_loras(loras: Sequence[tuple[Mapping[str, Tensor], float]]) -> dict[str, Tensor]:
    """Merge LoRAs of kohya's layout, each with its strength, into one of their ranks' sum.

    Nothing is lost: [B1 B2] [A1; A2] is B1 A1 + B2 A2. ``resize_lora`` makes the result smaller.
    Tensors are float32, and the scale is 1. Raises ``AdapterError`` listing the layers that are
    not low-rank, are DoRAs, or have different shapes in different files.
    """
    downs: dict[str, list[Tensor]] = {}
    ups: dict[str, list[Tensor]] = {}
    for tensors, strength in loras:
        layers = by_layer(tensors)
        require_no_dora(layers)
        for name, parts in layers.items():
            down, up = without_mid(name, parts)
            downs.setdefault(name, []).append(down)
            ups.setdefault(name, []).append(up * strength)
    unequal = [name for name in downs if not _alike(downs[name], ups[name])]
    if unequal:
        raise AdapterError("the LoRAs were made for models of different shapes", unequal)
    merged: dict[str, Tensor] = {}
    for name in downs:
        # One file may keep as a linear's what another keeps as a 1 x 1 convolution's.
        inputs, kernel = downs[name][0].shape[1:], ups[name][0].shape[2:]
        down = torch.cat([each.reshape(len(each), *inputs) for each in downs[name]])
        up = torch.cat([each.reshape(*each.shape[:2], *kernel) for each in ups[name]], dim=1)
        merged |= low_rank(name, down, up)
    return merged


def _alike(downs: Sequence[Tensor], ups: Sequence[Tensor]) -> bool:
    """Tell whether all take as many numbers, and give as many."""
    return len({d.shape[1:].numel() for d in downs}) == 1 == len({len(up) for up in ups})
