"""Two models of one architecture are mixed weight by weight; others are refused."""

from dataclasses import replace

import pytest
import torch

from sd_pipeline import Parts, PipelineError, mix_models
from sd_unet import UNet
from tests.tiny_model import tiny_parts


def moved(parts: Parts) -> Parts:
    """Change the UNet's weights, and nothing else."""
    with torch.no_grad():
        for weight in parts.unet.parameters():
            weight.add_(1.0)
    return parts


def test_a_share_of_the_way_is_gone_and_what_is_equal_stays_to_the_bit() -> None:
    plain, mixed = tiny_parts(), tiny_parts()
    mix_models(mixed, moved(tiny_parts()), 0.25)
    for before, after in zip(plain.unet.parameters(), mixed.unet.parameters(), strict=True):
        torch.testing.assert_close(after, before + 0.25)
    for one, other in zip(plain.networks[1:], mixed.networks[1:], strict=True):
        for before, after in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(before, after)


def test_of_the_networks_that_are_named_alone() -> None:
    plain, mixed = tiny_parts(), tiny_parts()
    mix_models(mixed, moved(tiny_parts()), only=["vae"])
    for one, other in zip(plain.networks, mixed.networks, strict=True):
        for before, after in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(before, after)
    mix_models(mixed, moved(tiny_parts()), only=["unet"])
    for before, after in zip(plain.unet.parameters(), mixed.unet.parameters(), strict=True):
        torch.testing.assert_close(after, before + 0.5)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_at_the_ends_it_is_one_of_them(share: float) -> None:
    mixed, ends = tiny_parts(), (tiny_parts(), moved(tiny_parts()))
    mix_models(mixed, ends[1], share)
    wanted = ends[round(share)].unet.state_dict()
    for name, weight in mixed.unet.state_dict().items():
        torch.testing.assert_close(weight, wanted[name], rtol=0, atol=0)


def test_models_that_differ_and_shares_that_are_none_are_refused_in_one_line() -> None:
    parts = tiny_parts()
    before = {name: weight.clone() for name, weight in parts.unet.state_dict().items()}
    wider = UNet(replace(parts.unet.config, block_out_channels=(32, 96)))
    with pytest.raises(PipelineError, match=r"UNets differ in \d+ weights, such as .*same arch"):
        mix_models(parts, replace(tiny_parts(), unet=wider))
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(PipelineError, match="choose 0 to 1"):
            mix_models(parts, tiny_parts(), share)
    with pytest.raises(PipelineError, match="no network 'clip'; choose unet, vae, text_encoder"):
        mix_models(parts, tiny_parts(), only=["clip"])
    assert all(torch.equal(before[name], one) for name, one in parts.unet.state_dict().items())
