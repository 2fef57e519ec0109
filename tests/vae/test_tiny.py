"""A tiny decoder is told by its keys and shapes, in both layouts that files have."""

import pytest
import torch

from sd_vae import TinyDecoder, TinyDecoderConfig, VAEError, tiny_config, tiny_names

SMALL = TinyDecoderConfig(channels=8, num_blocks=(2, 1, 1))


def shapes(decoder: TinyDecoder) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in decoder.state_dict().items()}


@pytest.mark.parametrize("config", [TinyDecoderConfig(), SMALL, TinyDecoderConfig(num_blocks=(1,))])
def test_the_architecture_is_told_by_the_shapes(config: TinyDecoderConfig) -> None:
    assert tiny_config(shapes(TinyDecoder(config))) == config


def test_a_picture_is_as_many_times_as_large_as_sides_are_doubled() -> None:
    with torch.no_grad():
        assert TinyDecoder(SMALL)(torch.randn(2, 4, 5, 3)).shape == (2, 3, 20, 12)
    assert (SMALL.upsampling, TinyDecoderConfig().upsampling) == (4, 8)


def test_every_layouts_keys_are_found() -> None:
    ours = list(TinyDecoder(SMALL).state_dict())
    plain = [key.removeprefix("layers.") for key in ours]
    # TAESD's own decoder counts what bends latents back, so that its first weights are number 1.
    counted = [f"{int(key.partition('.')[0]) + 1}.{key.partition('.')[2]}" for key in plain]
    whole = [f"decoder.layers.{key}" for key in plain]
    for theirs in (plain, counted, whole):
        assert tiny_names(theirs) == dict(zip(ours, theirs, strict=True))
    assert tiny_names([*whole, "encoder.layers.0.weight"]) == dict(zip(ours, whole, strict=True))


def test_taesds_own_numbers_are_those_of_its_repository() -> None:
    """Number 1 is its first convolution, 3 to 5 blocks, 7 the first after a doubling, 19 the last.

    https://github.com/madebyollin/taesd, taesd.py.
    """
    numbers = {int(key.split(".")[1]) + 1 for key in TinyDecoder(TinyDecoderConfig()).state_dict()}
    assert numbers == {1, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 17, 18, 19}


@pytest.mark.parametrize(
    "keys",
    [(), ("decoder.conv_in.weight",), ("2.weight", "3.weight"), ("0.weight", "more")],
)
def test_other_keys_are_refused(keys: tuple[str, ...]) -> None:
    with pytest.raises(VAEError, match="no keys of a tiny autoencoder's decoder"):
        tiny_names(keys)


def test_what_is_no_decoder_and_no_number_is_refused() -> None:
    with pytest.raises(VAEError, match="no tiny autoencoder's decoder"):
        tiny_config({"layers.0.weight": (8, 4, 3, 3), "layers.2.conv.0.weight": (8, 8, 3, 3)})
    with pytest.raises(VAEError, match="must be at least 1"):
        TinyDecoderConfig(num_blocks=(3, 0))
