"""LDM's key names <-> ours."""

import pytest
import torch

from sd_checkpoint import CheckpointError
from sd_unet import UNet, UNetConfig, ldm_key_map, scenes, sd15, sd21, sdxl, sdxl_refiner
from tests.unet.families import TINY

# Written down from the layout of the published v1-5 checkpoint, not from our table.
KNOWN = {
    "time_embed.0.weight": ("time_embedding.linear_1.weight", (1280, 320)),
    "input_blocks.0.0.weight": ("conv_in.weight", (320, 4, 3, 3)),
    "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (
        "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight",
        (320, 768),
    ),
    "input_blocks.3.0.op.weight": ("down_blocks.0.downsamplers.0.conv.weight", (320, 320, 3, 3)),
    "input_blocks.4.0.skip_connection.weight": (
        "down_blocks.1.resnets.0.conv_shortcut.weight",
        (640, 320, 1, 1),
    ),
    "input_blocks.11.0.emb_layers.1.bias": ("down_blocks.3.resnets.1.time_emb_proj.bias", (1280,)),
    "middle_block.1.proj_in.weight": ("mid_block.attentions.0.proj_in.weight", (1280, 1280, 1, 1)),
    "middle_block.2.out_layers.3.weight": (
        "mid_block.resnets.1.conv2.weight",
        (1280, 1280, 3, 3),
    ),
    "output_blocks.2.1.conv.weight": ("up_blocks.0.upsamplers.0.conv.weight", (1280, 1280, 3, 3)),
    "output_blocks.5.2.conv.weight": ("up_blocks.1.upsamplers.0.conv.weight", (1280, 1280, 3, 3)),
    "output_blocks.8.0.in_layers.0.weight": ("up_blocks.2.resnets.2.norm1.weight", (960,)),
    "output_blocks.11.1.transformer_blocks.0.ff.net.0.proj.bias": (
        "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj.bias",
        (2560,),
    ),
    "out.0.weight": ("conv_norm_out.weight", (320,)),
    "out.2.weight": ("conv_out.weight", (4, 320, 3, 3)),
}

# The same of SDXL's.
KNOWN_SDXL = {
    "label_emb.0.0.weight": ("add_embedding.linear_1.weight", (1280, 2816)),
    "label_emb.0.2.bias": ("add_embedding.linear_2.bias", (1280,)),
    "input_blocks.3.0.op.bias": ("down_blocks.0.downsamplers.0.conv.bias", (320,)),
    "input_blocks.4.1.proj_in.weight": ("down_blocks.1.attentions.0.proj_in.weight", (640, 640)),
    "input_blocks.8.1.transformer_blocks.9.attn2.to_v.weight": (
        "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_v.weight",
        (1280, 2048),
    ),
    "middle_block.1.transformer_blocks.9.ff.net.2.weight": (
        "mid_block.attentions.0.transformer_blocks.9.ff.net.2.weight",
        (1280, 5120),
    ),
    "output_blocks.2.2.conv.weight": ("up_blocks.0.upsamplers.0.conv.weight", (1280, 1280, 3, 3)),
    "output_blocks.3.1.transformer_blocks.1.norm3.bias": (
        "up_blocks.1.attentions.0.transformer_blocks.1.norm3.bias",
        (640,),
    ),
    "output_blocks.8.0.skip_connection.weight": (
        "up_blocks.2.resnets.2.conv_shortcut.weight",
        (320, 640, 1, 1),
    ),
}
FULL = {
    "sd15": sd15(),
    "sd21": sd21(),
    "sdxl": sdxl(),
    "sdxl-refiner": sdxl_refiner(),
    "scenes": scenes(),
}


@pytest.mark.parametrize(
    "config", [*FULL.values(), *TINY.values()], ids=[*FULL, *map("tiny-{}".format, TINY)]
)
def test_map_is_total_both_ways(config: UNetConfig) -> None:
    with torch.device("meta"):
        ours = UNet(config).state_dict()
    key_map = ldm_key_map(config)
    theirs = key_map.inverse().apply(ours)
    assert len(theirs) == len(ours)
    back = key_map.apply(theirs)
    assert back.keys() == ours.keys()
    assert all(back[key].shape == ours[key].shape for key in ours)


@pytest.mark.parametrize(("config", "known"), [(sd15(), KNOWN), (sdxl(), KNOWN_SDXL)])
def test_names_and_shapes_of_the_published_checkpoints(
    config: UNetConfig, known: dict[str, tuple[str, tuple[int, ...]]]
) -> None:
    with torch.device("meta"):
        ours = UNet(config).state_dict()
    key_map = ldm_key_map(config)
    for ldm_key, (key, shape) in known.items():
        assert key_map.rename(ldm_key) == key
        assert tuple(ours[key].shape) == shape


@pytest.mark.parametrize("config", TINY.values(), ids=TINY)
def test_round_trip_is_bit_exact(config: UNetConfig) -> None:
    torch.manual_seed(0)
    unet = UNet(config)
    key_map = ldm_key_map(config)
    back = key_map.apply(key_map.inverse().apply(unet.state_dict()))
    other = UNet(config)
    other.load_state_dict(back)
    for key, tensor in unet.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor)


def test_keys_of_another_family_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match="label_emb"):
        ldm_key_map().apply({"label_emb.0.0.weight": torch.zeros(1)})
