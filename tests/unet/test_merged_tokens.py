"""Tokens that are alike are one for the self-attention of the finest level."""

import pytest
import torch
from torch import Tensor

from sd_unet import DiT, UNetInputError, dit_scenes, tokens_merged
from sd_unet.transformer import TransformerBlock
from tests.unet.families import TINY
from tests.unet.test_pag import args, randomised


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("side", [16, 11])
@torch.no_grad()
def test_a_share_of_the_tokens_changes_the_result_and_none_does_not(name: str, side: int) -> None:
    unet = randomised(name)
    given = args(unet, side=side)
    plain = unet(*given)
    with tokens_merged(unet, 0.0, (side, side)):
        assert torch.equal(unet(*given), plain)
    with tokens_merged(unet, 0.5, (side, side)):
        merged = unet(*given)
        assert merged.shape == plain.shape
        assert not torch.equal(merged, plain)
        assert torch.equal(unet(*given), merged)
    assert torch.equal(unet(*given), plain)


@torch.no_grad()
def test_as_many_tokens_are_attended_for_as_are_left() -> None:
    unet = randomised("sd15")
    level = unet.config.attention_levels.index(True)
    number = (16 >> level) ** 2
    attention = unet.down_blocks[level].attentions[0].transformer_blocks[0].attn1
    seen: list[Tensor] = []
    attention.to_q.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    for ratio in (0.25, 0.5, 0.75):
        with tokens_merged(unet, ratio, (16, 16)):
            unet(*args(unet))
        assert seen[-1].shape[1] == number - int(ratio * number)


@torch.no_grad()
def test_tokens_that_are_the_same_are_merged_without_loss() -> None:
    unet = randomised("sd15")
    level = unet.config.attention_levels.index(True)
    block = next(m for m in unet.down_blocks[level].modules() if isinstance(m, TransformerBlock))
    # Each square of four is of one colour; all four of a square become one.
    colours = torch.randn(2, 4, 4, block.norm1.normalized_shape[0])
    tokens = colours.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2).flatten(1, 2)
    wanted = block.attn1(tokens, tokens)
    with tokens_merged(unet, 0.75, (8 << level, 8 << level)):
        found = block.attn1(tokens, tokens)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_dit_is_refused() -> None:
    unet = DiT(dit_scenes())
    with pytest.raises(UNetInputError, match="leave --merge-tokens out"):
        tokens_merged(unet, 0.5, (16, 16)).__enter__()
