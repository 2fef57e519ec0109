"""LoRA files in kohya's layout: one safetensors file for one or more models."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from sd_adapters.adapter import AdapterError
from sd_adapters.lora import Lora, LoraLayer
from sd_adapters.targets import Target, targets_by_name
from sd_checkpoint import Checkpoint, load_into, save_safetensors

_DOWN, _UP, _ALPHA = "lora_down.weight", "lora_up.weight", "alpha"


def save_loras(
    path: str | os.PathLike[str],
    loras: Iterable[Lora],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write LoRAs of different models, told apart by their prefixes, into one file.

    The header says rank and alpha as ``ss_network_dim`` and ``ss_network_alpha``; ``metadata``
    adds to it.
    """
    tensors: dict[str, Tensor] = {}
    for lora in loras:
        assert not tensors.keys() & lora.state_dict().keys(), lora.prefix
        tensors |= lora.state_dict()
    ranks = {t.shape[0] for key, t in tensors.items() if key.endswith(_DOWN)}
    alphas = {float(t) for key, t in tensors.items() if key.endswith(_ALPHA)}
    header = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": _one(ranks),
        "ss_network_alpha": _one(alphas),
    }
    save_safetensors(path, tensors, {**header, **(metadata or {})})


def load_loras(path: str | os.PathLike[str], models: Mapping[str, nn.Module]) -> dict[str, Lora]:
    """Read a file's LoRAs for models under their prefixes, as float32 and not yet injected.

    ``models`` is for instance ``{"lora_unet": unet, "lora_te_text_model": text_model}``; the result
    has the prefixes for which the file holds anything. An absent alpha means the rank.
    Raises ``AdapterError`` listing every key that fits none of the models, by name or shape: a
    file is loaded whole or not at all.
    """
    tensors = dict(Checkpoint.open(path))
    owners = {
        name: (prefix, target)
        for prefix, model in models.items()
        for name, target in targets_by_name(model, prefix).items()
    }
    parts = _by_layer(tensors, owners)
    layers: defaultdict[str, dict[str, LoraLayer]] = defaultdict(dict)
    unfit: list[str] = []
    for name, found in parts.items():
        prefix, target = owners[name]
        layer = _layer(target, found)
        if layer is None:
            unfit += [f"{name}.{part}" for part in found]
        else:
            layers[prefix][name] = layer
    if unfit:
        raise AdapterError(f"{len(unfit)} keys of {path} have another shape than the model", unfit)
    return {prefix: _filled(prefix, found, parts) for prefix, found in layers.items()}


def _one(values: Iterable[float]) -> str:
    """Say the number that holds for every layer, or that there is none."""
    values = list(values)
    return f"{values[0]:g}" if len(values) == 1 else "Dynamic"


def _by_layer(
    tensors: Mapping[str, Tensor], owners: Mapping[str, tuple[str, Target]]
) -> dict[str, dict[str, Tensor]]:
    """Group tensors by the layer they belong to; refuse keys without a target or without a twin."""
    parts: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        name, _, part = key.partition(".")
        parts[name][part] = tensor
    unmatched = [
        f"{name}.{part}"
        for name, found in parts.items()
        for part in found
        if name not in owners
        or part not in (_DOWN, _UP, _ALPHA)
        or not found.keys() >= {_DOWN, _UP}
    ]
    if unmatched or not parts:
        raise AdapterError(
            f"{len(unmatched)} of {len(tensors)} keys are no LoRA's of the models given", unmatched
        )
    return dict(parts)


def _layer(target: Target, parts: Mapping[str, Tensor]) -> LoraLayer | None:
    """Return an empty layer for the tensors, or nothing if their shapes are not the target's."""
    rank = parts[_DOWN].shape[0]
    with torch.device("meta"):
        layer = LoraLayer(target, rank, alpha=float(rank))
    own = layer.state_dict()
    fits = all(tensor.shape == own[part].shape for part, tensor in parts.items() if part != _ALPHA)
    return layer if fits else None


def _filled(
    prefix: str, layers: Mapping[str, LoraLayer], parts: Mapping[str, Mapping[str, Tensor]]
) -> Lora:
    lora = Lora(prefix, layers)
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        alpha = parts[name].get(_ALPHA, torch.tensor(float(layer.rank)))
        for part, tensor in {**parts[name], _ALPHA: alpha.reshape(())}.items():
            tensors[f"{name}.{part}"] = tensor
    load_into(lora, tensors, what=f"the LoRA under {prefix}")
    return lora
