"""LoRAs as diffusers and PEFT write them, in all their ages, to and from kohya's names."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from sd_adapters.adapter import AdapterError
from sd_adapters.loha import LohaLayer
from sd_adapters.lokr import LokrLayer
from sd_adapters.lora_kinds import rank_of
from sd_adapters.lora_parts import by_layer, without_mid
from sd_adapters.peft_config import PeftConfig
from sd_adapters.targets import flat_name

_DOWN, _UP, _DORA, _ALPHA = "lora_down.weight", "lora_up.weight", "dora_scale", "alpha"
# The ends of keys. The last two are diffusers' first, where the path's end has a name of its own.
_OWN_ENDS = {
    ".lora_A.weight": _DOWN,
    ".lora_B.weight": _UP,
    ".lora_A.default.weight": _DOWN,
    ".lora_B.default.weight": _UP,
    ".lora.down.weight": _DOWN,
    ".lora.up.weight": _UP,
    ".lora_linear_layer.down.weight": _DOWN,
    ".lora_linear_layer.up.weight": _UP,
    ".lora_magnitude_vector": _DORA,
    ".lora_magnitude_vector.weight": _DORA,
    "_lora.down.weight": _DOWN,
    "_lora.up.weight": _UP,
}
# PEFT's LoHa and LoKr call their parts as LyCORIS does, whose paths have no dots.
_SHARED_ENDS = {f".{part}": part for part in (_ALPHA, *LohaLayer.marks, *LokrLayer.marks)}
_ENDS = _OWN_ENDS | _SHARED_ENDS
_COMPONENTS = ("unet.", "text_encoder.", "text_encoder_2.")
_SAVED_BY_PEFT = "base_model.model."
_BARE_TEXT = "encoder."  # transformers 5 has no text_model in a tower without projection
_TEXT = ("text_model.", _BARE_TEXT)
_OLD_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def is_diffusers(tensors: Mapping[str, object]) -> bool:
    """Tell whether a file's keys are diffusers' or PEFT's, rather than kohya's."""
    ends = [(key, _end_of(key)) for key in tensors]
    return any(end in _OWN_ENDS or (end and "." in key.removesuffix(end)) for key, end in ends)


def kohya_keys(keys: Iterable[str], text_prefix: str = "lora_te") -> dict[str, str]:
    """Return kohya's key for each key of diffusers' or PEFT's layout.

    ``text_prefix`` is what ``text_encoder`` becomes: ``lora_te1`` in SDXL. Raises ``AdapterError``
    listing the keys that are not understood, or say again what another says.
    """
    prefixes = {"unet": "lora_unet", "text_encoder": text_prefix, "text_encoder_2": "lora_te2"}
    found: dict[str, str] = {}
    taken: set[str] = set()
    unknown = []
    for key in keys:
        end = _end_of(key)
        component, _, inner = _path_of(key).partition(".")
        name = f"{flat_name(prefixes[component], inner)}.{_ENDS.get(end, '')}"
        if not end or name in taken:
            unknown.append(key)
        taken.add(name)
        found[key] = name
    if unknown:
        raise AdapterError(f"{len(unknown)} keys are no LoRA's of diffusers' layout", unknown)
    return found


def from_diffusers(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], text_prefix: str = "lora_te"
) -> dict[str, Tensor]:
    """Rename a LoRA of diffusers' or PEFT's layout to kohya's, with an alpha for each layer.

    An alpha stands under its own key or in the header's ``lora_adapter_metadata``, and is the rank
    otherwise. Raises ``AdapterError`` where ``kohya_keys`` does, and for a header that cannot be
    understood.
    """
    config = PeftConfig.read(metadata)
    names = kohya_keys(tensors, text_prefix)
    found = {name: tensors[key] for key, name in names.items()}
    paths = {name.partition(".")[0]: _path_of(key) for key, name in names.items()}
    for layer, parts in by_layer(found).items():
        if _DORA in parts and _UP in parts:
            # PEFT's lengths are the rows'; as such they are told apart by their shape.
            lengths = parts[_DORA].reshape(-1, *[1] * (parts[_UP].ndim - 1))
            found[f"{layer}.{_DORA}"] = lengths
        rank = rank_of(parts)
        if rank is not None and _ALPHA not in parts:
            found[f"{layer}.{_ALPHA}"] = torch.tensor(config.alpha_at(paths[layer], rank))
        elif rank is None and "lokr_w1" in parts:
            # A LoKr of whole factors has a scale in PEFT, and none in LyCORIS.
            found[f"{layer}.lokr_w1"] = parts["lokr_w1"] * config.scale_at(paths[layer])
    return found


def to_diffusers(tensors: Mapping[str, Tensor], paths: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename a LoRA of kohya's layout to PEFT's: ``unet.<path>.lora_A.weight``.

    ``paths`` gives each layer's flat name its path, with the component before it: "unet.mid_block
    ...". That layout has no place for alpha that every reader looks at: the scale goes into
    ``lora_B``, and Tucker's kernel into ``lora_A``, which changes nothing. Raises ``AdapterError``
    listing the layers without a path, and those of kinds that the layout does not have.
    """
    layers = by_layer(tensors)
    strange = [name for name in layers if name not in paths]
    if strange:
        raise AdapterError(f"{len(strange)} layers are not the model's", strange)
    written: dict[str, Tensor] = {}
    for name, parts in layers.items():
        down, up = without_mid(name, parts)
        path = paths[name]
        written[f"{path}.lora_A.weight"] = down
        written[f"{path}.lora_B.weight"] = up
        if _DORA in parts:
            lengths = parts[_DORA]
            if lengths.numel() != up.shape[0] or lengths.shape[0] != up.shape[0]:
                raise AdapterError("PEFT has no DoRA over columns", [f"{name}.{_DORA}"])
            # PEFT keeps (out,) for a linear, and (1, out, 1, 1) for a convolution.
            shape = (-1,) if up.ndim == 2 else (1, -1, *[1] * (up.ndim - 2))
            written[f"{path}.lora_magnitude_vector"] = lengths.reshape(shape)
    return written


def _end_of(key: str) -> str:
    """Return the longest known end of a key, or nothing."""
    return max((end for end in _ENDS if key.endswith(end)), key=len, default="")


def _path_of(key: str) -> str:
    """Return the path that a key, whatever its age, means today: "unet.mid_block..."."""
    end = _end_of(key)
    path = key.removesuffix(end).replace(".processor.", ".")
    if path.startswith(_SAVED_BY_PEFT):
        path = path.removeprefix(_SAVED_BY_PEFT)
        path = f"text_encoder.{path}" if path.startswith(_TEXT) else f"unet.{path}"
    elif not path.startswith(_COMPONENTS):
        path = f"unet.{path}"  # diffusers' first files hold the UNet alone
    component, _, inner = path.partition(".")
    if inner.startswith(_BARE_TEXT) and component != "unet":
        path = f"{component}.text_model.{inner}"
    if not end.startswith("_"):
        return path
    before, _, last = path.rpartition(".")
    if path.startswith("text_encoder"):
        return f"{before}.{_OLD_TEXT_NAMES.get(last, last)}"
    return f"{path}.0" if last == "to_out" else path
