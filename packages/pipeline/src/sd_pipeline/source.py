"""Where a model or a part of one is: a folder, a file, or a name of the Hub."""

from pathlib import Path

import torch

from sd_checkpoint import no_collection
from sd_pipeline.config_types import load_part_config
from sd_pipeline.errors import PipelineError
from sd_pipeline.families import FAMILIES
from sd_pipeline.folder import open_folder, open_text, open_unet, open_vae
from sd_pipeline.hub import HubName, cached, pull
from sd_pipeline.info import missing_parts
from sd_pipeline.model import Model
from sd_pipeline.parts import Parts, build, build_text, build_unet, build_vae
from sd_pipeline.scheduler import Scheduler
from sd_pipeline.single_file import SUFFIXES, open_single_file
from sd_textenc import TextTower
from sd_unet import Backbone
from sd_vae import AutoencoderKL


def locate(name: str, *, variant: str | None = None) -> Path:
    """Return the folder or file that `name` stands for, downloading one of the Hub's if need be.

    A path that exists is taken first. A name of the Hub (`org/name`, `org/name/file.safetensors`,
    `org/name@revision`) is looked up in the cache, where no socket is opened, and fetched only when
    it is not there, or not whole. Raises `PipelineError` when there is no such thing.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    hub_name = None if path.is_absolute() or name.startswith((".", "~")) else HubName.parse(name)
    if hub_name is None:
        raise PipelineError(
            f"there is no model {name!r}: name a folder in the diffusers layout, a "
            f"{', '.join(SUFFIXES[:2])} file, or a model of the Hub as org/name"
        )
    found = cached(hub_name)
    if found is not None and not (found.is_dir() and missing_parts(found, variant)):
        return found
    return pull(hub_name, variant=variant)


@no_collection()
def open_model(path: Path, *, variant: str | None = None, use_ema: bool = False) -> Model:
    """Open a model's folder or file: configs and headers now, tensors when they are asked for.

    `variant` chooses among a folder's sets of weights, `use_ema` among a file's. Raises
    `PipelineError` where one is asked of the other, and what `open_folder` and `open_single_file`
    raise.
    """
    if path.is_dir():
        if use_ema:
            raise PipelineError(
                f"{path} is a folder, whose UNet is the EMA already where there is one; "
                "leave out --ema, or name --variant non_ema for the other"
            )
        return open_folder(path, variant=variant)
    if path.suffix.lower() not in SUFFIXES:
        raise PipelineError(
            f"{path} ends in {path.suffix!r}; a model's file ends in {', '.join(SUFFIXES)}"
        )
    if variant is not None:
        raise PipelineError(f"{path} is one file, which has no variants; leave out --variant")
    return open_single_file(path, use_ema=use_ema)


def load_model(path: Path, *, dtype: torch.dtype = torch.float32) -> Parts:
    """Open a model's folder or file and build its networks on the CPU as `dtype`.

    Raises what `open_model` and `build` raise.
    """
    return build(open_model(path), dtype=dtype)


def load_unet(path: Path, *, dtype: torch.dtype = torch.float32) -> Backbone:
    """Read a UNet or a DiT: its own folder, or that of a whole model's folder or file.

    Raises `CheckpointError` when a file is missing or bad, and what `open_model` raises.
    """
    return build_unet(open_model(path).unet if _whole(path) else open_unet(path), dtype=dtype)


def load_vae(path: Path, *, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
    """Read an autoencoder, from where and with the errors that `load_unet` has."""
    return build_vae(open_model(path).vae if _whole(path) else open_vae(path), dtype=dtype)


def load_text_encoder(path: Path, *, dtype: torch.dtype = torch.float32) -> TextTower:
    """Read a text encoder: `text_encoder` and `tokenizer` of a folder, or that of a model's file.

    Raises `PipelineError` for a file with none or two of them, and what `load_unet` raises.
    """
    if not path.is_file():
        return build_text(open_text(path, FAMILIES["sd1"].towers[0]), dtype=dtype)
    texts = open_model(path).texts
    if len(texts) != 1:
        raise PipelineError(f"{path} has {len(texts)} text encoders, not one; name a folder of one")
    return build_text(texts[0], dtype=dtype)


def find_scheduler(path: Path) -> Scheduler | None:
    """Read how a UNet was taught, from where `load_unet` reads it or, of its own folder, beside it.

    None where nothing says so. Raises what ``Scheduler.from_diffusers`` and `open_model` raise.
    """
    if path.is_file():
        return open_model(path).scheduler
    for folder in (path, path.parent):
        config = folder / "scheduler" / "scheduler_config.json"
        if config.is_file():
            return Scheduler.from_diffusers(load_part_config(config))
    return None


def _whole(path: Path) -> bool:
    return path.is_file() or (path / "model_index.json").is_file()
