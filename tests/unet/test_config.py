"""The architecture's numbers, and their diffusers config.json."""

import json
from dataclasses import replace

import pytest
import torch

from sd_unet import UNet, UNetConfig, UNetConfigError, scenes, sd15

# The config.json published with Stable Diffusion 1.5, as it stands.
PUBLISHED_SD15 = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": [
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    ],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": [
        "UpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
    ],
}

# What Stable Diffusion 2.1's says beside or other than that.
PUBLISHED_SD21 = PUBLISHED_SD15 | {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "dual_cross_attention": False,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "sample_size": 96,
    "upcast_attention": True,
    "use_linear_projection": True,
}


def num_parameters(config: UNetConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in UNet(config).parameters())


def test_full_size_has_the_published_number_of_parameters() -> None:
    assert num_parameters(sd15()) == 859_520_964


def test_sd2_is_a_config_of_the_same_class() -> None:
    config = UNetConfig.from_diffusers(PUBLISHED_SD21)
    assert config.num_heads == (5, 10, 20, 20)
    assert num_parameters(config) == 865_910_724


def test_embedded_model_fits_its_place() -> None:
    assert num_parameters(scenes()) == 15_085_448


def test_published_sd15_config_is_the_preset() -> None:
    assert UNetConfig.from_diffusers(PUBLISHED_SD15) == sd15()


def test_inpainting_config_differs_in_its_inputs_only() -> None:
    config = UNetConfig.from_diffusers(PUBLISHED_SD15 | {"in_channels": 9})
    assert config == replace(sd15(), in_channels=9)


@pytest.mark.parametrize(
    "config",
    [
        sd15(),
        scenes(),
        UNetConfig(
            block_out_channels=(32, 64, 96),
            attention_levels=(False, True, True),
            num_heads=(1, 2, 3),
            transformer_layers=(1, 2, 4),
        ),
    ],
)
def test_diffusers_config_survives_json(config: UNetConfig) -> None:
    assert UNetConfig.from_diffusers(json.loads(json.dumps(config.to_diffusers()))) == config


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("addition_embed_type", "text_time"),
        ("class_embed_type", "projection"),
        ("act_fn", "mish"),
        ("encoder_hid_dim", 512),
        ("layers_per_block", [2, 2, 2, 1]),
        ("mid_block_type", "UNetMidBlock2D"),
        ("a_setting_of_tomorrow", True),
    ],
)
def test_setting_we_have_not_is_refused_by_name_and_value(setting: str, value: object) -> None:
    with pytest.raises(UNetConfigError) as caught:
        UNetConfig.from_diffusers(PUBLISHED_SD15 | {setting: value})
    assert setting in str(caught.value)
    assert repr(value) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, False])
def test_setting_of_tomorrow_is_harmless_while_it_is_off(value: object) -> None:
    values = PUBLISHED_SD15 | {"a_setting_of_tomorrow": value}
    assert UNetConfig.from_diffusers(values) == sd15()


def test_unknown_block_types_and_lopsided_networks_are_refused() -> None:
    down = ["AttnDownBlock2D", *PUBLISHED_SD15["down_block_types"][1:]]
    with pytest.raises(UNetConfigError, match="AttnDownBlock2D"):
        UNetConfig.from_diffusers(PUBLISHED_SD15 | {"down_block_types": down})
    with pytest.raises(UNetConfigError, match="mirror"):
        UNetConfig.from_diffusers(PUBLISHED_SD15 | {"up_block_types": ["UpBlock2D"] * 4})


def test_config_of_another_class_is_refused() -> None:
    with pytest.raises(UNetConfigError, match="AutoencoderKL"):
        UNetConfig.from_diffusers({"_class_name": "AutoencoderKL"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_levels": (True, False)}, "2 entries for 4 levels"),
        ({"num_heads": (8, 8)}, "2 entries for 4 levels"),
        ({"num_heads": 7}, "num_heads 7 does not divide 320"),
        ({"norm_num_groups": 48}, "norm_num_groups 48 does not divide 320"),
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(
    change: dict[str, object], words: str
) -> None:
    with pytest.raises(UNetConfigError, match=words):
        replace(sd15(), **change)
