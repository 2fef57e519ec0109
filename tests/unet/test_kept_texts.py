"""Keys and values of a text are computed once, wherever that changes nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sd_ops import hold_as_int8
from sd_unet import DiT, UNet, perturbed_attention, texts_kept
from sd_unet.dit import DiTBlock
from sd_unet.transformer import TransformerBlock
from tests.unet.families import TINY
from tests.unet.test_pag import args, randomised


@pytest.fixture
def unet() -> UNet:
    return randomised("sd15").requires_grad_(False)


def counted(unet: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Note each call of a projection of texts, past whatever hooks there are."""
    asked: list[nn.Module] = []
    for block in unet.modules():
        if isinstance(block, TransformerBlock | DiTBlock):
            for layer in (block.attn2.to_k, block.attn2.to_v):
                monkeypatch.setattr(layer, "forward", noting(layer, asked))
    return asked


def noting(layer: nn.Module, asked: list[nn.Module]) -> Callable[[Tensor], Tensor]:
    forward = layer.forward

    def noted(x: Tensor) -> Tensor:
        asked.append(layer)
        return forward(x)

    return noted


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_steps_give_the_same_to_the_bit(name: str) -> None:
    unet = randomised(name).requires_grad_(False)
    latents, timesteps, *told = args(unet)
    with texts_kept(unet):
        found = [unet(latents, timesteps - step, *told) for step in (0, 100)]
    for step, one in zip((0, 100), found, strict=True):
        assert torch.equal(one, unet(latents, timesteps - step, *told))


@torch.no_grad()
def test_a_text_is_asked_for_once_and_another_or_an_equal_one_again(
    unet: UNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = counted(unet, monkeypatch)
    latents, timesteps, states, _ = args(unet)
    unet(latents, timesteps, states)
    each = len(asked)
    with texts_kept(unet):
        for told, calls in ((states, 2), (states, 2), (states.clone(), 3), (states, 3)):
            unet(latents, timesteps, told)
            assert len(asked) == calls * each
    unet(latents, timesteps, states)
    assert len(asked) == 4 * each


@torch.no_grad()
def test_what_weights_held_as_int8_make_of_a_text_is_kept_too(
    unet: UNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_as_int8(unet)
    asked = counted(unet, monkeypatch)
    given = args(unet)
    plain = unet(*given)
    each = len(asked)
    with texts_kept(unet):
        assert all(torch.equal(unet(*given), plain) for _ in range(3))
    assert len(asked) == 2 * each


@torch.no_grad()
def test_what_hangs_on_a_projection_is_heeded_at_every_step(unet: UNet) -> None:
    given = args(unet)
    layer = next(m for m in unet.modules() if isinstance(m, TransformerBlock)).attn2.to_k
    strength = 1.0
    with texts_kept(unet):
        plain = unet(*given)
        handle = layer.register_forward_hook(lambda _m, _i, out: out * (1 + strength))
        first = unet(*given)
        strength = 2.0
        second = unet(*given)
        handle.remove()
        handle = layer.register_forward_pre_hook(lambda _m, inputs: (inputs[0] + 1,))
        third = unet(*given)
        handle.remove()
        assert torch.equal(unet(*given), plain)
    assert not torch.equal(plain, first)
    assert not torch.equal(first, second)
    assert not torch.equal(plain, third)


@torch.no_grad()
def test_a_projection_that_is_written_to_computes_anew(unet: UNet) -> None:
    given = args(unet)
    layer = next(m for m in unet.modules() if isinstance(m, TransformerBlock)).attn2.to_v
    with texts_kept(unet):
        plain = unet(*given)
        layer.weight.mul_(3)  # as a LoRA is fused
        written = unet(*given)
        layer.weight = nn.Parameter(2 * layer.weight, requires_grad=False)
        replaced = unet(*given)
    assert not torch.equal(plain, written)
    assert torch.equal(replaced, unet(*given))


def test_gradients_flow_as_ever(unet: UNet) -> None:
    latents, timesteps, states, _ = args(unet)
    states.requires_grad_()
    with texts_kept(unet):
        for _ in range(2):
            unet(latents, timesteps, states).square().sum().backward()
            assert states.grad is not None
            assert states.grad.any()
            states.grad = None


@torch.no_grad()
def test_perturbed_self_attention_is_no_text(unet: UNet) -> None:
    given = args(unet)
    with perturbed_attention(unet, ("mid",), 1):
        wanted = unet(*given)
        with texts_kept(unet):
            assert torch.equal(unet(*given), wanted)
            assert torch.equal(unet(*given), wanted)


@torch.no_grad()
def test_a_text_that_is_gone_takes_its_keys_with_it(unet: UNet) -> None:
    latents, timesteps, states, _ = args(unet)
    attention = next(m for m in unet.modules() if isinstance(m, TransformerBlock)).attn2
    with texts_kept(unet):
        unet(latents, timesteps, states)
        kept = attention.project
        assert len(kept._kept) == 1  # type: ignore[attr-defined]
        del states
        assert len(kept._kept) == 0  # type: ignore[attr-defined]
    assert attention.project is not kept
    assert not isinstance(unet, DiT)
