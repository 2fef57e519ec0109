"""Fast layers give what torch's own give, and know when they may not."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_ops import Conv2d, Linear, use_fast_paths
from sd_ops.winograd import conv_winograd, num_tiles, winograd_weight

# Heights and widths that are whole tiles, are not, and are smaller than one.
SIZES = [(8, 8), (9, 14), (3, 5), (1, 1)]


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).square().mean().sqrt() / wanted.std())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("with_bias", [True, False])
def test_winograd_is_a_convolution(size: tuple[int, int], padding: int, with_bias: bool) -> None:
    height, width = max(size[0], 3 - 2 * padding), max(size[1], 3 - 2 * padding)
    x, weight = randn(2, 5, height, width), randn(7, 5, 3, 3)
    bias = randn(7) if with_bias else None
    wanted = F.conv2d(
        x.double(), weight.double(), None if bias is None else bias.double(), 1, padding
    )
    found = conv_winograd(x, winograd_weight(weight), bias, padding)
    torch.testing.assert_close(found.double(), wanted, atol=1e-4, rtol=0)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_winograds_error_is_that_of_float32() -> None:
    x, weight = randn(1, 320, 32, 32), randn(64, 320, 3, 3)
    wanted = F.conv2d(x.double(), weight.double(), padding=1)
    assert relative(conv_winograd(x, winograd_weight(weight), None, 1), wanted) < 5e-6


def test_many_tiles_are_taken_in_turns() -> None:
    x, weight = randn(1, 3, 120, 120), randn(4, 3, 3, 3)
    assert num_tiles(x.shape) == 900
    found = conv_winograd(x, winograd_weight(weight), None, 1)
    torch.testing.assert_close(found, F.conv2d(x, weight, padding=1), atol=1e-4, rtol=0)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Note the shapes that Winograd is asked for."""
    asked: list[tuple[int, ...]] = []

    def noted(x: Tensor, *rest: object) -> Tensor:
        asked.append(tuple(x.shape))
        return conv_winograd(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("sd_ops.layers.conv_winograd", noted)
    return asked


def test_a_large_convolution_goes_by_winograd(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counted(monkeypatch)
    layer, x = Conv2d(64, 64, 3, padding=1), randn(2, 64, 32, 32)
    wanted = layer(x)
    use_fast_paths(layer)
    with torch.inference_mode():
        found = layer(x)
    assert asked == [(2, 64, 32, 32)]
    torch.testing.assert_close(found, wanted.detach(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv2d(64, 64, 3, padding=1), (1, 64, 8, 8)),  # few tiles
        (Conv2d(8, 64, 3, padding=1), (2, 8, 32, 32)),  # few channels
        (Conv2d(64, 64, 3, padding=1, stride=2), (2, 64, 64, 64)),
        (Conv2d(64, 64, 3, padding=2, dilation=2), (2, 64, 64, 64)),
        (Conv2d(64, 64, 3, padding=1, groups=2), (2, 64, 32, 32)),
        (Conv2d(64, 64, 3, padding=1, padding_mode="circular"), (2, 64, 32, 32)),
        (Conv2d(64, 64, 1), (2, 64, 32, 32)),
        (Conv2d(64, 64, 3, padding=1).bfloat16(), (2, 64, 32, 32)),
    ],
)
def test_what_winograd_is_not_for_is_done_as_ever(
    layer: Conv2d, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = counted(monkeypatch)
    x = randn(*shape).to(layer.weight.dtype)
    use_fast_paths(layer, False)
    with torch.inference_mode():
        wanted = layer(x)
        use_fast_paths(layer)
        found = layer(x)
    assert not asked
    torch.testing.assert_close(
        found, wanted, atol=1e-5 if x.dtype == torch.float32 else 0.05, rtol=0
    )


def test_gradients_go_by_the_ordinary_path(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counted(monkeypatch)
    network = nn.Sequential(Conv2d(64, 64, 3, padding=1), nn.Flatten(2), Linear(1024, 8))
    plain = copy.deepcopy(network)
    use_fast_paths(network)
    x = randn(2, 64, 32, 32)
    for one in (network, plain):
        one(x).square().sum().backward()
    assert not asked
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.equal(ours.grad, theirs.grad)


def test_a_weight_that_was_written_to_counts() -> None:
    layer, x = Conv2d(64, 64, 3, padding=1), randn(2, 64, 32, 32)
    use_fast_paths(layer)
    with torch.inference_mode():
        layer(x)
        layer.weight.mul_(2)  # as an adapter is fused
        found = layer(x)
        use_fast_paths(layer, False)
        torch.testing.assert_close(found, layer(x), atol=1e-4, rtol=0)


def test_a_weight_that_was_replaced_counts() -> None:
    layer, x = Conv2d(64, 64, 3, padding=1), randn(2, 64, 32, 32)
    use_fast_paths(layer)
    with torch.inference_mode():
        layer(x)
    layer.weight = nn.Parameter(-layer.weight.detach())
    with torch.inference_mode():
        found = layer(x)
        use_fast_paths(layer, False)
        torch.testing.assert_close(found, layer(x), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_tokens", [5, 64, 2048])
@pytest.mark.parametrize("bias", [True, False])
def test_a_fast_linear_layer_gives_the_same(
    dtype: torch.dtype, num_tokens: int, bias: bool
) -> None:
    layer, x = Linear(48, 40, bias=bias).to(dtype), randn(2, num_tokens, 48).to(dtype)
    with torch.inference_mode():
        wanted = layer(x)
        use_fast_paths(layer)
        found = layer(x)
    assert found.shape == wanted.shape
    assert found.is_contiguous()
    torch.testing.assert_close(found, wanted, atol=1e-5 if dtype == torch.float32 else 0.02, rtol=0)


def test_hooks_and_state_dicts_are_as_ever() -> None:
    layer = Linear(8, 4)
    use_fast_paths(layer)
    layer.register_forward_hook(lambda *_: torch.zeros(1))
    assert torch.equal(layer(randn(70, 8)), torch.zeros(1))
    convolution = Conv2d(64, 64, 3, padding=1)
    use_fast_paths(convolution)
    with torch.inference_mode():
        convolution(randn(2, 64, 32, 32))
    assert set(convolution.state_dict()) == {"weight", "bias"}
