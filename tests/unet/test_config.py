"""The architecture's numbers, and their diffusers config.json."""

import json
from dataclasses import replace

import pytest
import torch

from sd_unet import (
    UNet,
    UNetConfig,
    UNetConfigError,
    UNetInputError,
    scenes,
    sd15,
    sd21,
    sdxl,
    sdxl_refiner,
)
from tests.unet.families import TINY
from tests.unet.published import PUBLISHED

SD15 = PUBLISHED["sd15"]
PRESETS = {
    "sd14": sd15(),
    "sd15": sd15(),
    "sd15-inpainting": replace(sd15(), in_channels=9),
    "instruct-pix2pix": replace(sd15(), in_channels=8),
    "sd20-base": replace(sd21(), sample_size=64, upcast_attention=False),
    "sd20-inpainting": replace(sd21(), sample_size=64, upcast_attention=False, in_channels=9),
    "sd20-depth": replace(sd21(), sample_size=32, upcast_attention=False, in_channels=5),
    "sd21": sd21(),
    "sdxl": sdxl(),
    "sdxl-refiner": sdxl_refiner(),
}


def num_parameters(config: UNetConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in UNet(config).parameters())


@pytest.mark.parametrize(
    ("config", "number"),
    [
        (sd15(), 859_520_964),
        (sd21(), 865_910_724),
        (sdxl(), 2_567_463_684),
        (sdxl_refiner(), 2_259_526_660),
        (scenes(), 15_085_448),
    ],
)
def test_full_size_has_the_published_number_of_parameters(config: UNetConfig, number: int) -> None:
    assert num_parameters(config) == number


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_config_is_the_preset(name: str) -> None:
    assert UNetConfig.from_diffusers(PUBLISHED[name]) == PRESETS[name]


@pytest.mark.parametrize(
    "config",
    [
        *(sd15(), sd21(), sdxl(), sdxl_refiner(), scenes()),
        *TINY.values(),
    ],
)
def test_diffusers_config_survives_json(config: UNetConfig) -> None:
    assert UNetConfig.from_diffusers(json.loads(json.dumps(config.to_diffusers()))) == config


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("addition_embed_type", "text_image"),
        ("addition_embed_type", "text_time"),
        ("class_embed_type", "projection"),
        ("act_fn", "mish"),
        ("encoder_hid_dim", 512),
        ("layers_per_block", [2, 2, 2, 1]),
        ("sample_size", [64, 96]),
        ("transformer_layers_per_block", [1, [1, 2], 1, 1]),
        ("reverse_transformer_layers_per_block", [4, 4, 10]),
        ("cross_attention_dim", None),
        ("dual_cross_attention", True),
        ("mid_block_type", "UNetMidBlock2D"),
        ("a_setting_of_tomorrow", True),
    ],
)
def test_setting_we_have_not_is_refused_by_name_and_value(setting: str, value: object) -> None:
    with pytest.raises(UNetConfigError) as caught:
        UNetConfig.from_diffusers(SD15 | {setting: value})
    assert setting in str(caught.value)
    assert repr(value) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, False])
def test_setting_of_tomorrow_is_harmless_while_it_is_off(value: object) -> None:
    values = SD15 | {"a_setting_of_tomorrow": value}
    assert UNetConfig.from_diffusers(values) == sd15()


def test_how_a_network_was_averaged_is_no_matter() -> None:
    averaging = {"decay": 0.9999, "inv_gamma": 1.0, "optimization_step": 37000, "power": 0.6667}
    assert UNetConfig.from_diffusers(SD15 | averaging) == sd15()


def test_widths_of_conditions_mean_nothing_without_the_conditions() -> None:
    values = PUBLISHED["sdxl"] | {"addition_embed_type": None}
    assert UNetConfig.from_diffusers(values).projection_input_dim is None


def test_pooled_text_leaves_room_for_six_sizes_or_the_refiners_five() -> None:
    assert sdxl().num_sizes(1280) == 6
    assert sdxl_refiner().num_sizes(1280) == 5


@pytest.mark.parametrize("config", [sd15(), sdxl()])
def test_pooled_text_of_another_encoder_is_refused(config: UNetConfig) -> None:
    with pytest.raises(UNetInputError, match="pooled text"):
        config.num_sizes(1000)


def test_unknown_block_types_and_lopsided_networks_are_refused() -> None:
    down = ["AttnDownBlock2D", *SD15["down_block_types"][1:]]
    with pytest.raises(UNetConfigError, match="AttnDownBlock2D"):
        UNetConfig.from_diffusers(SD15 | {"down_block_types": down})
    with pytest.raises(UNetConfigError, match="mirror"):
        UNetConfig.from_diffusers(SD15 | {"up_block_types": ["UpBlock2D"] * 4})


def test_config_of_another_class_is_refused() -> None:
    with pytest.raises(UNetConfigError, match="AutoencoderKL"):
        UNetConfig.from_diffusers({"_class_name": "AutoencoderKL"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_levels": (True, False)}, "2 entries for 4 levels"),
        ({"num_heads": (8, 8)}, "2 entries for 4 levels"),
        ({"num_heads": 7}, "num_heads 7 does not divide 320"),
        ({"transformer_layers": (1, 0, 1, 1)}, "transformer_layers 0 at level 1"),
        ({"projection_input_dim": 2816}, "addition_time_embed_dim None and .* 2816 go together"),
        ({"norm_num_groups": 48}, "norm_num_groups 48 does not divide 320"),
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(
    change: dict[str, object], words: str
) -> None:
    with pytest.raises(UNetConfigError, match=words):
        replace(sd15(), **change)
