"""Fast layers give what torch's own give, and know when they may not."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_ops import Conv2d, Linear, lay_out_kernels, use_fast_paths
from sd_ops.native.winograd import convolve_natively
from sd_ops.unfolded import conv_unfolded, num_pixels
from sd_ops.winograd import by_products, conv_winograd, num_tiles

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
    found = conv_winograd(x, weight, bias, padding)
    torch.testing.assert_close(found.double(), wanted, atol=1e-4, rtol=0)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("path", [by_products, conv_winograd])
def test_winograds_error_is_that_of_float32(path: Callable[..., Tensor]) -> None:
    x, weight = randn(1, 320, 32, 32), randn(64, 320, 3, 3)
    wanted = F.conv2d(x.double(), weight.double(), padding=1)
    assert relative(path(x, weight, None, 1), wanted) < 5e-6


@pytest.mark.parametrize("at_once", [1, 36 * 6 * 5, 36 * 6 * 5 * 4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_tiles_and_channels_are_taken_in_turns(
    at_once: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("_MAX_GATHERED", "_MAX_SEEN", "_MAX_KERNEL"):
        monkeypatch.setattr(f"sd_ops.winograd.{limit}", at_once)
    x, weight, bias = randn(2, 5, 21, 22), randn(7, 5, 3, 3), randn(7)
    assert num_tiles(x.shape) == 72
    found = conv_winograd(x, weight.contiguous(memory_format=layout), bias, 1)
    assert relative(found, F.conv2d(x.double(), weight.double(), bias.double(), padding=1)) < 1e-5


@pytest.mark.parametrize("kernel", [(3, 3), (2, 3), (1, 1)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 3)])
@pytest.mark.parametrize("padding", [0, 1])
def test_an_unfolded_convolution_is_a_convolution(
    kernel: tuple[int, int], stride: tuple[int, int], padding: int
) -> None:
    x, weight, bias = randn(2, 5, 7, 10), randn(6, 5, *kernel), randn(6)
    wanted = F.conv2d(x, weight, bias, stride, padding)
    found = conv_unfolded(x, weight, bias, stride, padding)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert num_pixels(x, kernel, stride, padding) == found[:, 0].numel()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Note the shapes that Winograd is asked for."""
    asked: list[tuple[int, ...]] = []

    def noted(x: Tensor, *rest: object) -> Tensor:
        asked.append(tuple(x.shape))
        return conv_winograd(x, *rest)  # type: ignore[arg-type]

    def noted_natively(x: Tensor, *rest: object, **more: object) -> Tensor:
        asked.append(tuple(x.shape))
        return convolve_natively(x, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("sd_ops.layers.conv_winograd", noted)
    monkeypatch.setattr("sd_ops.layers.convolve_natively", noted_natively)
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
        (Conv2d(64, 64, 3, padding=1), (1, 64, 20, 20)),  # few tiles
        (Conv2d(64, 64, 3, padding=1), (1, 64, 8, 8)),  # very few
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
    monkeypatch.setattr("sd_ops.layers.may_convolve_natively", lambda *_, **__: False)
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_small_picture_goes_as_one_product(
    dtype: torch.dtype, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []

    def noted(x: Tensor, *rest: object) -> Tensor:
        asked.append(tuple(x.shape))
        return conv_unfolded(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("sd_ops.layers.conv_unfolded", noted)
    layer = Conv2d(64, 72, 3, padding=1, stride=stride).to(dtype).requires_grad_(False)
    x = randn(2, 64, 8, 8).to(dtype)
    with torch.inference_mode():
        wanted = layer(x)
        use_fast_paths(layer)
        found = layer(x)
    assert asked == [(2, 64, 8, 8)]
    torch.testing.assert_close(found, wanted, atol=1e-5 if dtype == torch.float32 else 0.02, rtol=0)


def test_a_kernel_is_laid_out_once_and_is_the_same_parameter() -> None:
    layer, x = Conv2d(64, 64, 3, padding=1).requires_grad_(False), randn(1, 64, 20, 20)
    parameter, values = layer.weight, layer.weight.clone()
    use_fast_paths(layer)
    with torch.inference_mode():
        layer(x)
        place = layer.weight.data_ptr()
        layer(x)
    assert layer.weight is parameter
    assert layer.weight.data_ptr() == place
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(layer.weight, values)
    layer.weight.mul_(2)  # and it may be written to, as when an adapter is fused
    assert torch.equal(layer.weight, 2 * values)


def test_kernels_are_laid_out_ahead_where_they_will_be_at_their_first_use() -> None:
    network = nn.Sequential(Conv2d(64, 64, 3), Conv2d(64, 8, 1), Conv2d(64, 64, 3))
    network[:2].requires_grad_(False)
    lay_out_kernels(network)
    assert network[0].weight.is_contiguous()
    use_fast_paths(network)
    lay_out_kernels(network)
    places = [layer.weight.data_ptr() for layer in network]
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert network[2].weight.is_contiguous()
    with torch.inference_mode():
        network[0](randn(1, 64, 20, 20))
    assert [layer.weight.data_ptr() for layer in network] == places


def test_a_kernel_that_is_being_learnt_stays_as_it_is() -> None:
    layer = Conv2d(64, 64, 3, padding=1)
    use_fast_paths(layer)
    with torch.no_grad():
        layer(randn(1, 64, 20, 20))
    assert layer.weight.is_contiguous()


def gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the result, and the gradients of x and of every parameter that learns."""
    x = x.detach().requires_grad_()
    out = network(x)
    learnt = [p for p in network.parameters() if p.requires_grad]
    weights = randn(*out.shape)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), [x, *learnt])]


LEARNING = [
    (Conv2d(64, 72, 3, padding=1), (1, 64, 30, 33)),  # Winograd, of tiles that are not whole
    (Conv2d(64, 64, 3, padding=0), (2, 64, 32, 32)),
    (Conv2d(64, 64, 3, padding=1, bias=False), (1, 64, 100, 100)),  # tiles in turns
    (Conv2d(16, 24, 3, padding=1, stride=2), (2, 16, 17, 16)),
    (Conv2d(16, 24, 1), (2, 16, 9, 8)),
    (Conv2d(16, 32, 3, padding=2, dilation=2, groups=2), (2, 16, 9, 8)),
    (Linear(24, 40), (2, 700, 24)),
    (Linear(24, 40, bias=False), (3, 24)),
]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("layer", "shape"), LEARNING)
def test_fast_layers_learn_what_torchs_learn(
    layer: nn.Module, shape: tuple[int, ...], frozen: bool
) -> None:
    exact = copy.deepcopy(layer).double().requires_grad_(not frozen)
    use_fast_paths(exact, False)
    fast = copy.deepcopy(layer).requires_grad_(not frozen)
    use_fast_paths(fast)
    wanted = gradients(exact, randn(*shape).double())
    found = gradients(fast, randn(*shape))
    assert len(found) == (2 if frozen else 2 + len(list(layer.parameters())))
    for one, other in zip(found, wanted, strict=True):
        assert relative(one, other) < 1e-5


def test_a_convolution_learns_by_winograd_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[tuple[int, ...]] = []

    def noted(x: Tensor, *rest: object, **options: object) -> Tensor:
        passes.append(tuple(x.shape))
        return conv_winograd(x, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("sd_ops.convolutions.conv_winograd", noted)
    layer = Conv2d(64, 72, 3, padding=1)
    use_fast_paths(layer)
    gradients(layer, randn(1, 64, 32, 32))
    assert passes == [(1, 64, 32, 32), (1, 72, 32, 32)]


def test_a_wide_kernel_is_transformed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sd_ops.winograd._MAX_KERNEL", 36 * 64 * 20)  # 20 channels of 72
    layer = Conv2d(64, 72, 3, padding=1)
    exact = copy.deepcopy(layer).double()
    use_fast_paths(layer)
    pairs = zip(
        gradients(layer, randn(1, 64, 32, 32)),
        gradients(exact, randn(1, 64, 32, 32).double()),
        strict=True,
    )
    assert all(relative(one, other) < 1e-5 for one, other in pairs)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv2d(64, 64, 3, padding=1), (1, 64, 32, 32)),
        (Conv2d(64, 64, 3, padding=1, stride=2), (1, 64, 32, 32)),
        (Linear(64, 64), (1, 1024, 64)),
    ],
)
def test_what_is_frozen_keeps_no_activations(layer: nn.Module, shape: tuple[int, ...]) -> None:
    layer = copy.deepcopy(layer).requires_grad_(False)
    use_fast_paths(layer)
    kept: list[int] = []

    def noted(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    x = randn(*shape).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
        layer(x)
    assert sum(kept) <= layer.weight.numel()


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
