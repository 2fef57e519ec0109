"""The networks of a model, built and filled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sd_checkpoint import load_into, name_keys, no_collection, skeleton
from sd_ops import int8_keys
from sd_pipeline.classes import Classes
from sd_pipeline.errors import PipelineError
from sd_pipeline.families import FAMILIES, Family, task_of_channels
from sd_pipeline.folder import write_folder, write_text_encoder
from sd_pipeline.int8 import fill_as_int8
from sd_pipeline.model import Model, Part, TextPart, family_of
from sd_pipeline.scheduler import Scheduler
from sd_textenc import DualTextEncoder, TextTower, build_text_encoder
from sd_unet import Backbone, BackboneConfig, build_backbone
from sd_vae import AutoencoderKL, VAEConfig, build_autoencoder


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts of a model, each a package of its own, ready to compute.

    `text_encoder` is None where the network hears no text, and `classes` where it is told none.
    `zeros_for_empty` is as in `Model`.
    """

    unet: Backbone
    vae: AutoencoderKL
    text_encoder: TextTower | DualTextEncoder | None
    scheduler: Scheduler
    zeros_for_empty: bool = False
    classes: Classes | None = None

    @property
    def text(self) -> TextTower | DualTextEncoder:
        """The text encoder; raises `PipelineError` for a model that hears no text."""
        if self.text_encoder is None:
            raise PipelineError(
                "this model is told classes and hears no text; use one with a text encoder"
            )
        return self.text_encoder

    @property
    def towers(self) -> tuple[TextTower, ...]:
        """The text encoders one by one: SDXL has two, a model that is told classes alone none."""
        encoder = self.text_encoder
        if encoder is None:
            return ()
        return (
            (encoder.first, encoder.second) if isinstance(encoder, DualTextEncoder) else (encoder,)
        )

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All networks that there are."""
        text = () if self.text_encoder is None else (self.text_encoder,)
        return (self.unet, self.vae, *text)

    @property
    def family(self) -> Family:
        """The line of the table that these networks belong to."""
        return family_of(self.unet.config, tuple(tower.config for tower in self.towers))

    @property
    def task(self) -> str:
        """What the UNet is for: txt2img, inpaint, pix2pix or depth."""
        return task_of_channels(self.unet.config.in_channels, self.vae.config.latent_channels)


@no_collection()
def build(model: Model, *, dtype: torch.dtype = torch.float32, int8: bool = False) -> Parts:
    """Make the networks of `model` on the CPU and fill them, each tensor cast as it is read.

    `int8`: as `build_unet` has it.

    SDXL's autoencoder overflows in float16: where `dtype` is that and its config says
    `force_upcast`, it stays in float32. Folders of other families say so too, without need, and
    are not heeded, as in diffusers. Raises `CheckpointError` when tensors are missing, unknown or
    misshapen.
    """
    overflows = model.vae.config.force_upcast and model.family.name.startswith("sdxl")
    upcast = overflows and dtype == torch.float16
    penultimate = model.family.name.startswith("sdxl")
    towers = [build_text(text, dtype=dtype, penultimate=penultimate) for text in model.texts]
    return Parts(
        unet=build_unet(model.unet, dtype=dtype, int8=int8),
        vae=build_vae(model.vae, dtype=torch.float32 if upcast else dtype),
        text_encoder=_joined(towers),
        scheduler=model.scheduler,
        zeros_for_empty=model.zeros_for_empty,
        classes=model.classes,
    )


def _joined(towers: Sequence[TextTower]) -> TextTower | DualTextEncoder | None:
    if len(towers) == 2:
        return DualTextEncoder(*towers)
    return towers[0] if towers else None


def build_unet(
    part: Part[BackboneConfig], *, dtype: torch.dtype = torch.float32, int8: bool = False
) -> Backbone:
    """Make a UNet, or a DiT, and fill it.

    With `int8` its layers hold their weights in eight bits a value, which they become while they
    are read: approximate, as `sd_ops.quantized` says, and for drawing alone.
    """
    with skeleton():
        unet = build_backbone(part.config)
    if int8:
        fill_as_int8(unet, part.tensors, part.what, dtype)
        unet.eval().requires_grad_(False)
    else:
        _fill(unet, part.tensors, part.what, dtype)
    return unet


def build_vae(part: Part[VAEConfig], *, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
    """Make an autoencoder and fill it."""
    with skeleton():
        vae = build_autoencoder(part.config)
    _fill(vae, part.tensors, part.what, dtype)
    return vae


def build_text(
    part: TextPart, *, dtype: torch.dtype = torch.float32, penultimate: bool = False
) -> TextTower:
    """Make a text encoder and fill it; `penultimate` as SDXL reads its encoders."""
    with skeleton():
        encoder = build_text_encoder(part.config, part.tokenizer, penultimate=penultimate)
    _fill(encoder.model, encoder.model_state_dict(part.tensors), part.what, dtype)
    encoder.eval().requires_grad_(False)
    return encoder


def hollow(model: Model) -> Parts:
    """Make the networks of `model` without their weights, reading none of them."""
    with skeleton():
        towers = [build_text_encoder(text.config, text.tokenizer) for text in model.texts]
        return Parts(
            unet=build_backbone(model.unet.config),
            vae=build_autoencoder(model.vae.config),
            text_encoder=_joined(towers),
            scheduler=model.scheduler,
            classes=model.classes,
        )


def unfit_keys(model: Model) -> list[str]:
    """List, a line a part, the tensors that a model lacks or has too many, reading none of them."""
    empty = hollow(model)
    wanted: list[tuple[str, Mapping[str, Tensor], Mapping[str, Tensor]]] = [
        (model.unet.what, empty.unet.state_dict(), model.unet.tensors),
        (model.vae.what, empty.vae.state_dict(), model.vae.tensors),
    ]
    for text, tower in zip(model.texts, empty.towers, strict=True):
        wanted.append((text.what, tower.file_state_dict(), text.tensors))
    problems = []
    for what, own, given in wanted:
        for verb, keys in (
            ("lacks", set(own) - set(given)),
            ("has unknown", set(given) - set(own)),
        ):
            if keys:
                problems.append(f"{what} {verb} {len(keys)} tensors: {name_keys(keys)}")
    return problems


def as_model(parts: Parts) -> Model:
    """View the networks as a model to be written.

    Raises `PipelineError` for a UNet whose weights are held as int8: no file has such.
    """
    if int8_keys(parts.unet):
        raise PipelineError(
            "a UNet that holds its weights as int8 is for drawing and cannot be written; load the "
            "model without int8"
        )
    return Model(
        unet=Part(config=parts.unet.config, tensors=parts.unet.state_dict(), what="the UNet"),
        vae=Part(config=parts.vae.config, tensors=parts.vae.state_dict(), what="the autoencoder"),
        texts=tuple(
            TextPart(
                config=tower.config,
                tensors=tower.file_state_dict(),
                tokenizer=tower.tokenizer,
                what="the text encoder",
            )
            for tower in parts.towers
        ),
        scheduler=parts.scheduler,
        zeros_for_empty=parts.zeros_for_empty,
        classes=parts.classes,
    )


def save_model(folder: Path, parts: Parts, *, dtype: torch.dtype = torch.float16) -> None:
    """Write `parts` as a folder that we and diffusers open, whole or not at all.

    Weights are stored as `dtype`. Replaces the folder if it exists.
    Raises `CheckpointError` when the place cannot be written to.
    """
    write_folder(folder, as_model(parts), dtype=dtype)


def save_text_encoder(
    folder: Path, encoder: TextTower, *, dtype: torch.dtype = torch.float16
) -> None:
    """Write a text encoder and its tokenizer into `folder`, as `load_text_encoder` reads them."""
    part = TextPart(
        config=encoder.config,
        tensors=encoder.file_state_dict(),
        tokenizer=encoder.tokenizer,
        what="the text encoder",
    )
    write_text_encoder(folder, FAMILIES["sd1"].towers[0], part, dtype)


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], what: str, dtype: torch.dtype) -> None:
    load_into(module, tensors, what=what, dtype=dtype)
    module.eval().requires_grad_(False)
