"""The kinds of addition a LoRA file can hold, and how a file's layer is told to be one."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sd_adapters.adapter import AdapterError
from sd_adapters.full_layer import FullLayer, NormLayer
from sd_adapters.glora_layer import GloraLayer
from sd_adapters.ia3_layer import Ia3Layer
from sd_adapters.layer import WeightLayer
from sd_adapters.loha import LohaLayer
from sd_adapters.lokr import LokrLayer
from sd_adapters.lora_config import LoraConfig
from sd_adapters.lora_layer import LoraLayer
from sd_adapters.oft_layer import OftLayer
from sd_adapters.targets import Norm, Target

KINDS: Mapping[str, type[WeightLayer]] = {
    "lora": LoraLayer,
    "loha": LohaLayer,
    "lokr": LokrLayer,
    "full": FullLayer,
    "norm": NormLayer,
    "ia3": Ia3Layer,
    "glora": GloraLayer,
    "oft": OftLayer,
}
_OF_NORMS: Mapping[str, type[FullLayer]] = {"full": FullLayer, "norm": NormLayer}
ALPHA, DORA = "alpha", "dora_scale"
# The parts whose first axis is the rank.
_INNER = ("lora_down.weight", "hada_w1_b", "lokr_w2_b", "lokr_w1_b", "a2.weight")


def kind_of(parts: Mapping[str, object]) -> str | None:
    """Return the name in ``KINDS`` of what a file's layer is, or None if it is none, or several."""
    found = [name for name, kind in KINDS.items() if kind.marks & parts.keys()]
    return found[0] if len(found) == 1 else None


def rank_of(parts: Mapping[str, Tensor]) -> int | None:
    """Return the rank of a file's layer, or None where it has none."""
    inner = (parts[part] for part in _INNER if part in parts)
    return next((len(tensor) for tensor in inner if tensor.ndim > 0), None)


def new_layer(path: str, target: Target, config: LoraConfig) -> WeightLayer:
    """Make a layer for the target at a path, which it does not change until it has learnt."""
    rank = config.rank_at(path)
    # The scale is the same for all ranks.
    alpha = config.alpha * rank / config.rank
    tucker = config.tucker and target.weight[0, 0].numel() > 1
    layer: WeightLayer
    match config.kind:
        case "lora":
            layer = LoraLayer(target, rank, alpha, tucker=tucker)
        case "loha":
            layer = LohaLayer(target, rank, alpha, tucker=tucker)
        case "lokr":
            layer = LokrLayer.of_rank(target, rank, alpha, factor=config.factor, tucker=tucker)
    if config.dora:
        layer.decompose(target.weight)
    return layer


def unused_parts(target: Target | Norm, parts: Mapping[str, Tensor]) -> set[str]:
    """Return the names of a file's layer that no kind knows: all of them where one is missing."""
    layer = empty_layer(target, parts)
    if layer is None:
        return set(parts)
    known = layer.state_dict().keys() | {ALPHA}
    return set(parts) if known - {ALPHA} - parts.keys() else parts.keys() - known


def empty_layer(target: Target | Norm, parts: Mapping[str, Tensor]) -> WeightLayer | None:
    """Make a layer on the meta device that is built as a file's is, or None if that is no kind.

    Raises ``AdapterError`` where the shapes are not the target's.
    """
    kind = kind_of(parts)
    if kind is None:
        return None
    try:
        with torch.device("meta"):
            if isinstance(target, Norm):
                return _OF_NORMS[kind].like(target, parts)
            layer = KINDS[kind].like(target, parts)
            if DORA in parts:
                layer.dora_scale = nn.Parameter(torch.empty(_dora_shape(parts[DORA], target)))
    except (KeyError, IndexError):
        return None
    return layer


def fitted(layer: WeightLayer, parts: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return a file's tensors in the shapes of a layer's, or None where they have not as many.

    A 1 x 1 convolution's may come as a linear's and the other way round, and kernels flat.
    An absent alpha means the rank.
    """
    found: dict[str, Tensor] = {}
    for name, slot in layer.state_dict().items():
        if name == ALPHA:
            absent = torch.tensor(float(layer.rank or layer.absent_alpha))
            found[ALPHA] = parts.get(ALPHA, absent).reshape(())
            continue
        tensor = parts[name]
        if tensor.numel() == 0 or tensor.numel() != slot.numel():
            return None
        if slot.ndim > 0 and (tensor.ndim == 0 or len(tensor) != len(slot)):
            return None
        found[name] = tensor.reshape(slot.shape)
    return found


def _dora_shape(scale: Tensor, target: Target) -> tuple[int, ...]:
    """Return (out, 1, ...) or (1, in, ...), whichever the tensor is."""
    out_channels, in_channels, *kernel = target.weight.shape
    ones = [1] * len(kernel)
    if scale.numel() == out_channels and scale.shape[0] == out_channels:
        return out_channels, 1, *ones
    if scale.numel() == in_channels and scale.shape[0] == 1:
        return 1, in_channels, *ones
    raise AdapterError(f"dora_scale has the shape {tuple(scale.shape)}")
