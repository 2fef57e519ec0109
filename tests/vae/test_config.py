import dataclasses
import json
from typing import Any

import pytest

from sd_vae import VAEConfig, VAEError, scenes, sd15


@pytest.mark.parametrize("config", [sd15(), scenes(), VAEConfig(mid_block_add_attention=False)])
def test_a_config_survives_the_way_through_a_config_json(config: VAEConfig) -> None:
    assert VAEConfig.from_diffusers(json.loads(json.dumps(config.to_diffusers()))) == config


def test_the_config_of_stable_diffusion_1_5_is_the_sd15_preset() -> None:
    published = {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": "0.6.0",
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 512,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
    assert VAEConfig.from_diffusers(published) == sd15()


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
