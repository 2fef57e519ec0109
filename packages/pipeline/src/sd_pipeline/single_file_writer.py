"""Writing a model as one file, in the layout of the original latent-diffusion code (LDM)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

import sd_textenc
import sd_unet
import sd_vae
from sd_checkpoint import save_safetensors
from sd_pipeline.errors import PipelineError
from sd_pipeline.model import Model, View
from sd_pipeline.scheduler import Scheduler
from sd_pipeline.single_file import (
    EMA_PREFIX,
    UNET_PREFIX,
    V_MARK,
    VAE_PREFIX,
    ZERO_SNR_MARK,
    flat_name,
)
from sd_pipeline.single_file_header import header


def write_single_file(
    path: Path, model: Model, *, dtype: torch.dtype | None = None, with_ema: bool = False
) -> None:
    """Write `model` as one .safetensors file in LDM's layout, whole or not at all.

    Weights become `dtype`, or keep their own when it is None. The header states architecture and
    scheduler for us, and `modelspec` 1.0.1 for everybody. Raises `PipelineError` for another
    suffix and a model without a text encoder, `CheckpointError` when the place cannot be written
    to.
    """
    if path.suffix != ".safetensors":
        raise PipelineError(f"{path} ends in {path.suffix!r}; a single file is a .safetensors")
    if not model.texts:
        raise PipelineError(
            f"{path}: a model that is told classes alone has no layout of one file; write a folder"
        )
    family = model.family
    keys = sd_unet.ldm_key_map(model.unet.config).inverse()
    learnt, average = _unets(model, with_ema=with_ema)
    names = _beneath(UNET_PREFIX, keys.apply(learnt))
    vae_keys = sd_vae.ldm_key_map(model.vae.config).inverse()
    names |= _beneath(VAE_PREFIX, vae_keys.apply(model.vae.tensors))
    for tower, text in zip(family.towers, model.texts, strict=True):
        text_keys = sd_textenc.ldm_key_map(text.config).inverse()
        names |= _beneath(tower.prefix, text_keys.apply(text.tensors))
    if average is not None:
        averages = keys.apply(average)
        names |= {EMA_PREFIX + flat_name(key): (averages, key) for key in averages}
    names |= _beneath("", _marks(model.scheduler))
    save_safetensors(path, View(names, dtype=dtype), header(model))


def _unets(
    model: Model, *, with_ema: bool
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor] | None]:
    both = model.learnt_and_averaged
    if not with_ema:
        return model.unet.tensors, None
    if both is None:
        raise PipelineError(f"{model.unet.what} has no EMA weights to keep; leave out --ema keep")
    return both


def _beneath(
    prefix: str, tensors: Mapping[str, Tensor]
) -> dict[str, tuple[Mapping[str, Tensor], str]]:
    return {prefix + key: (tensors, key) for key in tensors}


def _marks(scheduler: Scheduler) -> dict[str, Tensor]:
    marks = {}
    if scheduler.diffusion.prediction == "v":
        marks[V_MARK] = torch.zeros(0)
    if scheduler.diffusion.zero_terminal_snr:
        marks[ZERO_SNR_MARK] = torch.zeros(0)
    return marks
