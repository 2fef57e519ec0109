import dataclasses
import json
from typing import Any

import pytest

from sd_vae import VAEConfig, VAEError, scenes, sd15, sd21, sdxl
from tests.vae.published import PUBLISHED


@pytest.mark.parametrize(
    "config", [sd15(), sdxl(), scenes(), VAEConfig(mid_block_add_attention=False)]
)
def test_a_config_survives_the_way_through_a_config_json(config: VAEConfig) -> None:
    assert VAEConfig.from_diffusers(json.loads(json.dumps(config.to_diffusers()))) == config


PRESETS = {
    "sd14": sd15(),
    "sd15": sd15(),
    "sd-vae-ft-mse": dataclasses.replace(sd15(), sample_size=256),
    "sd21": sd21(),
    "sdxl": sdxl(),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_is_the_preset(name: str) -> None:
    assert VAEConfig.from_diffusers(PUBLISHED[name]) == PRESETS[name]


def test_only_sdxl_says_that_its_weights_overflow_half_precision() -> None:
    assert sdxl().force_upcast
    assert sdxl().to_diffusers()["force_upcast"] is True
    assert not sd15().force_upcast
    assert not VAEConfig.from_diffusers(PUBLISHED["sdxl"] | {"force_upcast": False}).force_upcast


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("act_fn", "relu"),
        ("down_block_types", ["AttnDownEncoderBlock2D"] * 4),
        ("up_block_types", ["UpDecoderBlock2D"]),
        ("use_quant_conv", False),
        ("use_post_quant_conv", False),
        ("shift_factor", 0.1),
        ("latents_mean", [0.0] * 4),
        ("_class_name", "AutoencoderTiny"),
    ],
)
def test_what_is_not_built_here_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(VAEError, match="AutoencoderTiny" if name == "_class_name" else name):
        VAEConfig.from_diffusers(sd15().to_diffusers() | {name: value})


def test_a_width_that_the_norm_groups_do_not_divide_is_refused() -> None:
    with pytest.raises(VAEError, match="block width 40 is not a multiple of norm_num_groups 32"):
        VAEConfig(block_out_channels=(32, 40))


def test_no_width_at_all_is_refused() -> None:
    with pytest.raises(VAEError, match="at least one width"):
        VAEConfig(block_out_channels=())


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        sd15().latent_channels = 16  # type: ignore[misc]
