"""Which modules of a model an adapter can take hold of, and under which names."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch import nn

from sd_adapters.adapter import AdapterError
from sd_adapters.attention_projection import PROJECTIONS, AttentionProjection

Target = nn.Linear | nn.Conv2d | AttentionProjection
Norm = nn.GroupNorm | nn.LayerNorm

# open_clip's names of a text tower's modules, and those of transformers, which files use.
_OPEN_CLIP_LAYER = re.compile(r"(^|\.)transformer\.resblocks\.(\d+)\.")
_OPEN_CLIP_INNER = {
    "attn": "self_attn",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
}
_BARE_TEXT = re.compile(r"^(lora_te[12]?)_(encoder_layers_|final_layer_norm$)")
_OPEN_CLIP_LAST = re.compile(r"(^|\.)ln_final$")


class Place(NamedTuple):
    """A target, its path in the field's names, and its weight's key in the model's state dict.

    The key is None where the weight is only a part of one.
    """

    path: str
    key: str | None
    target: Target | Norm


def flat_name(prefix: str, path: str) -> str:
    """Return kohya's name of a module: its prefix and path with every dot an underscore."""
    return f"{prefix}_{path.replace('.', '_')}"


def with_text_model(name: str) -> str:
    """Return a flat name with the ``text_model`` that programs on transformers 5 leave out."""
    return _BARE_TEXT.sub(r"\1_text_model_\2", name)


def targets_by_name(model: nn.Module, prefix: str) -> dict[str, Target | Norm]:
    """Index every linear, convolution and norm by its flat name, which cannot be turned back.

    In open_clip's text towers the names are those of transformers' towers, as in all files.
    """
    found: dict[str, Target | Norm] = {}
    for place in _places(model):
        name = flat_name(prefix, place.path)
        assert name not in found, name
        found[name] = place.target
    return found


def paths_by_name(model: nn.Module, prefix: str) -> dict[str, str]:
    """Index the path of every such layer by its flat name, as the field names it."""
    return {flat_name(prefix, place.path): place.path for place in _places(model)}


def keys_by_name(model: nn.Module, prefix: str) -> dict[str, str]:
    """Index the weight's state-dict key of every linear, convolution and norm by its flat name.

    Those that share a packed weight with others are not in it.
    """
    return {
        flat_name(prefix, place.path): place.key
        for place in _places(model)
        if place.key is not None
    }


def places_ending_in(model: nn.Module, suffixes: Iterable[str]) -> list[tuple[str, Target]]:
    """Return the linears and convolutions whose path ends in one of the suffixes, with the path.

    Raises ``AdapterError`` listing the suffixes in which none ends.
    """
    suffixes = tuple(suffixes)
    places = [(path, one) for path, _, one in _places(model) if not isinstance(one, Norm)]
    idle = [s for s in suffixes if not any(_ends_in(path, s) for path, _ in places)]
    if idle or not suffixes:
        raise AdapterError("no linear or convolution of the model has a path ending in", idle)
    return [place for place in places if any(_ends_in(place[0], each) for each in suffixes)]


def _places(model: nn.Module) -> Iterator[Place]:
    inner: set[nn.Module] = set()
    for path, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            inner.update(module.modules())
            # With other widths for keys and values the weight is not packed; no tower has that.
            if module.in_proj_weight is not None:
                yield from _in_attention(path, module)
        elif module in inner or getattr(module, "weight", None) is None:
            continue  # such as a norm that learns nothing
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.GroupNorm | nn.LayerNorm):
            yield Place(_field_path(path), f"{path}.weight", module)


def _in_attention(path: str, attention: nn.MultiheadAttention) -> Iterator[Place]:
    for side in PROJECTIONS:
        key = f"{path}.{side}.weight" if side == "out_proj" else None
        yield Place(_field_path(f"{path}.{side}"), key, AttentionProjection(attention, side))


def _field_path(path: str) -> str:
    """Return the path that files have for a module: transformers' where it is open_clip's."""
    found = _OPEN_CLIP_LAYER.search(path)
    if found is None:
        return _OPEN_CLIP_LAST.sub(r"\1final_layer_norm", path)
    before, number = found.groups()
    inner = path[found.end() :]
    for theirs, ours in _OPEN_CLIP_INNER.items():
        if inner == theirs or inner.startswith(f"{theirs}."):
            inner = ours + inner.removeprefix(theirs)
            break
    return f"{path[: found.start()]}{before}encoder.layers.{number}.{inner}"


def _ends_in(path: str, suffix: str) -> bool:
    return path == suffix or path.endswith(f".{suffix}")
