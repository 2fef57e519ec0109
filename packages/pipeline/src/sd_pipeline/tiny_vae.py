"""A tiny autoencoder's decoder, from a file or folder that a user names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sd_checkpoint import Checkpoint, load_into, open_weights, skeleton
from sd_ops import use_fast_paths
from sd_pipeline.config_types import load_part_config
from sd_pipeline.errors import PipelineError
from sd_pipeline.folder import WEIGHTS
from sd_pipeline.images import to_images
from sd_pipeline.info import sha256
from sd_pipeline.model import renamed
from sd_vae import TinyDecoder, VAEConfig, VAEError, tiny_config, tiny_names

_NAME = "taesd_decoder.safetensors"
_ONLY: Mapping[str, Any] = {
    "_class_name": "AutoencoderTiny",
    "act_fn": "relu",
    "upsample_fn": "nearest",
    "upsampling_scaling_factor": 2,
    "scaling_factor": 1.0,
    "shift_factor": 0.0,
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TinyVAE:
    """Hold a tiny decoder, the path by which it was named, and the hash of its weights."""

    decoder: TinyDecoder
    path: str
    sha256: str

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Turn scaled latents (B, C, h, w) into 8-bit RGB images of f times their size."""
        weight = next(self.decoder.parameters())
        return to_images(self.decoder(latents.to(weight.device)))


def open_tiny_vae(
    path: str | Path, vae: VAEConfig, *, device: torch.device, dtype: torch.dtype
) -> TinyVAE:
    """Open what draws in place of an autoencoder's decoder, nearly as that does.

    `path` is a file, TAESD's `taesd_decoder.safetensors` or diffusers' own, or a folder with one.
    Raises `PipelineError` where there is none, and where it is for other latents than those of
    `vae`; `CheckpointError` for a file that is broken or holds something else, as `VAEError` does.
    """
    checkpoint = _open(Path(path))
    try:
        names = tiny_names(checkpoint)
        shapes = checkpoint.shapes()
        config = tiny_config({ours: shapes[theirs] for ours, theirs in names.items()})
    except VAEError as error:
        raise VAEError(f"{path}: {error}") from error
    wanted = (vae.latent_channels, vae.out_channels, vae.downsampling)
    found = (config.latent_channels, config.out_channels, config.upsampling)
    if found != wanted:
        raise PipelineError(
            f"{path} decodes {found[0]} channels to {found[1]} at {found[2]} times the size, and "
            f"this model wants {wanted[0]} to {wanted[1]} at {wanted[2]}; take the tiny "
            "autoencoder that was made for it"
        )
    with skeleton():
        decoder = TinyDecoder(config)
    load_into(decoder, renamed(checkpoint, names), what=str(path), dtype=dtype)
    decoder.eval().requires_grad_(False).to(device)
    use_fast_paths(decoder)
    return TinyVAE(decoder=decoder, path=str(path), sha256=sha256(checkpoint.path))


def _open(path: Path) -> Checkpoint:
    if not path.is_dir():
        if not path.exists():
            raise PipelineError(
                f"there is no {path}; name the file or folder of a tiny autoencoder (TAESD), which "
                "is not downloaded"
            )
        return Checkpoint.open(path)
    if (path / _NAME).is_file():
        return Checkpoint.open(path / _NAME)
    if (path / "config.json").is_file():
        _require_ours(path)
    return open_weights(path, WEIGHTS)


def _require_ours(folder: Path) -> None:
    config = load_part_config(folder / "config.json")
    for name, only in _ONLY.items():
        if config.get(name, only) not in (only, None):
            raise PipelineError(
                f"{folder} has {name} {config[name]!r:.60}; a tiny autoencoder is built here with "
                f"{only!r} alone"
            )
