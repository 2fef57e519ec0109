"""The tensors of a LoRA file, layer by layer, without a model."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from sd_adapters.adapter import AdapterError

_DOWN, _UP, _MID, _ALPHA = "lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha"
_DORA = "dora_scale"


def by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group the tensors of kohya's layout by layer: flat name, then part ("lora_up.weight").

    Raises ``AdapterError`` listing the alphas that are not one number.
    """
    layers: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    odd = []
    for key in tensors:
        name, _, part = key.partition(".")
        layers[name][part] = tensors[key]
        if part == _ALPHA and tensors[key].numel() != 1:
            odd.append(key)
    if odd:
        raise AdapterError("an alpha must be one number", odd)
    return dict(layers)


def without_mid(name: str, parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return A and B of a low-rank layer whose product is the whole addition, scale and all.

    A is (r, in, ...), B (out, r, ...), of the same number of axes, in float32. Tucker's kernel goes
    into A, and alpha / rank into B. Raises ``AdapterError`` listing the keys unless the layer is
    low-rank and its shapes agree; a ``dora_scale`` beside it is the caller's affair.
    """
    keys = [f"{name}.{part}" for part in parts]
    if parts.keys() - {_MID, _ALPHA, _DORA} != {_DOWN, _UP}:
        raise AdapterError("this works with low-rank layers only", keys)
    down, up = parts[_DOWN].float(), parts[_UP].float()
    if min(down.ndim, up.ndim) < 2 or up.shape[1] != len(down) or len(down) == 0:
        raise AdapterError("the two factors have no rank in common", keys)
    rank = len(down)
    alpha = float(parts[_ALPHA]) if _ALPHA in parts else float(rank)
    if _MID in parts:
        if parts[_MID].shape[:2] != (rank, rank):
            raise AdapterError("the kernel between the factors is not of their rank", keys)
        down = torch.einsum("ij...,jc->ic...", parts[_MID].float(), down.flatten(1))
    return down, up * (alpha / rank)


def require_no_dora(layers: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raise ``AdapterError`` listing the DoRAs: what they add depends on the model's weights."""
    doras = [f"{name}.{_DORA}" for name, parts in layers.items() if _DORA in parts]
    if doras:
        raise AdapterError(
            "a DoRA's addition depends on the model's weights; fuse it into the model", doras
        )


def low_rank(name: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    """Return a layer of kohya's layout whose scale is 1: alpha is the rank."""
    return {
        f"{name}.{_DOWN}": down.contiguous(),
        f"{name}.{_UP}": up.contiguous(),
        f"{name}.{_ALPHA}": torch.tensor(float(down.shape[0])),
    }
