"""What a compiler sees as one operation gives the same, and torch is told of it rightly."""

import importlib

import pytest
import torch
from torch import Tensor

from sd_ops import Conv2d, Linear, attention, use_fast_paths
from sd_ops.limits import PROCESSORS
from sd_ops.opaque import opaque_attention, opaque_unfolded, opaque_winograd

LIMITS = importlib.import_module("sd_ops.limits")
HALVES = torch.bfloat16


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(
    ("operation", "given"),
    [
        (opaque_attention, (randn(2, 3, 9, 8), randn(2, 3, 7, 8), randn(2, 3, 7, 5))),
        (opaque_unfolded, (randn(2, 4, 9, 7), randn(5, 4, 3, 3), randn(5), [2, 2], 1)),
        (opaque_unfolded, (randn(2, 4, 9, 7), randn(5, 4, 3, 3), None, [1, 1], 0)),
        (opaque_winograd, (randn(2, 4, 9, 7), randn(5, 4, 3, 3), randn(5), 1)),
        (opaque_winograd, (randn(2, 4, 9, 7), randn(5, 4, 3, 3), None, 0)),
    ],
)
def test_torch_is_told_of_them_rightly(
    operation: torch.library.CustomOpDef, given: tuple[object, ...]
) -> None:
    with torch.no_grad():
        torch.library.opcheck(operation, given)


@pytest.mark.parametrize("dtype", [torch.float32, HALVES])
@pytest.mark.parametrize("name", PROCESSORS)
def test_compiled_layers_give_the_same_without_a_break(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LIMITS, "_HERE", name)
    torch._dynamo.reset()
    layers = Conv2d(64, 72, 3, padding=1).to(dtype), Linear(64, 72).to(dtype)
    pictures = [randn(2, 64, 9, 14).to(dtype), randn(1, 64, 30, 33).to(dtype)]
    tokens = [randn(1, 2100, 64).to(dtype), randn(1, 30, 64).to(dtype)]
    q, k, v = (randn(1, 2, 1030 + number, 8)[:, :, :1030].to(dtype) for number in range(3))
    for layer in layers:
        use_fast_paths(layer)

    def work() -> list[Tensor]:
        convolved = [layers[0](picture) for picture in pictures]
        return [*convolved, *map(layers[1], tokens), attention(q, k, v)]

    with torch.inference_mode():
        wanted = work()
        found = torch.compile(work, backend="aot_eager", fullgraph=True, dynamic=False)()
    for ours, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
        assert ours.stride() == plain.stride()
