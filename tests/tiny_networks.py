"""Denoisers of every kind at a few thousand parameters, and what they are asked."""

from dataclasses import replace

import pytest
import torch

from sd_unet import AddedConditions, Backbone, UNet, sdxl
from tests.tiny_model import tiny_class_parts, tiny_parts, tiny_text_and_class_parts


def tiny_sdxl() -> UNet:
    torch.manual_seed(0)
    config = replace(
        sdxl(),
        sample_size=8,
        block_out_channels=(32, 64),
        attention_levels=(False, True),
        layers_per_block=1,
        cross_attention_dim=32,
        num_heads=2,
        transformer_layers=(1, 1),
        addition_time_embed_dim=8,
        projection_input_dim=16 + 6 * 8,
        upcast_attention=True,
    )
    unet = UNet(config)
    with torch.no_grad():
        for parameter in unet.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return unet


def asked(network: Backbone, *, height: int = 8, width: int = 8) -> tuple[torch.Tensor, ...]:
    """Ask for one picture told two ways, as guidance does: its network's arguments."""
    generator = torch.Generator().manual_seed(0)
    config = network.config
    latents = torch.randn((1, config.in_channels, height, width), generator=generator)
    states = torch.randn((2, 12, 32), generator=generator) if config.takes_text else None
    added = labels = None
    if config.takes_sizes:
        pooled = torch.randn((2, 16), generator=generator)
        added = AddedConditions(pooled=pooled, sizes=torch.full((2, 6), 1022.0))
    if config.takes_classes:
        labels = torch.tensor([3, 1])
    return latents, torch.tensor([481.5]), states, added, labels


all_kinds = pytest.mark.parametrize(
    ("network", "height", "width"),
    [
        (tiny_parts(in_channels=9).unet, 7, 9),
        (tiny_sdxl(), 8, 8),
        (tiny_text_and_class_parts().unet, 8, 8),
        (tiny_class_parts(dit=True).unet, 8, 8),
    ],
    ids=["inpainting, odd sides", "SDXL, upcast", "text and classes", "a DiT of classes"],
)
"""Of networks, with sides of their latents that `asked` is to have."""
