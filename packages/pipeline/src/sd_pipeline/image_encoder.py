"""CLIP's image encoder as a folder: config.json and its weights."""

from pathlib import Path

import torch

from sd_checkpoint import load_into, open_weights, save_json, save_safetensors, skeleton
from sd_pipeline.config_types import load_part_config
from sd_pipeline.model import cast
from sd_textenc import CLIPImageConfig, CLIPImageEncoder

IMAGE_FOLDER = "image_encoder"
_STEM = "model"


def save_image_encoder(
    folder: Path, encoder: CLIPImageEncoder, *, dtype: torch.dtype = torch.float16
) -> None:
    """Write an image encoder into `folder`, weights as `dtype`."""
    save_json(folder / IMAGE_FOLDER / "config.json", encoder.config.to_json())
    path = folder / IMAGE_FOLDER / f"{_STEM}.safetensors"
    save_safetensors(path, cast(encoder.model.state_dict(), dtype))


def load_image_encoder(folder: Path, *, dtype: torch.dtype = torch.float32) -> CLIPImageEncoder:
    """Read what `save_image_encoder` wrote; raises `CheckpointError` for a missing or broken file.

    Raises `TextEncoderError` for a config of another model.
    """
    place = folder / IMAGE_FOLDER
    config = CLIPImageConfig.from_json(load_part_config(place / "config.json"))
    with skeleton():
        encoder = CLIPImageEncoder(config)
    load_into(encoder.model, open_weights(place, _STEM, None), what=str(place), dtype=dtype)
    return encoder.eval().requires_grad_(False)
