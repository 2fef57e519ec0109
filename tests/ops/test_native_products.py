"""Our own convolutions and linear layers on CPUs give torch's numbers, and only where they may."""

import copy
import importlib
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_ops import Conv2d, Linear, use_fast_paths
from sd_ops.convolutions import winograd_convolution
from sd_ops.native.library import why_not_native
from sd_ops.winograd import conv_winograd

# By their paths, for the package hands on functions of these names.
LIMITS = importlib.import_module("sd_ops.limits")
LIBRARY = importlib.import_module("sd_ops.native.library")
LINEAR = importlib.import_module("sd_ops.native.linear")
WINOGRAD = importlib.import_module("sd_ops.native.winograd")

HALVES = torch.bfloat16
LAST = torch.channels_last


def needing(dtype: torch.dtype) -> object:
    why = why_not_native(dtype)
    return pytest.param(dtype, marks=pytest.mark.skipif(why is not None, reason=str(why)))


def by_float16() -> bool:
    """Whether bfloat16 is multiplied in float16 here, where the compiler knows it."""
    first = LIBRARY._best_products(HALVES)[0]
    return first == "halves" and not isinstance(
        LIBRARY.library("linear", HALVES, products=first), str
    )


TYPES = [needing(torch.float32), needing(HALVES)]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def kernel(rows: int, channels: int, dtype: torch.dtype) -> Tensor:
    weight = randn(rows, channels, 3, 3) / (9 * channels) ** 0.5
    return weight.to(dtype).contiguous(memory_format=LAST)


@pytest.fixture
def slow_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this processor be one whose products of bfloat16 are slower than float32's."""
    monkeypatch.setattr(LIMITS, "processor", lambda: "avx512_fp16")


SHAPES = [
    # x, outputs, padding
    ((1, 16, 3, 3), 32, 0),  # one tile, a quarter of which is wanted
    ((1, 16, 1, 1), 32, 1),
    ((2, 64, 8, 8), 64, 1),
    ((3, 80, 9, 14), 96, 1),  # channels and tiles that fill no stretch
    ((1, 144, 7, 21), 32, 2),
    ((2, 32, 40, 60), 32, 1),  # more tiles than one band
    ((1, 1440, 40, 44), 32, 1),  # as many channels that a band is smaller
]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("shape", "outputs", "padding"), SHAPES)
@torch.no_grad()
def test_a_convolution_is_torchs(
    shape: tuple[int, ...], outputs: int, padding: int, dtype: torch.dtype
) -> None:
    x, weight = randn(*shape).to(dtype), kernel(outputs, shape[1], dtype)
    for bias in (None, randn(outputs).to(dtype)):
        assert WINOGRAD.may_convolve_natively(x, weight, bias)
        found = WINOGRAD.convolve_natively(x, weight, bias, padding)
        wide = None if bias is None else bias.double()
        exact = F.conv2d(x.double(), weight.double(), wide, padding=padding)
        plain = F.conv2d(x, weight, bias, padding=padding)
        assert found.dtype == dtype
        assert found.shape == exact.shape
        assert found.is_contiguous(memory_format=LAST)
        assert torch.equal(found, WINOGRAD.convolve_natively(x, weight.contiguous(), bias, padding))
        # In float32 the transforms cost some digits; in halves all are there where they are
        # computed so, and by float16 fewer are lost than bfloat16 rounds off (1.7e-3).
        halves = 1.02 * error(plain, exact) + (1.5e-3 if by_float16() else 0)
        allowed = 5e-6 if dtype == torch.float32 else halves
        assert error(found, exact) < allowed


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("padding", [0, 1])
def test_its_transpose_is_the_inputs_gradient(padding: int, dtype: torch.dtype) -> None:
    x, weight = randn(2, 64, 13, 18).to(dtype).requires_grad_(), kernel(96, 64, dtype)
    grad = randn(2, 96, 11 + 2 * padding, 16 + 2 * padding).to(dtype)
    back = weight.transpose(0, 1)
    assert WINOGRAD.may_convolve_natively(grad, back, None)
    found = WINOGRAD.convolve_natively(grad, back, None, 2 - padding, turned=True)
    (learnt,) = torch.autograd.grad(winograd_convolution(x, weight, None, padding), x, grad)
    assert torch.equal(found, learnt)
    assert torch.equal(
        found, WINOGRAD.convolve_natively(grad, back.contiguous(), None, 2 - padding, turned=True)
    )
    exact = torch.nn.grad.conv2d_input(x.shape, weight.double(), grad.double(), padding=padding)
    assert error(found, exact) < (5e-6 if dtype == torch.float32 else 3e-3)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1, 64, 9, 9), (2, 64, 40, 40)])  # few tiles, and many
