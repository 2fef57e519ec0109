"""Models as folders in the diffusers layout: one subfolder a part, `model_index.json` on top."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sd_checkpoint import Checkpoint, atomic_path, load_into, load_json, save_json, save_safetensors
from sd_pipeline.errors import PipelineError
from sd_pipeline.scheduler import Scheduler
from sd_textenc import CLIPTextConfig, CLIPTextEncoder, Tokenizer
from sd_unet import UNet, UNetConfig
from sd_vae import AutoencoderKL, VAEConfig

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_TEXT_WEIGHTS = "model.safetensors"
_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.36.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", ""],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts of a model, each a package of its own."""

    unet: UNet
    vae: AutoencoderKL
    text_encoder: CLIPTextEncoder
    scheduler: Scheduler


def save_model(folder: Path, parts: Parts, *, dtype: torch.dtype = torch.float16) -> None:
    """Write ``parts`` as a folder that we and diffusers open, whole or not at all.

    Weights are stored as ``dtype``. Replaces the folder if it exists.
    Raises ``CheckpointError`` when the place cannot be written to.
    """
    with atomic_path(folder) as new:
        new.mkdir()
        save_vae(new / "vae", parts.vae, dtype=dtype)
        save_json(new / "unet" / "config.json", parts.unet.config.to_diffusers())
        save_safetensors(new / "unet" / _WEIGHTS, _as(parts.unet.state_dict(), dtype))
        _save_text_encoder(new, parts.text_encoder, dtype)
        scheduler = parts.scheduler.to_diffusers()
        save_json(new / "scheduler" / "scheduler_config.json", scheduler)
        index = {**_INDEX, "scheduler": ["diffusers", scheduler["_class_name"]]}
        save_json(new / "model_index.json", index)


def load_model(folder: Path, *, dtype: torch.dtype = torch.float32) -> Parts:
    """Read a folder in the diffusers layout onto the CPU as ``dtype``.

    Raises ``PipelineError`` when the folder is not such a model, ``CheckpointError`` when a file
    is broken or does not fit.
    """
    if not (folder / "model_index.json").is_file():
        raise PipelineError(
            f"{folder} is not a model: it has no model_index.json; "
            "name a folder in the diffusers layout"
        )
    pipeline = load_json(folder / "model_index.json").get("_class_name")
    if pipeline != "StableDiffusionPipeline":
        raise PipelineError(
            f"{folder} holds a {pipeline}; only StableDiffusionPipeline can be opened"
        )
    return Parts(
        unet=load_unet(folder / "unet", dtype=dtype),
        vae=load_vae(folder / "vae", dtype=dtype),
        text_encoder=load_text_encoder(folder, dtype=dtype),
        scheduler=Scheduler.from_diffusers(
            load_json(folder / "scheduler" / "scheduler_config.json")
        ),
    )


def save_vae(folder: Path, vae: AutoencoderKL, *, dtype: torch.dtype = torch.float16) -> None:
    """Write an autoencoder as diffusers does: config.json and its weights as ``dtype``."""
    save_json(folder / "config.json", vae.config.to_diffusers())
    save_safetensors(folder / _WEIGHTS, _as(vae.state_dict(), dtype))


def load_vae(folder: Path, *, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
    """Read an autoencoder's folder; raises ``CheckpointError`` when a file is missing or broken."""
    config = VAEConfig.from_diffusers(load_json(folder / "config.json"))
    with torch.device("meta"):
        vae = AutoencoderKL(config)
    _fill(vae, Checkpoint.open(folder / _WEIGHTS), folder / _WEIGHTS, dtype)
    return vae


def load_unet(folder: Path, *, dtype: torch.dtype = torch.float32) -> UNet:
    """Read a UNet's folder; raises ``CheckpointError`` when a file is missing or broken."""
    config = UNetConfig.from_diffusers(load_json(folder / "config.json"))
    with torch.device("meta"):
        unet = UNet(config)
    _fill(unet, Checkpoint.open(folder / _WEIGHTS), folder / _WEIGHTS, dtype)
    return unet


def load_text_encoder(folder: Path, *, dtype: torch.dtype = torch.float32) -> CLIPTextEncoder:
    """Read the `text_encoder` and `tokenizer` of a model's ``folder``."""
    config = CLIPTextConfig.from_diffusers(load_json(folder / "text_encoder" / "config.json"))
    with torch.device("meta"):
        encoder = CLIPTextEncoder(config, load_tokenizer(folder / "tokenizer"))
    weights = folder / "text_encoder" / _TEXT_WEIGHTS
    _fill(encoder.model, encoder.model_state_dict(Checkpoint.open(weights)), weights, dtype)
    return encoder


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read a tokenizer's folder: vocab.json, merges.txt, tokenizer_config.json."""
    names = ("vocab.json", "merges.txt", "tokenizer_config.json")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise PipelineError(
            f"{folder} lacks {', '.join(missing)}; copy the tokenizer's files there"
        )
    return Tokenizer.from_files(
        {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file()}
    )


def _save_text_encoder(folder: Path, encoder: CLIPTextEncoder, dtype: torch.dtype) -> None:
    save_json(folder / "text_encoder" / "config.json", encoder.config.to_diffusers())
    weights = _as(encoder.file_state_dict(), dtype)
    save_safetensors(folder / "text_encoder" / _TEXT_WEIGHTS, weights)
    (folder / "tokenizer").mkdir()
    for name, text in encoder.tokenizer.files().items():
        (folder / "tokenizer" / name).write_text(text, encoding="utf-8")


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype) -> None:
    load_into(module, tensors, what=str(path), dtype=dtype)
    module.eval().requires_grad_(False)


def _as(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        key: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for key, tensor in tensors.items()
    }
