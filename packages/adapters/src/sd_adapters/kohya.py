"""LoRA files for one or more models: kohya's layout, and diffusers' beside it."""

import os
import re
from collections.abc import Iterable, Mapping, Set

import torch
from torch import Tensor, nn

from sd_adapters.adapter import AdapterError
from sd_adapters.diffusers_layout import (
    from_diffusers,
    is_diffusers,
    kohya_keys,
    to_diffusers,
)
from sd_adapters.layer import WeightLayer
from sd_adapters.lora import Lora
from sd_adapters.lora_kinds import DORA, empty_layer, fitted, kind_of, rank_of, unused_parts
from sd_adapters.lora_parts import by_layer
from sd_adapters.peft_config import with_config_beside
from sd_adapters.targets import Norm, Target, paths_by_name, targets_by_name, with_text_model
from sd_checkpoint import Checkpoint, load_into, save_safetensors

_Owners = Mapping[str, tuple[str, Target | Norm]]
_COMPONENTS = {
    "lora_unet": "unet",
    "lora_te": "text_encoder",
    "lora_te1": "text_encoder",
    "lora_te2": "text_encoder_2",
}


def save_loras(
    path: str | os.PathLike[str],
    loras: Iterable[Lora],
    metadata: Mapping[str, str] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> None:
    """Write LoRAs of different models, told apart by their prefixes, into one file.

    The layout is kohya's, and LyCORIS' for its kinds. The header says rank and alpha as
    ``ss_network_dim`` and ``ss_network_alpha``; ``metadata`` adds to it. Layers with an alias, as
    in ``load_loras``, are written under it.
    """
    tensors = _renamed(_together(loras), {name: alias for alias, name in (aliases or {}).items()})
    layers = by_layer(tensors)
    ranks = {rank for parts in layers.values() if (rank := rank_of(parts)) is not None}
    alphas = {float(parts["alpha"]) for parts in layers.values() if "alpha" in parts}
    is_plain = all(kind_of(parts) == "lora" and DORA not in parts for parts in layers.values())
    header = {
        "ss_network_module": "networks.lora" if is_plain else "lycoris.kohya",
        "ss_network_dim": _one(ranks),
        "ss_network_alpha": _one(alphas),
    }
    save_safetensors(path, tensors, {**header, **(metadata or {})})


def save_diffusers_loras(
    path: str | os.PathLike[str],
    loras: Iterable[Lora],
    models: Mapping[str, nn.Module],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write LoRAs into one file of PEFT's layout, ``unet.<path>.lora_A.weight``, for diffusers.

    ``models`` are those of ``load_loras``, whose prefixes begin with ``lora_unet`` or ``lora_te``.
    Scales go into the weights. Raises ``AdapterError`` listing the layers that are not low-rank.
    """
    paths = {
        name: dotted
        for prefix, model in models.items()
        for name, dotted in dotted_paths(model, prefix).items()
    }
    save_safetensors(path, to_diffusers(_together(loras), paths), metadata)


def dotted_paths(model: nn.Module, prefix: str) -> dict[str, str]:
    """Index diffusers' path of every layer, "unet.mid_block...", by flat name."""
    head = next((each for each in _COMPONENTS if f"{prefix}_".startswith(f"{each}_")), None)
    if head is None:
        raise AdapterError(f"diffusers has no name for the part {prefix!r}")
    # What follows, as in lora_te_text_model, is a module within the part.
    inner = prefix.removeprefix(head).removeprefix("_")
    beginning = ".".join(filter(None, (_COMPONENTS[head], inner)))
    return {name: f"{beginning}.{path}" for name, path in paths_by_name(model, prefix).items()}


def load_loras(
    path: str | os.PathLike[str],
    models: Mapping[str, nn.Module],
    aliases: Mapping[str, str] | None = None,
) -> dict[str, Lora]:
    """Read a file's LoRAs for models under their prefixes, as float32 and not yet injected.

    ``models`` is for instance ``{"lora_unet": unet, "lora_te_text_model": text_model}``; the result
    has the prefixes for which the file holds anything. Layouts are kohya's, with all kinds of
    ``KINDS`` and DoRA, and diffusers' and PEFT's. ``aliases`` give flat names of other
    layouts, such as SDXL's ``lora_unet_input_blocks_4_1...``, those of the models: see
    ``aliases_through``.
    An absent alpha means the rank. Raises ``AdapterError`` listing every key that fits none of the
    models, by name or shape: a file is loaded whole or not at all.
    """
    owners = {
        name: (prefix, target)
        for prefix, model in models.items()
        for name, target in targets_by_name(model, prefix).items()
    }
    tensors, said = _open(path, owners, aliases or {})
    parts = by_layer(tensors)
    _require_known(parts, owners, said)
    layers: dict[str, WeightLayer] = {}
    filling: dict[str, Tensor] = {}
    unfit: list[str] = []
    for name, found in parts.items():
        layer, values = _read(owners[name][1], found)
        if layer is None or values is None:
            unfit += [f"{name}.{part}" for part in found]
        else:
            layers[name] = layer
            filling |= {f"{name}.{part}": tensor for part, tensor in values.items()}
    if unfit:
        raise AdapterError(
            f"{len(unfit)} keys of {path} have another shape than the model", _known(unfit, said)
        )
    return _filled(layers, filling, {name: owners[name][0] for name in layers})


def _together(loras: Iterable[Lora]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for lora in loras:
        assert not tensors.keys() & lora.state_dict().keys(), lora.prefix
        tensors |= lora.state_dict()
    return tensors


def _one(values: Iterable[float]) -> str:
    """Say the number that holds for every layer, or that there is none."""
    values = list(values)
    return f"{values[0]:g}" if len(values) == 1 else "Dynamic"


def _renamed(tensors: Mapping[str, Tensor], aliases: Mapping[str, str]) -> dict[str, Tensor]:
    found = {}
    for key, tensor in tensors.items():
        name, dot, part = key.partition(".")
        found[f"{aliases.get(name, name)}{dot}{part}"] = tensor
    return found


def _open(
    path: str | os.PathLike[str], owners: _Owners, aliases: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, str | None]]:
    """Return a file's tensors in kohya's layout under the models' names, and by key the file's."""
    file = Checkpoint.open(path)
    tensors: Mapping[str, Tensor] = dict(file)
    said = {key: key for key in tensors}
    if is_diffusers(tensors):
        is_sdxl = any(prefix.startswith("lora_te1") for prefix, _ in owners.values())
        text_prefix = "lora_te1" if is_sdxl else "lora_te"
        said = {name: key for key, name in kohya_keys(tensors, text_prefix).items()}
        metadata = with_config_beside(path, file.metadata)
        tensors = from_diffusers(tensors, metadata, text_prefix)
    names = {key.partition(".")[0] for key in tensors}
    towers = {name: with_text_model(name) for name in names if name not in owners}
    if not any(prefix.startswith("lora_te1") for prefix, _ in owners.values()):
        towers = {name: _of_the_only_tower(own, names) for name, own in towers.items()}
    renamed = _renamed(tensors, {**towers, **aliases})
    if len(renamed) < len(tensors):
        raise AdapterError(f"{path} has the same layers under two names")
    return renamed, dict(zip(renamed, map(said.get, tensors), strict=True))


def _of_the_only_tower(name: str, names: Set[str]) -> str:
    """Return the name without the number that LyCORIS gives a single text encoder in a list."""
    of_two = any(other.startswith("lora_te2") for other in names)
    return name if of_two else re.sub("^lora_te1_", "lora_te_", name)


def _known(keys: Iterable[str], said: Mapping[str, str | None]) -> list[str]:
    """Return the file's own keys; an alpha that only its header says has none."""
    return [own for key in keys if (own := said.get(key)) is not None]


def _require_known(
    parts: Mapping[str, Mapping[str, Tensor]], owners: _Owners, said: Mapping[str, str | None]
) -> None:
    """Raise ``AdapterError`` with the keys that are no target's, or no whole layer of a kind."""
    unmatched: list[str] = []
    for name, found in parts.items():
        unused = set(found) if name not in owners else _unused(owners[name][1], found)
        unmatched += [f"{name}.{part}" for part in unused]
    if unmatched or not parts:
        keys = _known(unmatched, said)
        total = len(_known(said, said))
        raise AdapterError(f"{len(keys)} of {total} keys are no LoRA's of the models given", keys)


def _unused(target: Target | Norm, found: Mapping[str, Tensor]) -> set[str]:
    try:
        return unused_parts(target, found)
    except AdapterError:
        return set()  # of another shape, which is told apart later


def _read(
    target: Target | Norm, found: Mapping[str, Tensor]
) -> tuple[WeightLayer | None, dict[str, Tensor] | None]:
    """Return an empty layer for a file's tensors and these in its shapes, or nothing."""
    try:
        layer = empty_layer(target, found)
    except AdapterError:
        return None, None
    return layer, None if layer is None else fitted(layer, found)


def _filled(
    layers: Mapping[str, WeightLayer], filling: Mapping[str, Tensor], prefixes: Mapping[str, str]
) -> dict[str, Lora]:
    loras = {}
    for prefix in dict.fromkeys(prefixes.values()):
        own = {name: layer for name, layer in layers.items() if prefixes[name] == prefix}
        lora = Lora(prefix, own)
        tensors = {key: filling[key] for key in lora.state_dict()}
        load_into(lora, tensors, what=f"the LoRA under {prefix}", dtype=torch.float32)
        loras[prefix] = lora
    return loras
