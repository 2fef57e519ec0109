"""Weights of eight bits: how far off they are, and that all else goes on as it was."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_checkpoint import skeleton
from sd_ops import (
    Conv2d,
    Linear,
    hold_as_int8,
    int8_keys,
    int8_values,
    quantized,
    use_fast_paths,
)


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def num_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


LAYERS = [
    (lambda: Linear(48, 32), (2, 80, 48)),
    (lambda: Linear(48, 32, bias=False), (2, 3, 48)),
    (lambda: Conv2d(64, 64, 3, padding=1), (1, 64, 24, 24)),
    (lambda: Conv2d(64, 64, 3, padding=1), (1, 64, 5, 5)),
    (lambda: Conv2d(8, 6, 3, stride=2, padding=1), (1, 8, 9, 9)),
]


@pytest.mark.parametrize("shape", [(5, 7), (6, 4, 3, 3)])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
def test_no_value_is_off_by_more_than_half_a_step_of_its_channel(
    shape: tuple[int, ...], size: float
) -> None:
    weight = (
        size * randn(*shape) * torch.logspace(-3, 3, shape[0]).view(-1, *[1] * (len(shape) - 1))
    )
    values, scale = quantized(weight)
    assert values.dtype == torch.int8
    assert scale.shape == (shape[0], *[1] * (len(shape) - 1))
    off = (values.double() * scale.double() - weight.double()).abs()
    assert (off <= 0.5001 * scale.double()).all()
    assert (values.abs().amax(dim=tuple(range(1, len(shape)))) == 127).all()


def test_a_channel_of_zeros_stays_one() -> None:
    values, scale = quantized(torch.zeros(2, 3))
    assert not (values * scale).any()
    assert scale.isfinite().all()


@pytest.mark.parametrize(("make", "shape"), LAYERS)
@pytest.mark.parametrize("fast", [True, False])
@torch.no_grad()
def test_a_layers_answer_is_off_by_no_more_than_its_weight(
    make: type[nn.Module], shape: tuple[int, ...], fast: bool
) -> None:
    torch.manual_seed(0)
    layer, x = make(), randn(*shape)
    wanted, weight = layer(x), layer.weight.clone()
    _, scale = quantized(weight)
    hold_as_int8(layer)
    use_fast_paths(layer, fast)
    found = layer(x)
    assert ((layer.weight - weight).abs() <= 0.5001 * scale).all()
    if isinstance(layer, nn.Linear):
        sums = F.linear(x.abs(), torch.ones_like(weight))
        bound = 0.51 * scale.view(-1) * sums
    else:
        sums = F.conv2d(x.abs(), torch.ones_like(weight), None, layer.stride, layer.padding)
        bound = 0.51 * scale.view(1, -1, 1, 1) * sums
    assert ((found - wanted).abs() <= bound + 1e-4).all()
    assert not torch.equal(found, wanted)
    assert torch.equal(layer(x), found)


def test_a_network_takes_a_quarter_of_the_memory_and_learns_nothing() -> None:
    network = nn.Sequential(Linear(256, 256), nn.SiLU(), nn.Sequential(Conv2d(64, 64, 3)))
    before, weights = num_bytes(network), {key for key in network.state_dict() if "weight" in key}
    hold_as_int8(network)
    assert num_bytes(network) < 0.27 * before
    assert not any(parameter.requires_grad for parameter in network.parameters())
    keys = int8_keys(network)
    assert set(keys) == weights
    assert {key for pair in keys.values() for key in pair} < set(network.state_dict())


def test_a_kernel_is_laid_out_once_and_stays_int8() -> None:
    layer = Conv2d(64, 64, 3, padding=1)
    hold_as_int8(layer)
    use_fast_paths(layer)
    with torch.inference_mode():
        layer(randn(1, 64, 16, 16))
    values = int8_values(layer)
    assert values is not None
    assert values.is_contiguous(memory_format=torch.channels_last)
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_type_that_is_computed_in_stays() -> None:
    layer = Linear(16, 16).to(torch.bfloat16)
    weight = layer.weight.detach().clone()
    hold_as_int8(layer)
    assert layer.weight.dtype == torch.bfloat16
    _, scale = quantized(weight)
    off = (layer.weight.float() - weight.float()).abs()
    assert (off <= 0.5001 * scale + weight.float().abs() * 2**-8).all()


def test_a_network_without_weights_is_made_ready_for_them() -> None:
    with skeleton():
        layer = Linear(16, 8)
    hold_as_int8(layer)
    values, scale = (layer.state_dict()[key] for key in int8_keys(layer)["weight"])
    assert values.is_meta
    assert (values.dtype, values.shape) == (torch.int8, (8, 16))
    assert (scale.dtype, scale.shape) == (torch.float32, (8, 1))