def test_a_kernel_learns_as_ever(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    def learnt(dtype: torch.dtype, path: object) -> list[Tensor]:
        assert callable(path)
        leaves = [
            one.to(dtype).requires_grad_()
            for one in (randn(*shape), kernel(32, 64, torch.float32), randn(32))
        ]
        out = path(*leaves)
        return list(torch.autograd.grad(out, leaves, randn(*out.shape).to(dtype)))

    if dtype == HALVES and shape[2] == 40:
        assert LIMITS.limits(HALVES).min_tiles_to_learn > 10**15  # then torch's own learns
    found = learnt(dtype, lambda *given: winograd_convolution(*given, 1))
    exact = learnt(torch.float64, lambda *given: F.conv2d(*given, padding=1))
    for ours, true in zip(found, exact, strict=True):
        assert ours.dtype == dtype
        assert error(ours, true) < (1e-5 if dtype == torch.float32 else 5e-3)


@pytest.mark.parametrize("dtype", TYPES)
@torch.no_grad()
def test_what_is_not_a_number_stays_in_its_tile(dtype: torch.dtype) -> None:
    x, weight = randn(2, 32, 16, 16).to(dtype), kernel(32, 32, dtype)
    x[1, 3, 9, 9] = torch.nan
    found = WINOGRAD.convolve_natively(x, weight, None, 1)
    assert found[1, :, 8:11, 8:11].isnan().all()
    assert not found[0].isnan().any()
    assert not found[1, :, :4].isnan().any()


@pytest.mark.parametrize("dtype", TYPES)
@torch.no_grad()
def test_neither_threads_nor_the_batch_change_a_bit(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias = randn(3, 80, 30, 34).to(dtype), kernel(96, 80, dtype), randn(96).to(dtype)
    tokens, matrix = (
        x.permute(0, 2, 3, 1).flatten(1, 2).contiguous(),
        weight[..., 0, 0].contiguous(),
    )
    wanted = WINOGRAD.convolve_natively(x, weight, bias, 1)
    alone = WINOGRAD.convolve_natively(x[1:2], weight, bias, 1)
    assert torch.equal(alone, wanted[1:2])
    lines = LINEAR.linear_natively(tokens.to(HALVES), matrix.to(HALVES), None)
    for threads in (1, 5, 16):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.equal(WINOGRAD.convolve_natively(x, weight, bias, 1), wanted)
        again = LINEAR.linear_natively(tokens[1:2].to(HALVES), matrix.to(HALVES), None)
        assert torch.equal(again, lines[1:2])


@pytest.mark.parametrize("dtype", TYPES)
@torch.no_grad()
def test_convolutions_of_other_kinds_are_left_to_torch(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias = randn(1, 32, 9, 9).to(dtype), kernel(32, 32, dtype), randn(32).to(dtype)
    may = WINOGRAD.may_convolve_natively
    assert may(x, weight, bias)
    assert not may(x, kernel(48, 32, dtype), None)
    assert not may(x, kernel(32, 24, dtype), None)
    assert not may(x.double(), weight.double(), None)
    assert not may(x, weight, bias.double())
    assert not may(x.to("meta"), weight.to("meta"), None)
    assert not may(x[:0], weight, None)
    assert not may(x, weight[..., :1, :1], None)
    monkeypatch.setattr(WINOGRAD, "library", lambda *_: "no compiler")
    assert not may(x, weight, bias)
    if dtype == torch.float32:  # then it goes by torch's products
        found = conv_winograd(x, weight, bias, 1)
        torch.testing.assert_close(found, F.conv2d(x, weight, bias, padding=1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("exponent", [-70, -20, 9, 40])
@torch.no_grad()
def test_large_and_small_numbers_lose_no_more_than_others(
    exponent: int, dtype: torch.dtype
) -> None:
    """Powers of two are scaled away where float16 would not hold them, and back to the bit."""
    x, weight, other = randn(2, 48, 9, 9).to(dtype), kernel(64, 48, dtype), 2.0 ** (exponent // 3)
    wanted = WINOGRAD.convolve_natively(x, weight, None, 1)
    found = WINOGRAD.convolve_natively(x * 2.0**exponent, weight * other, None, 1)
    assert torch.equal(found, wanted * (2.0**exponent * other))
    # One that is far above the rest takes no digits from other pictures, tokens and outputs.
    x[0, 5, 4, 4] = 2.0**100
    weight[3] *= 2.0**30
    found = WINOGRAD.convolve_natively(x, weight, None, 1)
    others = [index for index in range(64) if index != 3]
    assert torch.equal(found[1, others], wanted[1, others])
    if dtype == HALVES:
        tokens, matrix = randn(2, 20, 80).to(dtype), weight[..., 1, 1].repeat(1, 2)[:, :80]
        matrix[3] *= 2.0**-30
        matrix = matrix.contiguous()
        wanted = LINEAR.linear_natively(tokens, matrix, None)
        tokens[0, 3] *= 2.0**exponent
        matrix[3] *= 2.0**exponent
        found = LINEAR.linear_natively(tokens, matrix, None)
        assert torch.equal(
            found[..., others].flatten(0, 1)[4:], wanted[..., others].flatten(0, 1)[4:]
        )
        assert torch.equal(found[0, 3, others], wanted[0, 3, others] * 2.0**exponent)
        assert torch.equal(found[1, :, 3], wanted[1, :, 3] * 2.0**exponent)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("exponent", [-126, -100, 100, 123, 126])
@torch.no_grad()
def test_the_ends_of_the_range_are_no_ends(exponent: int, dtype: torch.dtype) -> None:
    x = randn(1, 48, 9, 9).clamp(-1.9, 1.9).to(dtype)
    weight = kernel(64, 48, dtype)
    wanted = WINOGRAD.convolve_natively(x, weight, None, 1)
    found = WINOGRAD.convolve_natively(x * 2.0**exponent, weight * 2.0**-60, None, 1)
    scaled = dtype == HALVES and by_float16()
    if scaled or abs(exponent) <= 100:  # else float32's transforms come to its ends
        assert found.isfinite().all()
        wanted *= 2.0 ** (exponent - 60)
        assert (found - wanted).abs().max() <= 1e-3 * wanted.abs().max()
    if dtype == HALVES:
        tokens, matrix = x.flatten(2).transpose(1, 2), weight[..., 1, 1].contiguous()
        wanted = LINEAR.linear_natively(tokens, matrix, None) * 2.0 ** (exponent - 60)
        found = LINEAR.linear_natively(tokens * 2.0**exponent, matrix * 2.0**-60, None)
        assert found.isfinite().all()
        assert exponent == -126 or torch.equal(found, wanted)  # there float32 has fewer digits


@pytest.mark.parametrize("dtype", TYPES[1:])
@torch.no_grad()
def test_what_overflows_is_told(dtype: torch.dtype) -> None:
    tokens, matrix = randn(1, 20, 64).to(dtype), randn(32, 64, seed=1).to(dtype)
    tokens[0, 2, 7] = torch.inf
    tokens[0, 5, 7] = torch.nan
    tokens[0, 9] = 0
    found = LINEAR.linear_natively(tokens, matrix, None)
    assert not found[0, 2].isfinite().any()
    assert found[0, 5].isnan().all()
    assert torch.equal(found[0, 9], torch.zeros(32, dtype=dtype))
    assert found[0, [0, 1, 3, 4, 6, 7, 8]].isfinite().all()


LINES = [
    # tokens, channels, outputs
    (16, 16, 32),
    (77, 768, 320),
    (300, 336, 64),  # channels that fill no stretch
    (130, 5120, 96),  # more than is turned at once
    (33, 64, 5120),
]


@pytest.mark.parametrize(("tokens", "channels", "outputs"), LINES)
@pytest.mark.parametrize("dtype", TYPES[1:])
@pytest.mark.usefixtures("slow_pairs")
@torch.no_grad()
def test_a_linear_layer_is_torchs(
    tokens: int, channels: int, outputs: int, dtype: torch.dtype
) -> None:
    x = randn(2, tokens, channels).to(dtype)
    layer = Linear(channels, outputs).to(dtype)
    for bias in (None, layer.bias):
        assert LINEAR.may_map_natively(x, layer.weight, bias)
        found, plain = (
            LINEAR.linear_natively(x, layer.weight, bias),
            F.linear(x, layer.weight, bias),
        )
        wide = None if bias is None else bias.double()
        exact = F.linear(x.double(), layer.weight.double(), wide)
        assert found.dtype == dtype
        assert found.shape == exact.shape
        assert error(found, exact) < (1.2 if by_float16() else 1.01) * error(plain, exact)


@pytest.mark.parametrize("dtype", TYPES[1:])
@pytest.mark.usefixtures("slow_pairs")
def test_halves_are_multiplied_so_where_their_products_are_slow(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def noted(x: Tensor, *rest: Tensor, **more: Tensor) -> Tensor:
        asked.append(tuple(x.shape))
        return LINEAR.linear_natively(x, *rest, **more)

    monkeypatch.setattr("sd_ops.layers.linear_natively", noted)
    monkeypatch.setattr("sd_ops.unfolded.linear_natively", noted)
    tokens, picture = randn(1, 20, 64).to(dtype), randn(2, 64, 12, 12).to(dtype)
    for layer, x, shapes in (
        (Linear(64, 96), tokens, [(1, 20, 64)]),
        (Linear(64, 96), tokens[:, :7], []),  # few
        (Linear(64, 40), tokens, []),  # no whole panels
        (Conv2d(64, 96, 1), picture, [(2, 12, 12, 64)]),
        (Conv2d(64, 96, 3, stride=2, padding=1), picture, [(72, 576)]),
        (Conv2d(64, 96, 1, stride=2), picture, []),
    ):
        asked.clear()
        layer = layer.to(dtype)
        use_fast_paths(layer, False)
        with torch.inference_mode():
            wanted = layer(x)
            use_fast_paths(layer)
            found = layer(x)
        assert asked == shapes
        torch.testing.assert_close(found, wanted, atol=0.02, rtol=0.01)
        layer(x)  # and where gradients are wanted as ever
        assert asked == shapes


@pytest.mark.parametrize(
    ("make", "shape", "passes"),
    [
        (lambda: Linear(320, 64), (2, 40, 320), 2),
        (lambda: Linear(64, 1280, bias=False), (130, 64), 2),
        (lambda: Conv2d(96, 64, 1), (2, 96, 12, 12), 2),
        (lambda: Linear(48, 64), (2, 40, 48), 0),  # on the way back no whole panels
        (lambda: Linear(64, 64), (1, 15, 64), 0),  # few
    ],
)
@pytest.mark.parametrize("dtype", TYPES[1:])
@pytest.mark.usefixtures("slow_pairs")
def test_what_is_frozen_hands_gradients_on(
    make: Callable[[], nn.Module],
    shape: tuple[int, ...],
    passes: int,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    taken: list[bool] = []
    true = LINEAR.linear_natively

    def noted(*given: Tensor, turned: bool = False) -> Tensor:
        taken.append(turned)
        out: Tensor = true(*given, turned=turned)
        return out

    monkeypatch.setattr(LINEAR, "linear_natively", noted)
    plain = make().to(dtype).requires_grad_(False)
    fast, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    use_fast_paths(fast)
    found = []
    for layer, of in ((fast, dtype), (plain, dtype), (exact, torch.float64)):
        x = randn(*shape).to(dtype).to(of).requires_grad_()
        out = layer(x)
        grad = randn(*out.shape, seed=1).to(dtype).to(of)
        found.append((out.detach(), *torch.autograd.grad(out, x, grad)))
    assert taken == [False, True][:passes]
    for one, other, true_one in zip(*found, strict=True):
        assert error(one, true_one) < (1.2 if by_float16() else 1.01) * error(other, true_one)
