"""A model with LoRAs in its weights, to be written or built."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from sd_adapters import Lora, load_loras
from sd_pipeline.adapter_places import adapter_aliases, adapter_models
from sd_pipeline.model import Model
from sd_pipeline.parts import as_model, build


def with_loras(
    model: Model,
    loras: Sequence[tuple[Path, float]],
    on_item: Callable[[int], None] | None = None,
) -> Model:
    """Add LoRAs to the weights of a model: files and their strengths, one after another.

    The sum is made in float32, and every tensor has the type that it had. `on_item` hears how many
    files are done. Raises `AdapterError` for a file that is another model's.
    """
    parts = build(model)
    networks, aliases = adapter_models(parts), adapter_aliases(parts)
    for done, (path, strength) in enumerate(loras, start=1):
        for prefix, lora in load_loras(path, networks, aliases).items():
            _fuse(lora, networks[prefix], strength)
        if on_item is not None:
            on_item(done)
    written = as_model(parts)
    texts = zip(model.texts, written.texts, strict=True)
    return replace(
        model,
        unet=replace(model.unet, tensors=_typed(written.unet.tensors, model.unet.tensors)),
        texts=tuple(replace(old, tensors=_typed(new.tensors, old.tensors)) for old, new in texts),
    )


def _fuse(lora: Lora, network: nn.Module, strength: float) -> None:
    lora.requires_grad_(False)
    lora.strength = strength
    lora.inject(network)
    lora.fuse()


def _typed(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Give tensors the types that others have under the same keys."""
    return {key: tensors[key].to(like[key].dtype) for key in tensors}
