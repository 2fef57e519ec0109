"""How the UNet behaves."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sd_ops import AttentionUnavailable, use_fast_paths
from sd_unet import AddedConditions, UNet, UNetConfig, UNetInputError
from tests.unet.families import POOLED_DIM, TINY

CONFIG = UNetConfig(
    sample_size=8,
    block_out_channels=(32, 64),
    attention_levels=(True, False),
    layers_per_block=1,
    cross_attention_dim=24,
    num_heads=4,
)


def randomised(config: UNetConfig = CONFIG) -> UNet:
    torch.manual_seed(0)
    unet = UNet(config)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.normal_(std=parameter[0].numel() ** -0.5)
    return unet


@pytest.fixture
def unet() -> UNet:
    return randomised()


@pytest.fixture
def args() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    return latents, torch.tensor([3, 700]), torch.randn(2, 5, 24, generator=generator)


def test_new_network_predicts_zero(args: tuple[Tensor, Tensor, Tensor]) -> None:
    assert torch.equal(UNet(CONFIG)(*args), torch.zeros(2, 4, 8, 8))


@pytest.mark.parametrize("which", [0, 1, 2], ids=["latents", "timesteps", "hidden_states"])
def test_every_input_matters(unet: UNet, args: tuple[Tensor, ...], which: int) -> None:
    changed = list(args)
    changed[which] = changed[which].flip(0)
    assert not torch.allclose(unet(*args), unet(*changed), atol=1e-3)


def test_pictures_of_a_batch_do_not_mix(unet: UNet, args: tuple[Tensor, Tensor, Tensor]) -> None:
    alone = unet(*(value[:1] for value in args))
    assert torch.allclose(unet(*args)[:1], alone, atol=1e-5)


@pytest.mark.parametrize("size", [(7, 9), (1, 3), (12, 8)])
def test_any_size_keeps_its_size(unet: UNet, size: tuple[int, int]) -> None:
    out = unet(torch.randn(1, 4, *size), torch.tensor([10]), torch.randn(1, 5, 24))
    assert out.shape == (1, 4, *size)


def test_attention_backends_agree(unet: UNet, args: tuple[Tensor, Tensor, Tensor]) -> None:
    unet.set_attention_backend("sdpa")
    expected = unet(*args)
    unet.set_attention_backend("chunked")
    assert torch.allclose(unet(*args), expected, atol=1e-5)


def test_unknown_backend_is_refused_and_nothing_changes(
    unet: UNet, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    expected = unet(*args)
    with pytest.raises(AttentionUnavailable, match="flash9"):
        unet.set_attention_backend("flash9")
    assert torch.equal(unet(*args), expected)


def gradients(unet: UNet, args: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    unet.zero_grad()
    unet(*args).square().mean().backward()
    return [parameter.grad for parameter in unet.parameters() if parameter.grad is not None]


def test_gradient_checkpointing_changes_no_gradient(
    unet: UNet, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    expected = gradients(unet, args)
    assert len(expected) == len(list(unet.parameters()))
    unet.gradient_checkpointing = True
    assert unet.gradient_checkpointing
    for grad, other in zip(gradients(unet, args), expected, strict=True):
        assert torch.equal(grad, other)


def test_gradient_checkpointing_keeps_fewer_activations(
    unet: UNet, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    def kept() -> int:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            unet(*args)
        return sum(sizes)

    without = kept()
    unet.gradient_checkpointing = True
    assert kept() < without / 2


def is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_channels_last_stays_channels_last_under_bf16_autocast(
    unet: UNet, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    latents, timesteps, hidden_states = args
    expected = unet(*args)
    strayed = []

    def watch(module: torch.nn.Module, _args: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and not is_channels_last(output):
            strayed.append(type(module).__name__)

    unet.to(memory_format=torch.channels_last)
    for module in unet.modules():
        module.register_forward_hook(watch)
    with torch.autocast("cpu", torch.bfloat16):
        latents = latents.contiguous(memory_format=torch.channels_last)
        out = unet(latents, timesteps, hidden_states)
    assert strayed == []
    assert torch.allclose(out.float(), expected, atol=0.05 * float(expected.abs().max()))


def test_half_precision_weights_run(args: tuple[Tensor, Tensor, Tensor]) -> None:
    latents, timesteps, hidden_states = args
    unet = randomised().to(torch.bfloat16)
    out = unet(latents.bfloat16(), timesteps, hidden_states.bfloat16())
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


def sdxl_args() -> tuple[Tensor, Tensor, Tensor, AddedConditions]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    hidden_states = torch.randn(2, 5, TINY["sdxl"].cross_attention_dim, generator=generator)
    pooled = torch.randn(2, POOLED_DIM, generator=generator)
    sizes = torch.tensor([[64, 48, 0, 0, 64, 64], [512, 512, 8, 16, 32, 64]])
    return latents, torch.tensor([3, 700]), hidden_states, AddedConditions(pooled, sizes)


@torch.no_grad()
@pytest.mark.parametrize("which", [0, 1], ids=["pooled", "sizes"])
def test_sdxl_is_moved_by_each_added_condition(which: int) -> None:
    sdxl = randomised(TINY["sdxl"])
    *args, added = sdxl_args()
    changed = list(added)
    changed[which] = changed[which].flip(0)
    assert not torch.allclose(sdxl(*args, added), sdxl(*args, AddedConditions(*changed)), atol=1e-3)


def test_added_conditions_are_asked_for_and_turned_away_by_name(
    unet: UNet, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    *others, added = sdxl_args()
    with pytest.raises(UNetInputError, match="added=AddedConditions"):
        UNet(TINY["sdxl"])(*others)
    with pytest.raises(UNetInputError, match="leave `added` out"):
        unet(*args, added)


def test_sizes_of_the_refiner_are_refused_by_the_base() -> None:
    *others, added = sdxl_args()
    with pytest.raises(UNetInputError, match=r"sizes of shape \(2, 5\).*give \(2, 6\)"):
        UNet(TINY["sdxl"])(*others, added._replace(sizes=added.sizes[:, :5]))


def loud(upcast: bool) -> tuple[UNet, tuple[Tensor, Tensor, Tensor]]:
    """Return a network in float16 whose attention's scores are beyond float16's 65504."""
    unet = randomised(replace(CONFIG, upcast_attention=upcast))
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "to_q" in name or "to_k" in name:
                parameter.mul_(200)
    unet.set_attention_backend("chunked")
    return unet, (torch.randn(1, 4, 8, 8), torch.tensor([3]), torch.randn(1, 5, 24))


@torch.no_grad()
def test_upcast_attention_survives_scores_beyond_half_precision() -> None:
    for upcast in (True, False):
        unet, (latents, timesteps, hidden_states) = loud(upcast)
        out = unet.half()(latents.half(), timesteps, hidden_states.half())
        assert out.dtype == torch.float16
        assert bool(out.isfinite().all()) is upcast


@torch.no_grad()
def test_upcast_attention_is_not_undone_by_autocast() -> None:
    for upcast in (True, False):
        unet, args = loud(upcast)
        with torch.autocast("cpu", torch.float16):
            assert bool(unet(*args).isfinite().all()) is upcast


def test_upcast_attention_changes_nothing_in_float32(args: tuple[Tensor, Tensor, Tensor]) -> None:
    unet = randomised(replace(CONFIG, upcast_attention=True))
    assert torch.equal(unet(*args), randomised()(*args))


@pytest.mark.parametrize("name", TINY)
def test_every_family_runs_without_memory(name: str) -> None:
    config = TINY[name]
    with torch.device("meta"):
        hidden_states = torch.empty(1, 5, config.cross_attention_dim)
        added = None
        if config.projection_input_dim is not None:
            sizes = torch.empty(1, config.num_sizes(POOLED_DIM))
            added = AddedConditions(torch.empty(1, POOLED_DIM), sizes)
        latents = torch.empty(1, config.in_channels, 9, 7)
        out = UNet(config)(latents, torch.empty(1), hidden_states, added)
    assert out.shape == (1, config.out_channels, 9, 7)


def test_several_texts_of_one_picture_are_as_pictures_of_their_own(
    unet: UNet, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    latents, timesteps, states = args
    texts = torch.cat([states, 2 * states, -states])
    whole = unet(latents.repeat(3, 1, 1, 1), timesteps.repeat(3), texts)
    torch.testing.assert_close(unet(latents, timesteps, texts), whole, atol=1e-5, rtol=0)


def test_what_comes_before_the_first_text_is_computed_once(
    unet: UNet, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    seen = []
    block = unet.down_blocks[0].attentions[0].transformer_blocks[0]
    for layer in (block.attn1, block.attn2):
        layer.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    latents, timesteps, states = args
    unet(latents, timesteps, torch.cat([states, states]))
    assert seen == [2, 4]


def test_several_texts_of_one_picture_in_sdxl() -> None:
    unet = randomised(TINY["sdxl"])
    latents, timesteps, states, added = sdxl_args()
    twice = AddedConditions(*(torch.cat([value, 0.5 * value]) for value in added))
    texts = torch.cat([states, -states])
    whole = unet(latents.repeat(2, 1, 1, 1), timesteps.repeat(2), texts, added=twice)
    found = unet(latents, timesteps, texts, added=twice)
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=0)


def test_texts_that_are_no_multiple_of_the_pictures_are_refused(
    unet: UNet, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    latents, timesteps, states = args
    with pytest.raises(UNetInputError, match="3 texts do not go with 2 latents"):
        unet(latents, timesteps, torch.cat([states, states[:1]]))


def test_fast_paths_give_the_same() -> None:
    generator = torch.Generator().manual_seed(2)
    config = replace(CONFIG, block_out_channels=(64, 128), sample_size=32)
    fast = randomised(config)
    args = (
        torch.randn(2, 4, 32, 32, generator=generator),
        torch.tensor([3, 700]),
        torch.randn(2, 5, 24, generator=generator),
    )
    with torch.inference_mode():
        wanted = fast(*args)
        use_fast_paths(fast)
        found = fast(*args)
    assert not torch.equal(found, wanted)  # it was another way
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
