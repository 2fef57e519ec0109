"""Attention is perturbed for the rows it is asked for, and for nothing else."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sd_unet import AddedConditions, UNet, UNetInputError, perturbed_attention, self_attentions
from tests.unet.families import POOLED_DIM, TINY


def randomised(name: str) -> UNet:
    torch.manual_seed(0)
    unet = UNet(TINY[name]).eval()
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.normal_(std=parameter[0].numel() ** -0.5)
    return unet


@pytest.fixture(scope="module")
def unet() -> UNet:
    return randomised("sd15")


def args(unet: UNet, number: int = 3, side: int = 16) -> tuple:
    generator = torch.Generator().manual_seed(1)
    config = unet.config
    latents = torch.randn(number, config.in_channels, side, side, generator=generator)
    states = torch.randn(number, 5, config.cross_attention_dim, generator=generator)
    added = None
    if config.projection_input_dim is not None:
        sizes = torch.full((number, config.num_sizes(POOLED_DIM)), 64.0)
        added = AddedConditions(torch.randn(number, POOLED_DIM, generator=generator), sizes)
    return latents, torch.full((number,), 500), states, added


@torch.no_grad()
def predict(unet: UNet, *given, layers: Sequence[str] = ("mid",), num_rows: int = 0) -> Tensor:
    with perturbed_attention(unet, layers, num_rows):
        return unet(*given)


@pytest.mark.parametrize("name", TINY)
def test_the_last_rows_are_perturbed_and_the_others_are_not_to_the_bit(name: str) -> None:
    unet = randomised(name)
    given = args(unet)
    plain = predict(unet, *given)
    for num_rows in (1, 2):
        perturbed = predict(unet, *given, num_rows=num_rows)
        assert torch.equal(perturbed[:-num_rows], plain[:-num_rows])
        assert (perturbed - plain)[-num_rows:].abs().amax((1, 2, 3)).min() > 1e-3
    assert (predict(unet, *given, num_rows=3) - plain).abs().amax((1, 2, 3)).min() > 1e-3


@torch.no_grad()
def test_no_rows_are_none(unet: UNet) -> None:
    given = args(unet)
    assert torch.equal(predict(unet, *given), unet(*given))


@torch.no_grad()
def test_it_is_undone_to_the_bit_and_renames_nothing(unet: UNet) -> None:
    given, keys = args(unet), list(unet.state_dict())
    plain = unet(*given)
    with perturbed_attention(unet, ("mid", "down", "up"), 1):
        assert list(unet.state_dict()) == keys
        assert not torch.equal(unet(*given), plain)
    assert torch.equal(unet(*given), plain)


@torch.no_grad()
def test_it_is_undone_after_an_exception(unet: UNet) -> None:
    given = args(unet)
    plain = unet(*given)
    with pytest.raises(KeyboardInterrupt), perturbed_attention(unet, ("mid",), 1):
        raise KeyboardInterrupt
    assert torch.equal(unet(*given), plain)


def test_a_picture_of_one_place_sees_itself_anyway(unet: UNet) -> None:
    # The mid block of eight times less has one place, whose attention map is the identity.
    given = args(unet, side=8)
    perturbed, plain = (predict(unet, *given, num_rows=n) for n in (3, 0))
    torch.testing.assert_close(perturbed, plain, rtol=0, atol=1e-5)
    assert not torch.allclose(predict(unet, *given, layers=["down"], num_rows=3), plain, atol=1e-3)


@torch.no_grad()
def test_an_adapter_on_the_values_is_heeded(unet: UNet) -> None:
    given = args(unet)
    before = predict(unet, *given, num_rows=1)
    (attention,) = self_attentions(unet, ["mid"]).values()
    with attention.to_v.register_forward_hook(lambda _module, _args, output: 2 * output):
        after = predict(unet, *given, num_rows=1)
    assert not torch.allclose(before[-1:], after[-1:], atol=1e-3)


def test_half_precision_stays_what_it_is() -> None:
    unet = randomised("sd21").to(torch.bfloat16)  # which attends in float32
    latents, timesteps, states, _ = args(unet)
    out = predict(unet, latents.bfloat16(), timesteps, states.bfloat16(), num_rows=1)
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("layers", "number"),
    [
        (["mid"], 1),
        (["down"], 6),
        (["up"], 9),
        (["mid", "mid_block"], 1),
        (["down_blocks.1"], 2),
        (["up_blocks.3.attentions.0", "mid"], 2),
        (["down_blocks.0.attentions.1.transformer_blocks.0.attn1"], 1),
    ],
)
def test_layers_are_named_by_block_or_by_module(
    unet: UNet, layers: Sequence[str], number: int
) -> None:
    chosen = self_attentions(unet, layers)
    assert len(chosen) == number
    modules = dict(unet.named_modules())
    assert all(modules[name] is attention for name, attention in chosen.items())
    assert all(name.endswith(".attn1") for name in chosen)


@pytest.mark.parametrize("layer", ["middle", "down_blocks.3", "down_blocks.", "conv_in", ""])
def test_a_layer_without_self_attention_is_refused_with_those_there_are(
    unet: UNet, layer: str
) -> None:
    with (
        pytest.raises(UNetInputError, match=rf"layer '{layer}' has no .* mid, down, up, or"),
        perturbed_attention(unet, [layer], 1),
    ):
        pass
