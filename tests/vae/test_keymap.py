import pytest
import torch

from sd_checkpoint import CheckpointError
from sd_vae import AutoencoderKL, VAEConfig, folder_key_map, ldm_key_map, scenes, sd15

SMALL = VAEConfig(
    latent_channels=3, block_out_channels=(8, 16, 24), layers_per_block=1, norm_num_groups=4
)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("encoder.conv_in.weight", "encoder.conv_in.weight"),
        ("encoder.down.0.block.0.norm1.weight", "encoder.down_blocks.0.resnets.0.norm1.weight"),
        (
            "encoder.down.1.block.0.nin_shortcut.bias",
            "encoder.down_blocks.1.resnets.0.conv_shortcut.bias",
        ),
        (
            "encoder.down.2.downsample.conv.weight",
            "encoder.down_blocks.2.downsamplers.0.conv.weight",
        ),
        ("encoder.mid.block_1.conv2.bias", "encoder.mid_block.resnets.0.conv2.bias"),
        ("encoder.mid.attn_1.norm.weight", "encoder.mid_block.attentions.0.group_norm.weight"),
        ("decoder.mid.attn_1.q.weight", "decoder.mid_block.attentions.0.to_q.weight"),
        ("decoder.mid.attn_1.proj_out.bias", "decoder.mid_block.attentions.0.to_out.0.bias"),
        ("decoder.up.3.block.2.conv1.weight", "decoder.up_blocks.0.resnets.2.conv1.weight"),
        (
            "decoder.up.0.block.0.nin_shortcut.weight",
            "decoder.up_blocks.3.resnets.0.conv_shortcut.weight",
        ),
        ("decoder.up.1.upsample.conv.bias", "decoder.up_blocks.2.upsamplers.0.conv.bias"),
        ("decoder.norm_out.weight", "decoder.conv_norm_out.weight"),
        ("quant_conv.weight", "quant_conv.weight"),
        ("post_quant_conv.bias", "post_quant_conv.bias"),
    ],
)
def test_names_of_latent_diffusion_map_to_ours_and_back(theirs: str, ours: str) -> None:
    assert ldm_key_map().rename(theirs) == ours
    assert ldm_key_map().inverse().rename(ours) == theirs


@pytest.mark.parametrize("config", [sd15(), scenes()])
def test_the_map_covers_the_state_dict_exactly(config: VAEConfig) -> None:
    with torch.device("meta"):
        own = AutoencoderKL(config).state_dict()
    keys = ldm_key_map(config)
    theirs = keys.inverse().apply(own)
    back = keys.apply(theirs)
    assert len(theirs) == len(own)
    assert {k: t.shape for k, t in back.items()} == {k: t.shape for k, t in own.items()}
    foreign = ("_block", "resnets", "samplers", "attentions", "to_", "shortcut", "group_norm")
    assert not [k for k in theirs if any(w in k.replace("nin_shortcut", "") for w in foreign)]


def test_a_round_trip_keeps_every_bit() -> None:
    own = AutoencoderKL(SMALL).state_dict()
    keys = ldm_key_map(SMALL)
    theirs = keys.inverse().apply(own)
    assert theirs["encoder.mid.attn_1.k.weight"].shape == (24, 24, 1, 1)
    back = keys.apply(theirs)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in own.items())


def test_a_key_of_another_part_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"loss\.logvar"):
        ldm_key_map().apply({"loss.logvar": torch.zeros(1)})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("encoder.mid_block.attentions.0.query.weight", "to_q.weight"),
        ("encoder.mid_block.attentions.0.key.bias", "to_k.bias"),
        ("decoder.mid_block.attentions.0.value.weight", "to_v.weight"),
        ("decoder.mid_block.attentions.0.proj_attn.bias", "to_out.0.bias"),
    ],
)
def test_old_folders_and_new_ones_are_read_and_new_ones_written(old: str, new: str) -> None:
    whole = f"{old.partition('.attentions')[0]}.attentions.0.{new}"
    assert folder_key_map().rename(old) == whole
    assert folder_key_map().rename(whole) == whole
    assert folder_key_map().inverse().rename(whole) == whole


def test_the_folder_map_covers_the_state_dict_exactly() -> None:
    own = AutoencoderKL(SMALL).state_dict()
    for keys in (folder_key_map(), folder_key_map().inverse()):
        mapped = keys.apply(own)
        assert mapped.keys() == own.keys()
        assert all(mapped[key] is tensor for key, tensor in own.items())


def test_one_linear_under_both_spellings_is_refused() -> None:
    layer = "encoder.mid_block.attentions.0"
    both = {f"{layer}.query.bias": torch.zeros(1), f"{layer}.to_q.bias": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"to_q\.bias"):
        folder_key_map().apply(both)
