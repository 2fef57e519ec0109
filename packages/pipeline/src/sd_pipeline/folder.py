"""Models as folders in the diffusers layout: one subfolder a part, `model_index.json` on top."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sd_textenc
import sd_vae
from sd_checkpoint import (
    atomic_path,
    has_weights,
    open_weights,
    save_json,
    save_safetensors,
)
from sd_pipeline.classes import classes_of
from sd_pipeline.config_types import load_part_config
from sd_pipeline.errors import PipelineError
from sd_pipeline.families import CLASSES, FAMILIES, Family, Tower, task_of_pipeline
from sd_pipeline.model import Model, Part, TextPart, cast, renamed
from sd_pipeline.scheduler import Scheduler
from sd_textenc import CLIPTextConfig, Tokenizer
from sd_unet import BackboneConfig, DiTConfig, backbone_config
from sd_vae import AutoencoderKL, VAEConfig

WEIGHTS, TEXT_WEIGHTS = "diffusion_pytorch_model", "model"
"""The stems of the files that hold a part's weights, and a text encoder's."""

_SUFFIX = ".safetensors"
_NOT_AVERAGED = "non_ema"
_NOT_WEIGHTS = "embeddings.position_ids"
_DIFFUSERS_VERSION = "0.36.0"


def open_folder(folder: Path, *, variant: str | None = None) -> Model:
    """Read a model's folder: the configs now, each tensor when it is asked for.

    `variant` names the set of weights, such as fp16; parts that have none of that name are read
    from their plain files. Where the UNet has a `non_ema` variant its plain file is the running
    average, which is what both we and diffusers draw with.
    Raises `PipelineError` when the folder is no model or one of another kind, `CheckpointError`
    when a file is missing, broken, or names things outside the folder.
    """
    index = _read_index(folder)
    towers = [tower for tower in FAMILIES["sdxl"].towers if _has(index, tower.folder)]
    names = ("unet", "vae", *(tower.folder for tower in towers))
    own = own_variants(folder, names, variant)
    texts = tuple(open_text(folder, tower, variant=own[tower.folder]) for tower in towers)
    unet = open_unet(folder / "unet", variant=own["unet"])
    if unet.config.takes_text and not towers:
        raise PipelineError(f"{folder} names no text encoder in model_index.json")
    if towers and not unet.config.takes_text:
        raise PipelineError(
            f"{folder} names a text encoder in model_index.json, but its UNet hears no text; "
            "take networks that belong together"
        )
    classes = classes_of(unet.config, index.get("id2label"), what=f"{folder}/model_index.json")
    if not towers and classes is None:
        raise PipelineError(f"{folder} holds a UNet that is told nothing; use one with classes")
    return Model(
        unet=unet,
        vae=open_vae(folder / "vae", variant=own["vae"]),
        texts=texts,
        scheduler=Scheduler.from_diffusers(
            load_part_config(folder / "scheduler" / "scheduler_config.json")
        ),
        non_ema=_not_averaged(folder / "unet", variant),
        zeros_for_empty=_zeros_for_empty(index, texts),
        classes=classes,
    )


def own_variants(folder: Path, parts: Sequence[str], variant: str | None) -> dict[str, str | None]:
    """Return the variant to take of each part: `variant` where it is there, None elsewhere.

    Where no part has it all are said to, for then opening them tells which there are.
    """
    having = [
        part for part in parts if variant and has_weights(folder / part, stem_of(part), variant)
    ]
    return {part: variant if part in having or not having else None for part in parts}


def stem_of(part: str) -> str:
    """Return what the weights of a part's folder are called."""
    return TEXT_WEIGHTS if part.startswith("text") else WEIGHTS


def open_unet(folder: Path, *, variant: str | None = None) -> Part[BackboneConfig]:
    """Read the folder of a UNet, or of a DiT by its config's class name."""
    config = backbone_config(load_part_config(folder / "config.json"))
    weights = open_weights(folder, WEIGHTS, variant)
    return Part(config=config, tensors=weights, what=str(folder))


