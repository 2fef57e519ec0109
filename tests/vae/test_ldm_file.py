from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sd_checkpoint import CheckpointError
from sd_vae import (
    AutoencoderKL,
    VAEConfig,
    VAEError,
    config_from_ldm,
    ldm_key_map,
    scenes,
    sd15,
    sdxl,
    without_training,
)


def ldm(config: VAEConfig) -> Mapping[str, Tensor]:
    with torch.device("meta"):
        own = AutoencoderKL(config).state_dict()
    return ldm_key_map(config).inverse().apply(own)


def ldm_shapes(config: VAEConfig) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in ldm(config).items()}


@pytest.mark.parametrize(
    "config",
    [
        sd15(),
        scenes(),
        replace(sdxl(), force_upcast=False),
        VAEConfig(block_out_channels=(32,), mid_block_add_attention=False),
    ],
)
def test_shapes_tell_the_architecture_and_the_caller_the_rest(config: VAEConfig) -> None:
    told = config_from_ldm(
        ldm_shapes(config),
        scaling_factor=config.scaling_factor,
        sample_size=config.sample_size,
        norm_num_groups=config.norm_num_groups,
    )
    assert told == config


@pytest.mark.parametrize(
    "absent", ["encoder.conv_in.weight", "decoder.conv_out.weight", "post_quant_conv.weight"]
)
def test_keys_of_no_autoencoder_are_refused_with_the_one_that_is_absent(absent: str) -> None:
    shapes = ldm_shapes(scenes())
    del shapes[absent]
    with pytest.raises(VAEError, match=absent) as caught:
        config_from_ldm(shapes, scaling_factor=1.0, sample_size=128)
    assert "\n" not in str(caught.value)


def test_blocks_of_unequal_depth_are_refused() -> None:
    shapes = {k: s for k, s in ldm_shapes(sd15()).items() if "encoder.down.2.block.1." not in k}
    with pytest.raises(VAEError, match=r"\[1, 2\] layers a block"):
        config_from_ldm(shapes, scaling_factor=1.0, sample_size=128)


class Reads(Mapping[str, Tensor]):
    """Counts the tensors that are asked for."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.number = 0

    def __getitem__(self, key: str) -> Tensor:
        self.number += 1
        return self.tensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def test_a_stand_alone_file_is_read_without_what_trained_it() -> None:
    training = ("loss.logvar", "loss.discriminator.main.0.weight", "model_ema.num_updates")
    network = ldm(scenes())
    file = Reads({**network, **dict.fromkeys(training, torch.zeros(1))})
    kept = without_training(file)
    assert len(kept) == len(file) - len(training)
    assert file.number == 0
    assert kept["encoder.conv_in.bias"] is network["encoder.conv_in.bias"]
    with pytest.raises(KeyError):
        kept["loss.logvar"]
    assert len(ldm_key_map(scenes()).apply(kept)) == len(network)


def test_any_other_key_of_a_stand_alone_file_is_refused_by_name() -> None:
    file = {**ldm(scenes()), "encoder.down.3.attn.0.q.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"encoder\.down\.3\.attn\.0\.q\.weight"):
        ldm_key_map(scenes()).apply(without_training(file))
