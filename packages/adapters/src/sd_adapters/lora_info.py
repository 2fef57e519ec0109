"""What a LoRA file holds, told without a model."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sd_adapters.diffusers_layout import from_diffusers, is_diffusers
from sd_adapters.lora_kinds import ALPHA, DORA, kind_of, rank_of
from sd_adapters.lora_parts import by_layer

_PREFIXES = ("lora_unet", "lora_te1", "lora_te2", "lora_te")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerInfo:
    """One layer: its flat name, its kind ("lora", "loha", "lokr", "full" or "unknown"), its size.

    ``rank`` is None where the kind has none, and ``alpha`` where the file says none.
    """

    name: str
    kind: str
    rank: int | None
    alpha: float | None
    is_dora: bool
    num_parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraInfo:
    """A file: its layout ("kohya" or "diffusers"), its layers, and its header's texts."""

    layout: str
    layers: tuple[LayerInfo, ...]
    metadata: Mapping[str, str]

    @property
    def kinds(self) -> Counter[str]:
        """How many layers there are of each kind."""
        return Counter(layer.kind for layer in self.layers)

    @property
    def ranks(self) -> Counter[int]:
        """How many layers have each rank."""
        return Counter(layer.rank for layer in self.layers if layer.rank is not None)

    @property
    def alphas(self) -> Counter[float]:
        """How many layers say each alpha."""
        return Counter(layer.alpha for layer in self.layers if layer.alpha is not None)

    @property
    def models(self) -> Counter[str]:
        """How many layers each model has, by kohya's prefixes: "lora_unet", "lora_te"."""
        return Counter(_prefix(layer.name) for layer in self.layers)

    @property
    def num_parameters(self) -> int:
        """How many numbers the file holds, alphas apart."""
        return sum(layer.num_parameters for layer in self.layers)


def describe_lora(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> LoraInfo:
    """Tell what a LoRA of kohya's or diffusers' layout holds.

    Raises ``AdapterError`` listing the keys that diffusers' layout does not have.
    """
    layout = "kohya"
    if is_diffusers(tensors):
        layout, tensors = "diffusers", from_diffusers(tensors, metadata)
    layers = [_layer(name, parts) for name, parts in sorted(by_layer(tensors).items())]
    return LoraInfo(layout=layout, layers=tuple(layers), metadata=dict(metadata))


def _layer(name: str, parts: Mapping[str, Tensor]) -> LayerInfo:
    return LayerInfo(
        name=name,
        kind=kind_of(parts) or "unknown",
        rank=rank_of(parts),
        alpha=float(parts[ALPHA]) if ALPHA in parts else None,
        is_dora=DORA in parts,
        num_parameters=sum(t.numel() for part, t in parts.items() if part != ALPHA),
    )


def _prefix(name: str) -> str:
    return next((each for each in _PREFIXES if name.startswith(f"{each}_")), name.split("_")[0])