def open_vae(folder: Path, *, variant: str | None = None) -> Part[VAEConfig]:
    """Read an autoencoder's folder, in diffusers' names of today or of before 2023."""
    config = sd_vae.config_from_diffusers(load_part_config(folder / "config.json"))
    weights = sd_vae.folder_key_map().apply(open_weights(folder, WEIGHTS, variant))
    return Part(config=config, tensors=weights, what=str(folder))


def open_text(folder: Path, tower: Tower, *, variant: str | None = None) -> TextPart:
    """Read a text encoder and its tokenizer from a model's `folder`."""
    place = folder / tower.folder
    config = sd_textenc.text_encoder_config(load_part_config(place / "config.json"))
    weights = open_weights(place, TEXT_WEIGHTS, variant)
    return TextPart(
        config=config,
        tensors=_text_names(config, weights),
        tokenizer=load_tokenizer(folder / tower.tokenizer),
        what=str(place),
    )


def _text_names(config: CLIPTextConfig, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Settle on one spelling: transformers 5 writes CLIPTextModel without its `text_model.`.

    Old files' `position_ids`, which count from nought, are left out.
    """
    prefix = "text_model." if config.projection_dim is None else ""
    kept = (name for name in tensors if not name.endswith(_NOT_WEIGHTS))
    return renamed(tensors, {prefix + name.removeprefix(prefix): name for name in kept})


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read a tokenizer's folder; raises `PipelineError` when it is not there."""
    if not folder.is_dir():
        raise PipelineError(f"{folder} does not exist; copy the tokenizer's folder there")
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in folder.iterdir()
        if path.suffix in (".json", ".txt") and path.is_file()
    }
    return Tokenizer.from_files(texts)


def write_folder(
    folder: Path, model: Model, *, dtype: torch.dtype | None = None, with_ema: bool = False
) -> None:
    """Write `model` as a folder that we and diffusers open, whole or not at all.

    Weights become `dtype`, or keep their own when it is None. Replaces the folder if it exists.
    `with_ema` writes the running average, if there is one, as the UNet and the plain weights as
    its `non_ema` variant. Raises `CheckpointError` when the place cannot be written to.
    """
    family = model.family
    with atomic_path(folder) as new:
        new.mkdir()
        _write_unet(new / "unet", model, dtype, with_ema=with_ema)
        save_json(new / "vae" / "config.json", model.vae.config.to_diffusers())
        save_safetensors(_file(new / "vae", WEIGHTS), cast(model.vae.tensors, dtype))
        for tower, text in zip(family.towers, model.texts, strict=True):
            write_text_encoder(new, tower, text, dtype)
        scheduler = model.scheduler.to_diffusers()
        save_json(new / "scheduler" / "scheduler_config.json", scheduler)
        save_json(new / "model_index.json", _index(model, family, scheduler["_class_name"]))


def save_vae(folder: Path, vae: AutoencoderKL, *, dtype: torch.dtype = torch.float16) -> None:
    """Write an autoencoder as diffusers does: config.json and its weights as `dtype`."""
    save_json(folder / "config.json", vae.config.to_diffusers())
    save_safetensors(_file(folder, WEIGHTS), cast(vae.state_dict(), dtype))


def _write_unet(folder: Path, model: Model, dtype: torch.dtype | None, *, with_ema: bool) -> None:
    save_json(folder / "config.json", model.unet.config.to_diffusers())
    weights: Mapping[str, Tensor] = model.unet.tensors
    if with_ema:
        both = model.learnt_and_averaged
        if both is None:
            raise PipelineError(f"{model.unet.what} has no EMA weights to keep")
        save_safetensors(_file(folder, f"{WEIGHTS}.{_NOT_AVERAGED}"), cast(both[0], dtype))
        weights = both[1]
    save_safetensors(_file(folder, WEIGHTS), cast(weights, dtype))


