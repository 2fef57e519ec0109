"""The architecture told from the shapes of a single file."""

from dataclasses import replace

import pytest
import torch

from sd_unet import (
    UNet,
    UNetConfig,
    UNetConfigError,
    config_from_ldm,
    ldm_key_map,
    sd15,
    sd21,
    sdxl,
    sdxl_refiner,
)
from tests.unet.families import TINY


def ldm_shapes(config: UNetConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        ours = UNet(config).state_dict()
    theirs = ldm_key_map(config).inverse().apply(ours)
    return {key: tuple(tensor.shape) for key, tensor in theirs.items()}


@pytest.mark.parametrize(
    "config",
    [
        sd15(),
        replace(sd15(), in_channels=9),
        replace(sd15(), in_channels=8),
        replace(sd21(), in_channels=5, upcast_attention=False),
        sdxl(),
        sdxl_refiner(),
    ],
    ids=["sd15", "inpainting", "pix2pix", "sd2-depth", "sdxl", "sdxl-refiner"],
)
def test_shapes_of_a_published_file_tell_the_preset(config: UNetConfig) -> None:
    assert config_from_ldm(ldm_shapes(config), sample_size=config.sample_size) == config


@pytest.mark.parametrize("name", TINY)
def test_what_no_shape_shows_is_taken_from_the_caller(name: str) -> None:
    config = TINY[name]
    told = config_from_ldm(
        ldm_shapes(config),
        sample_size=config.sample_size,
        num_heads=config.num_heads,
        norm_num_groups=config.norm_num_groups,
        addition_time_embed_dim=config.addition_time_embed_dim or 256,
    )
    assert told == replace(config, upcast_attention=False)


def test_heads_that_cannot_be_guessed_are_asked_for() -> None:
    with pytest.raises(UNetConfigError, match="give num_heads"):
        config_from_ldm(ldm_shapes(TINY["sd21"]), sample_size=16)


@pytest.mark.parametrize(
    "absent",
    ["input_blocks.0.0.weight", "middle_block.1.proj_in.weight", "out.2.weight"],
)
def test_keys_of_no_unet_are_refused_with_the_one_that_is_absent(absent: str) -> None:
    shapes = ldm_shapes(TINY["inpainting"])
    del shapes[absent]
    with pytest.raises(UNetConfigError, match=absent) as caught:
        config_from_ldm(shapes, sample_size=16)
    assert "\n" not in str(caught.value)


def test_another_kind_of_network_is_refused() -> None:
    with pytest.raises(UNetConfigError, match=r"input_blocks\.0\.0\.weight is absent"):
        config_from_ldm({"double_blocks.0.img_attn.qkv.weight": (9216, 3072)}, sample_size=128)


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("input_blocks.5.1.transformer_blocks.1", r"before input_blocks\.6 are \[1, 2\]"),
        ("middle_block.1.transformer_blocks.2", r"in the mid block are \[2, 3\]"),
        ("input_blocks.8.", r"layers a level are \[1, 2\]"),
    ],
)
def test_lopsided_networks_are_refused(gone: str, words: str) -> None:
    shapes = {key: s for key, s in ldm_shapes(TINY["sdxl"]).items() if not key.startswith(gone)}
    with pytest.raises(UNetConfigError, match=words):
        config_from_ldm(shapes, sample_size=16, num_heads=1)
