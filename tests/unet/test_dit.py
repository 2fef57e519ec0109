"""How the diffusion transformer behaves."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sd_ops import AttentionUnavailable
from sd_unet import (
    AddedConditions,
    DiT,
    DiTConfig,
    UNet,
    UNetConfigError,
    UNetInputError,
    backbone_config,
    build_backbone,
    dit_scenes,
    dit_xl_2,
    perturbed_attention,
    scenes,
    self_attentions,
)

CONFIG = DiTConfig(sample_size=8, channels=32, num_layers=4, num_heads=2, cross_attention_dim=24)
VARIANTS = {
    "cross": CONFIG,
    "adaln": replace(CONFIG, conditioning="adaln"),
    "long-skips": replace(CONFIG, long_skips=True),
    "long-skips-odd": replace(CONFIG, long_skips=True, num_layers=5, patch_size=1),
}


def randomised(config: DiTConfig) -> DiT:
    torch.manual_seed(0)
    dit = DiT(config)
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.normal_(std=parameter[0].numel() ** -0.5)
    return dit


@pytest.fixture(params=VARIANTS)
def dit(request: pytest.FixtureRequest) -> DiT:
    return randomised(VARIANTS[request.param])


@pytest.fixture
def args() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    return latents, torch.tensor([3, 700]), torch.randn(2, 5, 24, generator=generator)


@pytest.mark.parametrize("name", VARIANTS)
def test_new_network_predicts_zero(name: str, args: tuple[Tensor, Tensor, Tensor]) -> None:
    assert torch.equal(DiT(VARIANTS[name])(*args), torch.zeros(2, 4, 8, 8))


def test_a_new_networks_blocks_are_the_identity(args: tuple[Tensor, Tensor, Tensor]) -> None:
    tokens, time, states = torch.randn(2, 9, 32), torch.randn(2, 32), args[2]
    for block in DiT(CONFIG).transformer_blocks:
        assert torch.equal(block(tokens, time, states), tokens)


@pytest.mark.parametrize("which", [0, 1, 2], ids=["latents", "timesteps", "hidden_states"])
def test_every_input_matters(dit: DiT, args: tuple[Tensor, ...], which: int) -> None:
    changed = list(args)
    changed[which] = changed[which].flip(0)
    assert not torch.allclose(dit(*args), dit(*changed), atol=1e-3)


def test_every_weight_matters(dit: DiT, args: tuple[Tensor, Tensor, Tensor]) -> None:
    dit(*args).square().mean().backward()
    assert all(parameter.grad is not None for parameter in dit.parameters())
    assert all(parameter.grad.any() for parameter in dit.parameters())


def test_a_place_knows_where_it_is(args: tuple[Tensor, Tensor, Tensor]) -> None:
    latents = torch.ones(1, 4, 8, 8)
    out = randomised(CONFIG)(latents, args[1][:1], args[2][:1])
    patches = out.unfold(2, 2, 2).unfold(3, 2, 2)
    assert patches.var(dim=(2, 3)).min() > 1e-4


@pytest.mark.parametrize("size", [(7, 9), (1, 3), (12, 8)])
def test_any_size_keeps_its_size(dit: DiT, size: tuple[int, int]) -> None:
    out = dit(torch.randn(1, 4, *size), torch.tensor([10]), torch.randn(1, 5, 24))
    assert out.shape == (1, 4, *size)


def test_several_texts_of_one_picture_are_as_pictures_of_their_own(
    dit: DiT, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    latents, timesteps, states = args
    texts = torch.cat([states, -states])
    whole = dit(latents.repeat(2, 1, 1, 1), timesteps.repeat(2), texts)
    torch.testing.assert_close(dit(latents, timesteps, texts), whole, atol=1e-5, rtol=0)


def test_attention_backends_agree_and_an_unknown_one_is_refused(
    dit: DiT, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    dit.set_attention_backend("sdpa")
    expected = dit(*args)
    dit.set_attention_backend("chunked")
    assert torch.allclose(dit(*args), expected, atol=1e-5)
    with pytest.raises(AttentionUnavailable, match="flash9"):
        dit.set_attention_backend("flash9")


def test_gradient_checkpointing_changes_no_gradient_and_keeps_less(
    dit: DiT, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    def learn() -> tuple[list[Tensor], int]:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        dit.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = dit(*args).square().mean()
        loss.backward()
        return [parameter.grad for parameter in dit.parameters()], sum(sizes)

    expected, kept = learn()
    dit.gradient_checkpointing = True
    gradients, kept_less = learn()
    assert kept_less < kept / 2
    assert all(map(torch.equal, gradients, expected))


def test_pictures_of_a_batch_do_not_mix(dit: DiT, args: tuple[Tensor, Tensor, Tensor]) -> None:
    assert torch.allclose(dit(*args)[:1], dit(*(value[:1] for value in args)), atol=1e-5)


@torch.no_grad()
def test_attention_is_perturbed_for_the_rows_that_it_is_asked_for(
    dit: DiT, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    plain = dit(*args)
    with perturbed_attention(dit, ["mid"], 1):
        perturbed = dit(*args)
    assert torch.equal(perturbed[:1], plain[:1])
    assert not torch.allclose(perturbed[1:], plain[1:], atol=1e-3)
    assert torch.equal(dit(*args), plain)


def test_the_middle_is_a_block_and_other_parts_of_a_unet_are_refused() -> None:
    assert list(self_attentions(DiT(CONFIG), ["mid"])) == ["transformer_blocks.2.attn1"]
    with pytest.raises(UNetInputError, match=r"'down'.*choose mid, or of transformer_blocks\.0"):
        self_attentions(DiT(CONFIG), ["down"])


def test_it_takes_no_sizes(args: tuple[Tensor, Tensor, Tensor]) -> None:
    added = AddedConditions(pooled=torch.zeros(2, 8), sizes=torch.zeros(2, 6))
    with pytest.raises(UNetInputError, match="leave `added` out"):
        DiT(CONFIG)(*args, added)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_heads": 5}, "num_heads 5 does not divide 32"),
        ({"channels": 30, "num_heads": 2}, "multiple of 4"),
        ({"patch_size": 0}, "patch_size 0"),
        ({"conditioning": "film"}, "choose of cross, adaln"),
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(
    fields: dict[str, object], words: str
) -> None:
    with pytest.raises(UNetConfigError, match=words):
        replace(CONFIG, **fields)


@pytest.mark.parametrize("config", [*VARIANTS.values(), scenes()])
def test_a_config_json_tells_which_network_it_is_of(config: DiTConfig) -> None:
    assert backbone_config(config.to_diffusers()) == config


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(UNetConfigError, match="rope"):
        backbone_config({"_class_name": "DiT", "rope": True})


def test_presets_have_the_sizes_that_they_say() -> None:
    with torch.device("meta"):
        networks = [build_backbone(config) for config in (dit_xl_2(), dit_scenes(), scenes())]
    assert [type(network) for network in networks] == [DiT, DiT, UNet]
    counts = [sum(weight.numel() for weight in network.parameters()) for network in networks]
    assert counts == [946_226_320, 15_654_432, 15_085_448]
