"""A model as data: the config and the tensors of every part, before any network is built."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from sd_checkpoint import release
from sd_pipeline.classes import Classes
from sd_pipeline.families import CLASSES, FAMILIES, Family, task_of_channels
from sd_pipeline.scheduler import Scheduler
from sd_textenc import CLIPTextConfig, OpenCLIPTextConfig, Tokenizer
from sd_unet import BackboneConfig
from sd_vae import VAEConfig

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part(Generic[Config]):
    """Hold one network's architecture and its tensors under our names, each read when asked for.

    `what` names the file they come from in errors.
    """

    config: Config
    tensors: Mapping[str, Tensor]
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPart:
    """Hold a text encoder's architecture, tokenizer, and tensors under a folder's names.

    Those are transformers', `text_model.encoder.layers.0...`, whichever library computes them.
    """

    config: CLIPTextConfig
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Hold the parts of a model; what every layout is read into and written from.

    Some hold the UNet's weights twice, as they were learnt and as a running average. `unet` is
    what is drawn with; the other is `ema` when it is the average, `non_ema` when `unet` is.
    `zeros_for_empty` says that no negative prompt means zeros, not the states of an empty text
    (SDXL). `texts` are none where the UNet is told `classes` alone. `family` and `task` are told
    from the parts.
    """

    unet: Part[BackboneConfig]
    vae: Part[VAEConfig]
    texts: tuple[TextPart, ...]
    scheduler: Scheduler
    ema: Mapping[str, Tensor] | None = None
    non_ema: Mapping[str, Tensor] | None = None
    zeros_for_empty: bool = False
    classes: Classes | None = None

    def with_process(self, changes: Mapping[str, Any]) -> "Model":
        """Return it with fields of its `DiffusionConfig` replaced: what a user knows better.

        Raises `SamplerError` for a value that cannot be.
        """
        diffusion = replace(self.scheduler.diffusion, **changes)
        return replace(self, scheduler=replace(self.scheduler, diffusion=diffusion))

    @property
    def family(self) -> Family:
        """The line of the table that this model belongs to."""
        return family_of(self.unet.config, tuple(text.config for text in self.texts))

    @property
    def learnt_and_averaged(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None:
        """The UNet's weights and their average, None where the model has not both."""
        if self.ema is not None:
            return self.unet.tensors, self.ema
        return None if self.non_ema is None else (self.non_ema, self.unet.tensors)

    @property
    def task(self) -> str:
        """What the UNet is for: txt2img, inpaint, pix2pix or depth."""
        return task_of_channels(self.unet.config.in_channels, self.vae.config.latent_channels)


def family_of(unet: BackboneConfig, texts: tuple[Any, ...]) -> Family:
    """Tell the family of networks by their architecture."""
    if not texts:
        return CLASSES
    if unet.takes_sizes:
        return FAMILIES["sdxl" if len(texts) > 1 else "sdxl-refiner"]
    return FAMILIES["sd2" if isinstance(texts[0], OpenCLIPTextConfig) else "sd1"]


class View(Mapping[str, Tensor]):
    """View tensors of several mappings as one; each is read when it is asked for.

    `names` are the new names, each with the mapping and the name there. `dtype` is what floating
    tensors become, None leaves every tensor its own.
    """

    def __init__(
        self,
        names: Mapping[str, tuple[Mapping[str, Tensor], str]],
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._names = names
        self._dtype = dtype

    def __getitem__(self, name: str) -> Tensor:
        tensors, key = self._names[name]
        tensor = tensors[key]
        return tensor.to(self._dtype) if self._dtype and tensor.is_floating_point() else tensor

    def release(self) -> bool:
        """Let go of the memory behind the tensors, where they are of files."""
        behind = {id(tensors): tensors for tensors, _ in self._names.values()}
        released = [release(tensors) for tensors in behind.values()]  # all, not up to the first
        return all(released)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # Mapping's own would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def cast(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> View:
    """View tensors with the floating ones as `dtype`."""
    return View({name: (tensors, name) for name in tensors}, dtype=dtype)


def renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> View:
    """View some tensors under the names that are `names`' keys."""
    return View({new: (tensors, old) for new, old in names.items()})
