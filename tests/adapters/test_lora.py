"""A LoRA in a model: injected, fused, ejected."""

from itertools import permutations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sd_adapters import Adapter, AdapterError, Lora, LoraConfig
from sd_unet import UNet, UNetConfig

TINY = UNetConfig(
    sample_size=8,
    block_out_channels=(32, 64),
    attention_levels=(True, False),
    layers_per_block=1,
    cross_attention_dim=24,
    num_heads=4,
)
# Linears, 1x1 and 3x3 convolutions, one of them with a stride.
EVERYWHERE = LoraConfig(
    rank=2,
    alpha=3.0,
    targets=("to_q", "to_k", "to_v", "to_out.0", "proj_in", "conv1", "downsamplers.0.conv"),
)


def randomise(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            std = parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


@pytest.fixture
def unet() -> UNet:
    unet = UNet(TINY)
    randomise(unet, seed=0)
    return unet


@pytest.fixture
def args() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    return latents, torch.tensor([3, 700]), torch.randn(2, 5, 24, generator=generator)


def learnt(unet: UNet, seed: int = 2, config: LoraConfig = EVERYWHERE) -> Lora:
    lora = Lora.create(unet, config)
    randomise(lora, seed)
    return lora


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def assert_same_bits(model: nn.Module, before: dict[str, Tensor]) -> None:
    after = model.state_dict()
    assert list(after) == list(before)
    for key, tensor in before.items():
        assert torch.equal(after[key], tensor), key


def test_new_lora_changes_nothing(unet: UNet, args: tuple[Tensor, ...]) -> None:
    before = unet(*args)
    Lora.create(unet, EVERYWHERE).inject(unet)
    assert torch.equal(unet(*args), before)


def test_learnt_lora_changes_the_output_and_ejects_bit_for_bit(
    unet: UNet, args: tuple[Tensor, ...]
) -> None:
    before, weights = unet(*args), bits(unet)
    adapter: Adapter = learnt(unet)
    adapter.inject(unet)
    assert not torch.allclose(unet(*args), before, atol=1e-2)
    assert_same_bits(unet, weights)
    adapter.eject()
    assert torch.equal(unet(*args), before)
    assert_same_bits(unet, weights)


@pytest.mark.parametrize(
    "target",
    [
        nn.Linear(6, 5),
        nn.Conv2d(6, 5, kernel_size=1),
        nn.Conv2d(6, 5, kernel_size=3, padding=1),
        nn.Conv2d(6, 5, kernel_size=3, stride=2, padding=2, dilation=2),
    ],
    ids=["linear", "1x1", "3x3", "strided"],
)
def test_lora_is_the_scaled_product_beside_the_weight(target: nn.Linear | nn.Conv2d) -> None:
    model = nn.ModuleDict({"target": target})
    lora = Lora.create(model, LoraConfig(rank=2, alpha=3.0, targets=("target",)))
    randomise(lora, seed=3)
    lora.strength = 0.5
    x = torch.randn(2, 6) if isinstance(target, nn.Linear) else torch.randn(2, 6, 9, 9)
    down, up = (lora.state_dict()[f"lora_unet_target.lora_{d}.weight"] for d in ("down", "up"))
    product = torch.einsum("or,r...->o...", up.flatten(1), down)
    weight = target.weight + 0.5 * (3.0 / 2) * product
    if isinstance(target, nn.Linear):
        expected = F.linear(x, weight, target.bias)
    else:
        expected = F.conv2d(x, weight, target.bias, target.stride, target.padding, target.dilation)
    lora.inject(model)
    assert torch.allclose(target(x), expected, atol=1e-5)


def test_fused_lora_computes_the_same_without_a_hook(unet: UNet, args: tuple[Tensor, ...]) -> None:
    weights = bits(unet)
    lora = learnt(unet)
    lora.strength = 0.7
    lora.inject(unet)
    injected = unet(*args)
    lora.fuse()
    assert torch.allclose(unet(*args), injected, atol=1e-4)
    assert not torch.equal(unet.mid_block.attentions[0].proj_in.weight, weights[PROJ_IN])
    assert list(unet.state_dict()) == list(weights)
    assert all(not module._forward_hooks for module in unet.modules())


PROJ_IN = "mid_block.attentions.0.proj_in.weight"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unfused_lora_leaves_the_same_bits_and_is_injected_again(
    unet: UNet, args: tuple[Tensor, ...], dtype: torch.dtype
) -> None:
    unet.to(dtype)
    latents, timesteps, hidden_states = args
    inputs = latents.to(dtype), timesteps, hidden_states.to(dtype)
    before, weights = unet(*inputs), bits(unet)
    lora = learnt(unet)
    lora.inject(unet)
    injected = unet(*inputs)
    lora.fuse()
    lora.unfuse()
    assert_same_bits(unet, weights)
    assert torch.equal(unet(*inputs), injected)
    lora.fuse()
    lora.eject()
    assert_same_bits(unet, weights)
    assert torch.equal(unet(*inputs), before)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_several_eject_in_any_order(
    unet: UNet, args: tuple[Tensor, ...], order: tuple[int, ...]
) -> None:
    before = unet(*args)
    loras = [learnt(unet, seed) for seed in range(3)]
    for lora in loras:
        lora.inject(unet)
    for index in order:
        assert not torch.equal(unet(*args), before)
        loras[index].eject()
    assert torch.equal(unet(*args), before)


def test_lora_under_another_fused_one_refuses_to_go_first(unet: UNet) -> None:
    weights = bits(unet)
    first, second = learnt(unet, 1), learnt(unet, 2)
    for lora in (first, second):
        lora.inject(unet)
        lora.fuse()
    both = bits(unet)
    with pytest.raises(AdapterError, match="changed since"):
        first.eject()
    assert_same_bits(unet, both)
    second.eject()
    first.eject()
    assert_same_bits(unet, weights)


def test_model_converted_while_fused_cannot_be_put_back(unet: UNet) -> None:
    lora = learnt(unet)
    lora.inject(unet)
    lora.fuse()
    unet.half()
    with pytest.raises(AdapterError, match="changed since"):
        lora.unfuse()


def test_strength_acts_while_injected(unet: UNet, args: tuple[Tensor, ...]) -> None:
    before = unet(*args)
    lora = learnt(unet)
    lora.inject(unet)
    lora.strength = 0.0
    assert torch.equal(unet(*args), before)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_adapter_learns_while_a_frozen_model_does_not(
    unet: UNet, args: tuple[Tensor, ...], gradient_checkpointing: bool
) -> None:
    unet.requires_grad_(False)
    unet.gradient_checkpointing = gradient_checkpointing
    lora = learnt(unet)
    lora.inject(unet)
    unet(*args).square().mean().backward()
    assert all(parameter.grad is None for parameter in unet.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in lora.parameters())


def test_lora_of_float32_serves_a_model_of_half_precision(
    unet: UNet, args: tuple[Tensor, ...]
) -> None:
    latents, timesteps, hidden_states = args
    lora = learnt(unet)
    unet.bfloat16()
    lora.inject(unet)
    out = unet(latents.bfloat16(), timesteps, hidden_states.bfloat16())
    assert out.dtype == torch.bfloat16
    assert next(lora.parameters()).dtype == torch.float32


def test_misuse_is_refused(unet: UNet) -> None:
    lora = learnt(unet)
    with pytest.raises(AdapterError, match="not injected"):
        lora.fuse()
    with pytest.raises(AdapterError, match="not fused"):
        lora.unfuse()
    lora.inject(unet)
    with pytest.raises(AdapterError, match="injected already"):
        lora.inject(unet)
    lora.fuse()
    with pytest.raises(AdapterError, match="fused already"):
        lora.fuse()


def test_another_models_lora_is_refused_with_its_layers(unet: UNet) -> None:
    other = UNet(UNetConfig(**{**vars_of(TINY), "cross_attention_dim": 40}))
    with pytest.raises(AdapterError) as caught:
        learnt(other).inject(unet)
    assert caught.value.keys
    assert all(key.endswith(("attn2_to_k", "attn2_to_v")) for key in caught.value.keys)
    assert all(not module._forward_hooks for module in unet.modules())


def vars_of(config: UNetConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__slots__}


def test_target_that_the_model_lacks_is_refused(unet: UNet) -> None:
    with pytest.raises(AdapterError, match="to_z") as caught:
        Lora.create(unet, LoraConfig(targets=("to_q", "to_z", "attn1")))
    assert caught.value.keys == ("attn1", "to_z")
    with pytest.raises(AdapterError, match="rank 0"):
        LoraConfig(rank=0)
