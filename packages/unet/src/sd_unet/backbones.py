"""The networks that there are, told apart by their configs."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from sd_unet.config import UNetConfig
from sd_unet.dit import DiT, DiTBlock
from sd_unet.dit_config import DIT_CLASS, DiTConfig
from sd_unet.resnet import ResnetBlock
from sd_unet.transformer import TransformerBlock
from sd_unet.unet import UNet

Backbone = UNet | DiT
"""What predicts from (latents, timesteps, hidden_states, added), whichever its inside."""

BackboneConfig = UNetConfig | DiTConfig


def backbone_config(values: Mapping[str, Any]) -> BackboneConfig:
    """Read a network's config.json; raises ``UNetConfigError`` for one of another class."""
    if values.get("_class_name") == DIT_CLASS:
        return DiTConfig.from_diffusers(values)
    return UNetConfig.from_diffusers(values)


def build_backbone(config: BackboneConfig) -> Backbone:
    """Make the network of a config, with new weights."""
    return DiT(config) if isinstance(config, DiTConfig) else UNet(config)


def backbone_layers(backbone: Backbone) -> list[nn.Module]:
    """List the res and transformer blocks of a network, which have most of its weights.

    None is within another; each is called as a module.
    """
    kinds = (ResnetBlock, TransformerBlock, DiTBlock)
    return [module for module in backbone.modules() if isinstance(module, kinds)]