def write_text_encoder(
    folder: Path, tower: Tower, text: TextPart, dtype: torch.dtype | None
) -> None:
    """Write a text encoder and its tokenizer into a model's `folder`."""
    save_json(folder / tower.folder / "config.json", text.config.to_diffusers())
    weights = cast(text.tensors, dtype)
    save_safetensors(_file(folder / tower.folder, TEXT_WEIGHTS), weights)
    (folder / tower.tokenizer).mkdir()
    for name, content in text.tokenizer.files().items():
        (folder / tower.tokenizer / name).write_text(content, encoding="utf-8")


def _not_averaged(folder: Path, variant: str | None) -> Mapping[str, Tensor] | None:
    if variant is not None or not _file(folder, f"{WEIGHTS}.{_NOT_AVERAGED}").is_file():
        return None
    return open_weights(folder, WEIGHTS, _NOT_AVERAGED)


def _file(folder: Path, stem: str) -> Path:
    return folder / f"{stem}{_SUFFIX}"


def _read_index(folder: Path) -> Mapping[str, Any]:
    if not (folder / "model_index.json").is_file():
        raise PipelineError(
            f"{folder} is not a model: it has no model_index.json; "
            "name a folder in the diffusers layout or a model's file"
        )
    index = load_part_config(folder / "model_index.json")
    pipeline = str(index.get("_class_name"))
    if task_of_pipeline(pipeline) is None:
        families = (*FAMILIES.values(), CLASSES)
        known = sorted({name for family in families for name in family.pipelines.values()})
        raise PipelineError(f"{folder} holds a {pipeline}; {', '.join(known)} can be opened")
    return index


def _has(index: Mapping[str, Any], part: str) -> bool:
    entry = index.get(part)
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def _zeros_for_empty(index: Mapping[str, Any], texts: tuple[TextPart, ...]) -> bool:
    # True is diffusers' default of StableDiffusionXLPipeline; the others do not know the setting.
    return bool(index.get("force_zeros_for_empty_prompt", len(texts) > 1))


def _index(model: Model, family: Family, scheduler: str) -> dict[str, Any]:
    """Return model_index.json; parts that a class of diffusers wants and we lack are null."""
    encoders: dict[str, list[str | None]] = {}
    for tower, text in zip(family.towers, model.texts, strict=True):
        architecture = text.config.to_diffusers()["architectures"][0]
        encoders[tower.folder] = ["transformers", architecture]
        encoders[tower.tokenizer] = ["transformers", "CLIPTokenizer"]
    if model.task not in family.pipelines:
        raise PipelineError(f"no folder holds a {family.title} for {model.task}; use a plain model")
    # diffusers has no text-to-image pipeline of a DiT, and says so of its class.
    library = "sd_unet" if isinstance(model.unet.config, DiTConfig) else "diffusers"
    index: dict[str, Any] = {
        "_class_name": family.pipelines[model.task],
        "_diffusers_version": _DIFFUSERS_VERSION,
        "scheduler": ["diffusers", scheduler],
        "unet": [library, model.unet.config.to_diffusers()["_class_name"]],
        "vae": ["diffusers", model.vae.config.to_diffusers()["_class_name"]],
    }
    if model.classes is not None:  # as diffusers' DiTPipeline has it; its others pass it over
        index["id2label"] = model.classes.id2label()
    if not model.texts:
        return dict(sorted(index.items()))
    index |= {"feature_extractor": [None, None], "image_encoder": [None, None]}
    if family.name.startswith("sdxl"):
        missing = {"text_encoder": [None, None], "tokenizer": [None, None]}
        index |= {**missing, **encoders}
        index["force_zeros_for_empty_prompt"] = model.zeros_for_empty
        if family.name == "sdxl-refiner":
            index["requires_aesthetics_score"] = True
    else:
        index |= {**encoders, "safety_checker": [None, None], "requires_safety_checker": False}
    return dict(sorted(index.items()))
