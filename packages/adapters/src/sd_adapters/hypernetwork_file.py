"""Hypernetwork files: the web UI's .pt, and the same in safetensors."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sd_adapters.adapter import AdapterError
from sd_adapters.hypernetwork import Hypernetwork
from sd_adapters.hypernetwork_config import HypernetworkConfig, uniform_dropout
from sd_adapters.origin import Origin
from sd_adapters.torch_file import save_pickle
from sd_checkpoint import Checkpoint, load_into, load_pickle, save_safetensors

_SIDES = ("k", "v")
_METADATA_KEY = "hypernetwork"
_SETTINGS = {
    "step",
    "name",
    "layer_structure",
    "activation_func",
    "is_layer_norm",
    "weight_initialization",
    "use_dropout",
    "dropout_structure",
    "activate_output",
    "last_layer_dropout",
    "sd_checkpoint",
    "sd_checkpoint_name",
}
# What some versions wrote beside the networks, and no reader computes with.
_PASSED_OVER = {"optional_info", "optimizer_name", "optimizer_state_dict"}
# The web UI once had two linears by name in place of the sequence.
_OLD_NAMES = {"linear1.": "linear.0.", "linear2.": "linear.1."}


def save_hypernetwork(path: str | os.PathLike[str], hypernetwork: Hypernetwork) -> None:
    """Write a hypernetwork: for the web UI as .pt, and otherwise as .safetensors.

    The latter's keys are ``320.k.linear.0.weight``, and its header's ``hypernetwork`` holds what
    the .pt has beside the weights, as JSON. Raises ``AdapterError`` for another suffix.
    """
    tensors = {
        key: tensor.detach().to("cpu", copy=True).contiguous()
        for key, tensor in hypernetwork.state_dict().items()
    }
    settings = _settings(hypernetwork)
    match Path(path).suffix.lower():
        case ".pt":
            pairs = {width: _pair(tensors, width) for width in hypernetwork.widths}
            save_pickle(path, pairs | settings)
        case ".safetensors":
            save_safetensors(path, tensors, {_METADATA_KEY: json.dumps(settings)})
        case suffix:
            raise AdapterError(f"a hypernetwork is written as .pt or .safetensors, not {suffix!r}")


def load_hypernetwork(path: str | os.PathLike[str]) -> Hypernetwork:
    """Read a hypernetwork in float32, not yet injected; it is in evaluation mode.

    What an older file does not say is what the web UI takes then. Without a name in the file it is
    called as the file is. Raises ``AdapterError`` listing every key that is not understood or has
    no place in the networks the file describes, and ``CheckpointError`` for a broken file.
    """
    if Path(path).suffix.lower() == ".safetensors":
        file = Checkpoint.open(path)
        content, tensors = _json_settings(file), dict(file)
    else:
        content, tensors = _split(load_pickle(path), path)
    unknown = content.keys() - _SETTINGS - _PASSED_OVER
    if unknown:
        raise AdapterError(f"{len(unknown)} settings of {path} are unknown", unknown)
    with torch.device("meta"):
        hypernetwork = Hypernetwork(_widths(tensors, path), _config(content, path))
    own = hypernetwork.state_dict()
    unfit = {key for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape}
    unfit |= own.keys() ^ tensors.keys()
    if unfit:
        raise AdapterError(f"{len(unfit)} keys do not fit what {path} says of its layers", unfit)
    load_into(hypernetwork, tensors, what=f"the hypernetwork {path}")
    hypernetwork.name = str(content.get("name") or Path(path).stem)
    step = content.get("step")
    hypernetwork.origin = Origin(
        step=step if isinstance(step, int) else 0,
        sd_checkpoint=content.get("sd_checkpoint"),
        sd_checkpoint_name=content.get("sd_checkpoint_name"),
    )
    return hypernetwork.eval()


def _settings(hypernetwork: Hypernetwork) -> dict[str, Any]:
    """Return every key that a reader may look for: their defaults differ."""
    config, origin = hypernetwork.config, hypernetwork.origin
    dropouts = config.dropout_structure or (0,) * len(config.layer_structure)
    return {
        "step": origin.step or 0,
        "name": hypernetwork.name,
        "layer_structure": list(config.layer_structure),
        "activation_func": config.activation_func,
        "is_layer_norm": config.is_layer_norm,
        "weight_initialization": config.weight_initialization,
        "use_dropout": any(dropouts),
        "dropout_structure": list(dropouts),
        "activate_output": config.activate_output,
        "last_layer_dropout": dropouts[-2] > 0,
        "sd_checkpoint": origin.sd_checkpoint,
        "sd_checkpoint_name": origin.sd_checkpoint_name,
    }


def _pair(tensors: Mapping[str, Tensor], width: int) -> tuple[dict[str, Tensor], ...]:
    prefixes = [f"{width}.{side}." for side in _SIDES]
    return tuple(
        {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        for prefix in prefixes
    )


def _config(content: Mapping[str, Any], path: str | os.PathLike[str]) -> HypernetworkConfig:
    """Read the settings with the web UI's defaults for those that are absent."""
    try:
        structure = tuple(content.get("layer_structure") or (1, 2, 1))
        dropouts = tuple(content.get("dropout_structure") or ())
        if not dropouts and content.get("use_dropout"):
            dropouts = uniform_dropout(len(structure), bool(content.get("last_layer_dropout")))
        return HypernetworkConfig(
            layer_structure=structure,
            activation_func=content.get("activation_func") or "linear",
            weight_initialization=content.get("weight_initialization") or "Normal",
            is_layer_norm=bool(content.get("is_layer_norm")),
            dropout_structure=dropouts if any(dropouts) else (),
            activate_output=bool(content.get("activate_output", True)),
        )
    except TypeError as error:
        raise AdapterError(f"{path} does not say plainly how its layers are built") from error


def _split(content: Any, path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Part the settings of a .pt from its weights, and give these our key names."""
    if not isinstance(content, dict):
        raise AdapterError(f"{path} holds a {type(content).__name__}, not a hypernetwork")
    tensors: dict[str, Tensor] = {}
    settings: dict[str, Any] = {}
    for key, value in content.items():
        if type(key) is not int:
            settings[str(key)] = value
            continue
        if not isinstance(value, tuple | list) or len(value) != len(_SIDES):
            raise AdapterError(f"{path} has no pair of networks for width {key}")
        for side, network in zip(_SIDES, value, strict=True):
            if not _is_state_dict(network):
                raise AdapterError(f"{path} holds something else than weights for width {key}")
            for name, tensor in network.items():
                tensors[f"{key}.{side}.{_renamed(name)}"] = tensor
    return settings, tensors


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(t, Tensor) for name, t in value.items())
    )


def _renamed(name: str) -> str:
    for old, new in _OLD_NAMES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _widths(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> set[int]:
    heads = {key: key.split(".")[0] for key in tensors}
    strange = [key for key, head in heads.items() if not head.isdecimal()]
    if strange or not heads:
        raise AdapterError(f"{path} is no hypernetwork", strange)
    return {int(head) for head in heads.values()}


def _json_settings(file: Checkpoint) -> dict[str, Any]:
    try:
        settings = json.loads(file.metadata[_METADATA_KEY])
    except (KeyError, json.JSONDecodeError) as error:
        raise AdapterError(f"{file.path} does not say in its header how it is built") from error
    if not isinstance(settings, dict):
        raise AdapterError(f"{file.path} does not say in its header how it is built")
    return settings
