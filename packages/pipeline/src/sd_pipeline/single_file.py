"""Reading models of one file, in the layout of the original latent-diffusion code (LDM)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

import sd_textenc
import sd_unet
import sd_vae
from sd_checkpoint import Checkpoint, CheckpointError, name_keys, only
from sd_pipeline.classes import classes_of
from sd_pipeline.errors import PipelineError
from sd_pipeline.families import Family, Tower, family_of_keys
from sd_pipeline.model import Model, Part, TextPart, renamed
from sd_pipeline.scheduler import Scheduler
from sd_pipeline.single_file_header import stated_configs
from sd_textenc import Tokenizer, clip_tokenizer

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""What a file that holds a model may end in."""

UNET_PREFIX, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
"""Where the UNet and the autoencoder lie in a single file."""

EMA_PREFIX = "model_ema."
V_MARK, ZERO_SNR_MARK = "v_pred", "ztsnr"
_PREDICTIONS = {"v": "v", "v_prediction": "v", "epsilon": "eps", "eps": "eps"}
# The step count at which SD 2.0's base for 512 px was released; the one for 768 px went on to
# predict v from there. Nothing else in the two files differs.
_SD2_BASE_STEPS = "875000"

# What trainers leave in a file that no picture needs: the schedule's tables, the losses' networks.
_NOT_WEIGHTS = re.compile(
    r"betas|alphas_cumprod(_prev)?|sqrt_.*|log_one_minus_.*|posterior_.*|lvlb_weights|logvar"
    r"|scale_factor|denoiser\.sigmas|v_pred|ztsnr|edm_.*|model_ema\.(decay|num_updates)"
    r"|first_stage_model\.(loss|model_ema)\..*|embedding_manager\..*|depth_model\..*"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stated:
    """What the file's own metadata states, and what of it was told by marks."""

    configs: Mapping[str, Any]
    family: Family
    shapes: Mapping[str, tuple[int, ...]]

    def under(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Return the shapes below a prefix, without it."""
        return {k.removeprefix(prefix): v for k, v in self.shapes.items() if k.startswith(prefix)}


def open_single_file(path: Path, *, use_ema: bool = False) -> Model:
    """Read a model's file; only its header now, each tensor when it is asked for.

    Family, prediction and zero SNR are told by the keys; what no key tells is as the family has
    it, unless our own metadata says otherwise. `use_ema` takes the running average of the UNet.
    Raises `PipelineError` when the file is no whole model of a known family or has no average,
    `CheckpointError` when it is broken or has keys that nobody knows.
    """
    checkpoint = Checkpoint.open(path)
    family = family_of_keys(checkpoint.keys(), what=str(path))
    _require_parts(checkpoint, family, path)
    stated = _Stated(
        configs=stated_configs(checkpoint.metadata, family, what=str(path)),
        family=family,
        shapes=checkpoint.shapes(),
    )
    scheduler = _scheduler(checkpoint, stated)
    unet = _unet(checkpoint, stated, scheduler)
    ema, learnt = _averages(checkpoint, unet.config), None
    if use_ema:
        if ema is None:
            raise PipelineError(f"{path} has no EMA weights; leave out --ema")
        unet, ema, learnt = replace(unet, tensors=ema), None, unet.tensors
    return Model(
        unet=unet,
        vae=_vae(checkpoint, stated),
        texts=tuple(
            _text(checkpoint, stated, tower, number) for number, tower in enumerate(family.towers)
        ),
        scheduler=scheduler,
        ema=ema,
        non_ema=learnt,
        zeros_for_empty=stated.configs.get("zeros_for_empty", family.zeros_for_empty),
        classes=classes_of(unet.config, stated.configs.get("id2label"), what=str(path)),
    )


def _require_parts(checkpoint: Checkpoint, family: Family, path: Path) -> None:
    """Refuse a file that lacks a part, or has keys that belong to none."""
    prefixes = (UNET_PREFIX, VAE_PREFIX, *(tower.prefix for tower in family.towers))
    missing = [p for p in prefixes if not any(key.startswith(p) for key in checkpoint)]
    if missing:
        raise PipelineError(
            f"{path} is a {family.title} without {', '.join(p.rstrip('.') for p in missing)}; "
            "only a whole model can be opened"
        )
    strange = [
        key
        for key in checkpoint
        if not key.startswith((*prefixes, EMA_PREFIX)) and not _NOT_WEIGHTS.fullmatch(key)
    ]
    if strange:
        raise CheckpointError(
            f"{path} has {len(strange)} keys that no part of {family.title} has: "
            f"{name_keys(strange)}"
        )


def _unet(
    checkpoint: Checkpoint, stated: _Stated, scheduler: Scheduler
) -> Part[sd_unet.BackboneConfig]:
    if "unet" in stated.configs:
        config = sd_unet.backbone_config(stated.configs["unet"])
    else:
        large = stated.family.name == "sd2" and scheduler.diffusion.prediction == "v"
        config = sd_unet.config_from_ldm(
            stated.under(UNET_PREFIX), sample_size=96 if large else stated.family.sample_size
        )
        config = replace(config, upcast_attention=large)
    tensors = sd_unet.ldm_key_map(config).apply(checkpoint.under(UNET_PREFIX))
    return Part(config=config, tensors=tensors, what=f"{checkpoint.path}, {UNET_PREFIX}*")


def _vae(checkpoint: Checkpoint, stated: _Stated) -> Part[sd_vae.VAEConfig]:
    if "vae" in stated.configs:
        config = sd_vae.VAEConfig.from_diffusers(stated.configs["vae"])
    else:
        config = sd_vae.config_from_ldm(
            stated.under(VAE_PREFIX),
            scaling_factor=stated.family.scaling_factor,
            sample_size=8 * stated.family.sample_size,
        )
        config = replace(config, force_upcast=stated.family.name.startswith("sdxl"))
    weights = _without(checkpoint.under(VAE_PREFIX), VAE_PREFIX)
    tensors = sd_vae.ldm_key_map(config).apply(weights)
    return Part(config=config, tensors=tensors, what=f"{checkpoint.path}, {VAE_PREFIX}*")


def _text(checkpoint: Checkpoint, stated: _Stated, tower: Tower, number: int) -> TextPart:
    family = stated.family
    if "texts" in stated.configs:
        config = sd_textenc.text_encoder_config(stated.configs["texts"][number])
    else:
        # SDXL and its refiner read the projected pooled text of their last encoder.
        config = sd_textenc.ldm_config(
            stated.under(tower.prefix),
            projected=family.name.startswith("sdxl") and tower is family.towers[-1],
        )
    files = stated.configs.get("tokenizers", {}).get(str(number))
    pads = stated.configs.get("pad_tokens", [tower.pad_token for tower in family.towers])
    return TextPart(
        config=config,
        tensors=sd_textenc.ldm_tensors(config, checkpoint.under(tower.prefix)),
        tokenizer=Tokenizer.from_files(files) if files else clip_tokenizer(pads[number]),
        what=f"{checkpoint.path}, {tower.prefix}*",
    )


def _scheduler(checkpoint: Checkpoint, stated: _Stated) -> Scheduler:
    """Tell the diffusion process: from our metadata, marks, `modelspec`, else the family."""
    if "scheduler" in stated.configs:
        return Scheduler.from_diffusers(stated.configs["scheduler"])
    base = stated.family.scheduler
    diffusion = replace(base.diffusion, prediction=told_prediction(checkpoint, stated.family)[0])
    if ZERO_SNR_MARK in checkpoint:
        # The last timestep is pure noise there, and leading spacing would never start at it.
        diffusion = replace(diffusion, zero_terminal_snr=True, spacing="trailing")
    return replace(base, diffusion=diffusion)


def told_prediction(checkpoint: Checkpoint, family: Family) -> tuple[str, str]:
    """Return what a single file's UNet predicts, eps or v, and what told it."""
    if V_MARK in checkpoint:
        return "v", f"the key {V_MARK}"
    spec = checkpoint.metadata.get("modelspec.prediction_type", "").lower()
    if spec in _PREDICTIONS:
        return _PREDICTIONS[spec], "modelspec.prediction_type"
    if family.name != "sd2":
        return "eps", f"{family.title} predicts eps unless marked"
    channels = checkpoint.shapes()[f"{UNET_PREFIX}input_blocks.0.0.weight"][1]
    if channels != 4:
        return "eps", "SD 2.x with further input channels predicts eps"
    if checkpoint.metadata.get("global_step") == _SD2_BASE_STEPS:
        return "eps", f"global_step {_SD2_BASE_STEPS}, that of SD 2.0 base"
    return "v", "SD 2.x for 768 px predicts v; the file itself does not say"


def _averages(
    checkpoint: Checkpoint, config: sd_unet.BackboneConfig
) -> Mapping[str, Tensor] | None:
    """Find the UNet's running averages, whose keys are LDM's without their dots."""
    if not any(key.startswith(f"{EMA_PREFIX}diffusion_model") for key in checkpoint):
        return None
    named = {
        key.removeprefix(UNET_PREFIX): EMA_PREFIX + flat_name(key.removeprefix(UNET_PREFIX))
        for key in checkpoint
        if key.startswith(UNET_PREFIX)
    }
    missing = [flat for flat in named.values() if flat not in checkpoint]
    if missing:
        raise CheckpointError(
            f"{checkpoint.path} has EMA weights for a part of the UNet only; "
            f"{len(missing)} are missing: {name_keys(missing)}"
        )
    return sd_unet.ldm_key_map(config).apply(renamed(checkpoint, named))


def flat_name(key: str) -> str:
    """Return a UNet key's name among the running averages, which have no dots."""
    return "diffusion_model" + key.replace(".", "")


def _without(tensors: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
    """Leave out what is no weight; the pattern is over whole keys."""
    return only(tensors, (key for key in tensors if not _NOT_WEIGHTS.fullmatch(prefix + key)))
