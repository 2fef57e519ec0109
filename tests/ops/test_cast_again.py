"""Weights that learn under autocast: the same numbers, and no copies kept."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sd_ops import Conv2d, Linear, use_fast_paths

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
def test_a_layer_learns_what_it_learns_under_autocast_alone(name: str, of: torch.dtype) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(shape).to(of)
    plain = learn(layer, x, fast=False, dtype=torch.bfloat16)
    ours = learn(layer, x, fast=True, dtype=torch.bfloat16)
    for one, other in zip(ours, plain, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


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
