"""Denoisers of latents told by text: the UNet of Stable Diffusion, and a diffusion transformer."""

from sd_unet.backbones import (
    Backbone,
    BackboneConfig,
    backbone_config,
    backbone_layers,
    build_backbone,
)
from sd_unet.conditions import AddedConditions
from sd_unet.config import UNetConfig, scenes, sd15, sd21, sdxl, sdxl_refiner
from sd_unet.dit import DiT
from sd_unet.dit_config import DiTConfig, dit_scenes, dit_xl_2
from sd_unet.errors import UNetConfigError, UNetInputError
from sd_unet.kept_texts import project_texts, texts_given, texts_kept
from sd_unet.keymap import ldm_key_map
from sd_unet.ldm_config import config_from_ldm
from sd_unet.merged_tokens import MAX_MERGED, tokens_merged
from sd_unet.perturbed import perturbed_attention, self_attentions
from sd_unet.reused_features import FeatureReuse, features_reused
from sd_unet.timestep import sinusoidal_embedding
from sd_unet.unet import UNet

__all__ = [
    "MAX_MERGED",
    "AddedConditions",
    "Backbone",
    "BackboneConfig",
    "DiT",
    "DiTConfig",
    "FeatureReuse",
    "UNet",
    "UNetConfig",
    "UNetConfigError",
    "UNetInputError",
    "backbone_config",
    "backbone_layers",
    "build_backbone",
    "config_from_ldm",
    "dit_scenes",
    "dit_xl_2",
    "features_reused",
    "ldm_key_map",
    "perturbed_attention",
    "project_texts",
    "scenes",
    "sd15",
    "sd21",
    "sdxl",
    "sdxl_refiner",
    "self_attentions",
    "sinusoidal_embedding",
    "texts_given",
    "texts_kept",
    "tokens_merged",
]
