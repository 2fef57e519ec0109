"""Weights that learn under autocast: the same numbers, and no copies kept."""

import copy
import importlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sd_ops import Conv2d, Linear, use_fast_paths
from sd_ops.cast_again import cast_linear
from sd_ops.native.library import why_not_native

LIMITS = importlib.import_module("sd_ops.limits")
NEEDED = why_not_native(torch.bfloat16)

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: Linear(32, 48), (2, 7, 32)),
    "linear of rows, no bias": (lambda: Linear(32, 48, bias=False), (9, 32)),
    "convolution": (lambda: Conv2d(16, 24, 3, padding=1), (2, 16, 10, 8)),
    "convolution of half the pixels": (lambda: Conv2d(16, 24, 3, stride=2), (2, 16, 9, 9)),
    "pointwise, no bias": (lambda: Conv2d(16, 24, 1, bias=False), (2, 16, 6, 6)),
}


def learn(layer: nn.Module, x: Tensor, *, fast: bool, dtype: torch.dtype) -> list[Tensor]:
    """Return what a layer gives under autocast, and the gradients of x and of its parameters."""
    use_fast_paths(layer, fast)
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype):
        out = layer(x)
    weights = torch.linspace(-1, 1, out.numel()).view(out.shape)
    return [out, *torch.autograd.grad((out.float() * weights).sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("of", [torch.float32, torch.bfloat16], ids=str)
def test_a_layer_learns_what_it_learns_under_autocast_alone(
    name: str, of: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, on a processor for which no kernels of ours are the faster ones."""
    monkeypatch.setattr(LIMITS, "processor", lambda: "other")
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(shape).to(of)
    plain = learn(layer, x, fast=False, dtype=torch.bfloat16)
    ours = learn(layer, x, fast=True, dtype=torch.bfloat16)
    for one, other in zip(ours, plain, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


NATIVE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: Linear(64, 96), (2, 300, 64)),
    "convolution": (lambda: Conv2d(64, 96, 3, padding=1), (2, 64, 16, 12)),
    "convolution of many tiles": (lambda: Conv2d(32, 64, 3, bias=False), (1, 32, 40, 38)),
    "pointwise": (lambda: Conv2d(64, 96, 1), (2, 64, 12, 12)),
    "linear of other channels": (lambda: Linear(48, 96), (2, 300, 48)),
}


@pytest.mark.skipif(NEEDED is not None, reason=str(NEEDED))
@pytest.mark.parametrize("processor", ["avx512_fp16", "avx512_bf16"])
@pytest.mark.parametrize("name", NATIVE)
def test_by_our_own_kernels_a_layer_learns_as_exactly(
    name: str, processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pairs are slow, so that weights learn in float32, or convolutions alone are ours."""
    torch.manual_seed(0)
    make, shape = NATIVE[name]
    layer, x = make(), torch.randn(shape)
    plain = learn(layer, x, fast=False, dtype=torch.bfloat16)
    monkeypatch.setattr(LIMITS, "processor", lambda: processor)
    ours = learn(layer, x, fast=True, dtype=torch.bfloat16)
    if processor == "avx512_fp16" or "convolution" in name:
        assert not all(map(torch.equal, ours, plain))  # our own kernels were asked
    rounded = copy.deepcopy(layer).bfloat16().double()
    use_fast_paths(rounded, False)
    exact = rounded(wide := x.bfloat16().double().requires_grad_())
    weights = torch.linspace(-1, 1, exact.numel()).view(exact.shape).bfloat16().double()
    wanted = [exact, *torch.autograd.grad(exact, [wide, *rounded.parameters()], weights)]
    for one, other, true in zip(ours, plain, wanted, strict=True):
        assert one.dtype == other.dtype
        off, allowed = ((each.double() - true).norm() for each in (one, other))
        assert off < 1.02 * allowed + 1.5e-3 * true.norm()


def test_of_another_device_nothing_is_said_by_this_ones_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LIMITS, "processor", lambda: "avx512_fp16")
    x = torch.randn(2, 300, 64, dtype=torch.bfloat16, device="meta", requires_grad=True)
    weight = torch.randn(96, 64, device="meta", requires_grad=True)
    out = cast_linear(x, weight, None, torch.bfloat16)
    seen: list[torch.dtype] = []
    true = Tensor.float
    monkeypatch.setattr(Tensor, "float", lambda each: seen.append(each.dtype) or true(each))
    torch.autograd.grad(out, (x, weight), torch.empty_like(out))
    assert not seen


def kept(layer: nn.Module, x: Tensor) -> list[torch.dtype]:
    """Return the types of the two-dimensional matrices (48, 32) that a graph keeps."""
    found: list[torch.dtype] = []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.shape in ((48, 32), (32, 48)):
            found.append(tensor.dtype)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with torch.autocast("cpu", torch.bfloat16), hooks:
        layer(x.requires_grad_())
    return found


def test_the_graph_keeps_the_weight_and_not_its_copy() -> None:
    layer, x = Linear(32, 48), torch.randn(5, 32)
    assert kept(layer, x) == [torch.bfloat16]
    use_fast_paths(layer)
    assert kept(layer, x) == [torch.float32]


def test_what_is_frozen_is_cast_as_ever() -> None:
    layer, x = Linear(32, 48), torch.randn(5, 32)
    use_fast_paths(layer)
    layer.requires_grad_(False)
    assert kept(layer, x) == [torch.bfloat16]


def test_with_checkpoints_the_gradients_are_the_same() -> None:
    torch.manual_seed(0)
    layer, x = Linear(32, 32), torch.randn(5, 32)
    use_fast_paths(layer)
    found = []
    for through in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        with torch.autocast("cpu", torch.bfloat16):
            out = through(x.clone().requires_grad_())
        found.append(torch.autograd.grad(out.float().square().sum(), [*layer.parameters()]))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
