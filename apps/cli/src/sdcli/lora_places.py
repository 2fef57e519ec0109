"""Which layers of a model a LoRA may change, and what files call them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sdcli.errors import CommandError
from sdcli.models import open_named

if TYPE_CHECKING:
    from torch import Tensor

    from sd_pipeline import Model

T = TypeVar("T")
_TEXT_BODY = "text_model"
_COMPONENTS = ("text_encoder", "text_encoder_2")
_LAYOUTS = ("kohya", "diffusers")
_EMBEDDED = "scenes"


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Hold the layers of one model by kohya's flat names.

    `paths` are diffusers' dotted ones ("unet.mid_block..."), `keys` those of the weights in a
    model's tensors behind the part's name. `aliases` give LDM's names of the UNet's layers ours:
    SDXL's files have the former (`is_sdxl`), all others the latter.
    """

    paths: Mapping[str, str]
    keys: Mapping[str, str]
    aliases: Mapping[str, str]
    is_sdxl: bool

    def ours(self, tensors: Mapping[str, T]) -> dict[str, T]:
        """Rename layers to our names; raises `AdapterError` listing those that are not there."""
        from sd_adapters import AdapterError

        found = _renamed(tensors, self.aliases)
        if len(found) < len(tensors):
            raise AdapterError("the LoRA has the same layers under two names")
        strange = {key.partition(".")[0] for key in found} - self.paths.keys()
        if strange:
            raise AdapterError(
                f"{len(strange)} layers are not the model's; name one that the LoRA was made for",
                strange,
            )
        return found

    def kohya(self, tensors: Mapping[str, T]) -> dict[str, T]:
        """Rename layers from our names to those of kohya's files for this family."""
        names = {ours: alias for alias, ours in self.aliases.items()} if self.is_sdxl else {}
        return _renamed(tensors, names)

    def laid_out(self, tensors: "Mapping[str, Tensor]", layout: str) -> "dict[str, Tensor]":
        """Write layers of our names in a layout; raises what `to_diffusers` raises."""
        from sd_adapters import to_diffusers

        return self.kohya(tensors) if layout == "kohya" else to_diffusers(tensors, self.paths)


def check_layout(layout: str) -> None:
    """Raise `CommandError` unless there is such a layout of LoRA files."""
    if layout not in _LAYOUTS:
        raise CommandError(f"--layout is {layout!r}; it must be {' or '.join(_LAYOUTS)}")


def places_for(layout: str, model: str | None) -> Places | None:
    """Find the layers of a model named, or of the embedded one where a layout needs one's names.

    Raises `CommandError` where `check_layout` and `open_named` do.
    """
    check_layout(layout)
    if model is None and layout == "kohya":
        return None
    return places_of(open_named(model or _EMBEDDED, variant=None, use_ema=False)[0])


def places_of(model: "Model") -> Places:
    """Find the layers of a model, reading no weights."""
    from sd_adapters import dotted_paths, keys_by_name, paths_by_name
    from sd_pipeline import adapter_aliases, adapter_models, hollow

    parts = hollow(model)
    (unet_prefix, unet), *texts = adapter_models(parts).items()
    paths = dotted_paths(unet, unet_prefix)
    keys = {name: f"unet.{key}" for name, key in keys_by_name(unet, unet_prefix).items()}
    for component, (prefix, body) in zip(_COMPONENTS, texts, strict=False):
        paths |= dotted_paths(body, prefix)
        # By path: a model's tensors are a folder's, which keeps apart what open_clip packs.
        for name, path in paths_by_name(body, prefix).items():
            keys[name] = f"{component}.{_TEXT_BODY}.{path}.weight"
    return Places(
        paths=paths,
        keys=keys,
        aliases=adapter_aliases(parts),
        is_sdxl=model.family.name.startswith("sdxl"),
    )


def weights_of(model: "Model", parts: Collection[str]) -> "Mapping[str, Tensor]":
    """View a model's tensors behind "unet.", "text_encoder." and "text_encoder_2.".

    `parts` are "unet", "text" or both.
    """
    from sd_pipeline.model import View

    chosen: dict[str, Mapping[str, Tensor]] = {}
    if "unet" in parts:
        chosen["unet"] = model.unet.tensors
    if "text" in parts:
        chosen |= {name: text.tensors for name, text in zip(_COMPONENTS, model.texts, strict=False)}
    return View(
        {f"{name}.{key}": (tensors, key) for name, tensors in chosen.items() for key in tensors}
    )


def _renamed(tensors: Mapping[str, T], names: Mapping[str, str]) -> dict[str, T]:
    """Rename layers: what of a key stands before its first dot."""
    found = {}
    for key in tensors:
        name, dot, part = key.partition(".")
        found[f"{names.get(name, name)}{dot}{part}"] = tensors[key]
    return found
