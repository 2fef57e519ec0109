"""The levels below the finest may be taken from another step."""

import pytest
import torch

from sd_unet import DiT, UNetInputError, dit_scenes, features_reused
from tests.unet.families import TINY
from tests.unet.test_pag import args, randomised


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("side", [16, 11])
@torch.no_grad()
def test_computed_anew_it_is_exact_and_else_only_the_finest_level_sees(
    name: str, side: int
) -> None:
    unet = randomised(name)
    latents, timesteps, *told = args(unet, side=side)
    wanted, other = unet(latents, timesteps, *told), unet(2 * latents, timesteps, *told)
    with features_reused(unet) as reuse:
        assert torch.equal(unet(latents, timesteps, *told), wanted)
        reuse.anew = False
        # What was kept is of this very question, so nothing is lost.
        torch.testing.assert_close(unet(latents, timesteps, *told), wanted)
        near = unet(2 * latents, timesteps, *told)
        assert near.shape == other.shape
        assert not torch.equal(near, other)
        assert not torch.equal(near, wanted)
        reuse.anew = True
        assert torch.equal(unet(2 * latents, timesteps, *told), other)
    assert torch.equal(unet(2 * latents, timesteps, *told), other)


@torch.no_grad()
def test_the_levels_below_are_not_run() -> None:
    unet = randomised("sd15")
    given = args(unet)
    ran = []
    for block in (*unet.down_blocks[1:], unet.mid_block, *unet.up_blocks[:-1]):
        block.register_forward_hook(lambda *_: ran.append(1))
    with features_reused(unet) as reuse:
        unet(*given)
        each = len(ran)
        reuse.anew = False
        unet(*given)
        assert len(ran) == each
        reuse.question = "another"
        unet(*given)
        assert len(ran) == 2 * each


@torch.no_grad()
def test_several_texts_for_each_of_the_latents_share_what_comes_before_them() -> None:
    unet = randomised("sd15")
    latents, timesteps, states, _ = args(unet, number=4)
    with features_reused(unet) as reuse:
        wanted = unet(latents[:2], timesteps[:2], states)
        reuse.anew = False
        torch.testing.assert_close(unet(latents[:2], timesteps[:2], states), wanted)


def test_a_dit_has_no_levels() -> None:
    unet = DiT(dit_scenes())
    with pytest.raises(UNetInputError, match="leave --reuse-features out"), features_reused(unet):
        pass
