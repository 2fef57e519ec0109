"""Our own norms, SiLU and GEGLU on CPUs give torch's numbers, and only where they may."""

import importlib
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_ops import geglu, group_norm, layer_norm, norm_silu
from sd_ops.native import pointwise
from sd_ops.native.library import why_not_native

ACTIVATIONS = importlib.import_module("sd_ops.activations")
HALVES = torch.bfloat16
TYPES = [
    pytest.param(
        dtype,
        marks=pytest.mark.skipif(
            why_not_native(dtype) is not None, reason=str(why_not_native(dtype))
        ),
    )
    for dtype in (torch.float32, HALVES)
]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


class Norm(NamedTuple):
    shape: tuple[int, int, int, int]
    groups: int
    mean: float = 0.0
    silu: bool = True
    affine: bool = True

    def check(self, dtype: torch.dtype) -> None:
        channels = self.shape[1]
        x = (randn(*self.shape) * 1.5 + self.mean).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        norm = nn.GroupNorm(self.groups, channels, affine=self.affine).to(dtype)
        if self.affine:
            norm.weight.data += randn(channels, seed=1)
            norm.bias.data += randn(channels, seed=2)
        assert pointwise.may_norm(x, norm)
        given = (x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        found, plain = pointwise.fused_group_norm(*given, silu=self.silu), norm(x)
        exact = norm.double()(x.double())
        if self.silu:
            plain, exact = F.silu(plain), F.silu(exact)
        assert found.dtype == dtype
        assert found.stride() == x.stride()
        assert error(found, exact) < 1.1 * error(plain, exact) + torch.finfo(torch.float32).eps


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "case",
    [
        Norm((2, 320, 8, 8), 32),  # 10 channels a group
        Norm((1, 32, 1, 2), 32),
        Norm((3, 16, 5, 7), 1, silu=False),
        Norm((2, 48, 33, 35), 4, affine=False),  # more pixels than one part
        Norm((1, 2560, 4, 4), 32),
        Norm((2, 64, 40, 60), 8, mean=300.0),  # far from nothing, for what it varies
        Norm((1, 64, 12, 12), 16, mean=-30.0, silu=False),
    ],
)
@torch.no_grad()
def test_a_norm_is_torchs(case: Norm, dtype: torch.dtype) -> None:
    case.check(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@torch.no_grad()
def test_a_norm_of_equal_numbers_is_its_bias(dtype: torch.dtype) -> None:
    x = torch.full((1, 16, 40, 40), 1000.0, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    bias = randn(16).to(dtype)
    found = pointwise.fused_group_norm(x, 4, None, bias, 1e-5, silu=False)
    torch.testing.assert_close(found, bias[None, :, None, None].expand(x.shape))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "case", [Norm((2, 320, 8, 8), 32), Norm((3, 48, 33, 35), 4), Norm((2, 64, 9, 7), 16, mean=30.0)]
)
@torch.no_grad()
def test_what_is_added_before_a_norm_is_not_rounded(case: Norm, dtype: torch.dtype) -> None:
    x = (randn(*case.shape) + case.mean).to(dtype).contiguous(memory_format=torch.channels_last)
    norm, added = nn.GroupNorm(case.groups, case.shape[1]), 4 * randn(*case.shape[:2])
    norm, added = norm.to(dtype), added.to(dtype)
    assert pointwise.may_norm(x, norm, added)
    found, plain = norm_silu(x, norm, added=added), F.silu(norm(x + added[:, :, None, None]))
    exact = F.silu(norm.double()(x.double() + added.double()[:, :, None, None]))
    assert error(found, exact) < 1.1 * error(plain, exact) + torch.finfo(torch.float32).eps


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("shape", "mean", "affine"),
    [
        ((320,), 0.0, True),
        ((7, 16), 0.0, False),
        ((2, 33, 48), 0.0, True),
        ((3, 1280), 300.0, True),  # far from nothing, for what it varies
    ],
)
@torch.no_grad()
def test_a_layer_norm_is_torchs(
    shape: tuple[int, ...], mean: float, affine: bool, dtype: torch.dtype
) -> None:
    x = (randn(*shape) * 1.5 + mean).to(dtype)
    norm = nn.LayerNorm(shape[-1], elementwise_affine=affine).to(dtype)
    if affine:
        norm.weight.data += randn(shape[-1], seed=1)
        norm.bias.data += randn(shape[-1], seed=2)
    assert pointwise.may_norm_rows(x, norm)
    found, plain = layer_norm(x, norm), norm(x)
    exact = norm.double()(x.double())
    assert found.dtype == dtype
    assert found.shape == x.shape
    assert error(found, exact) < 1.1 * error(plain, exact) + torch.finfo(torch.float32).eps


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(32,), (7, 64), (2, 33, 2560)])
@torch.no_grad()
def test_a_gate_is_torchs(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    projected = (3 * randn(*shape)).to(dtype)
    assert pointwise.may_gate(projected)
    found = pointwise.fused_geglu(projected)
    hidden, gate = projected.double().chunk(2, dim=-1)
    exact = hidden * F.gelu(gate)
    halves = projected.chunk(2, dim=-1)
    plain = halves[0] * F.gelu(halves[1])
    assert found.dtype == dtype
    assert error(found, exact) < 1.1 * error(plain, exact) + torch.finfo(torch.float32).eps


@pytest.mark.parametrize("dtype", TYPES)
@torch.no_grad()
def test_large_numbers_and_none_come_through(dtype: torch.dtype) -> None:
    gates = torch.tensor([-1e4, -90.0, -20.0, -3.0, -0.0, 0.0, 5.0, 20.0, 1e4, torch.nan] * 16)
    projected = torch.cat([torch.ones(160), gates]).to(dtype)
    found = pointwise.fused_geglu(projected)
    exact = F.gelu(gates.to(dtype).double()).to(dtype)
    torch.testing.assert_close(found, exact, equal_nan=True, rtol=1e-2, atol=1e-6)
    x = torch.zeros(1, 16, 2, 2, dtype=dtype).contiguous(memory_format=torch.channels_last)
    x[0, 0, 0, 0] = torch.nan
    normed = pointwise.fused_group_norm(x, 8, None, None, 1e-5, silu=True)
    assert normed[:, :2].isnan().all()  # their group
    assert not normed[:, 2:].isnan().any()
    weight = torch.full((16,), 1e4, dtype=dtype)
    x[0, 0, 0, 0] = 1
    steep = pointwise.fused_group_norm(x, 8, weight, None, 1e-5, silu=True)
    torch.testing.assert_close(steep, F.silu(F.group_norm(x, 8, weight)))


@pytest.mark.parametrize("dtype", TYPES)
def test_they_are_taken_where_nothing_is_learnt(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zeros(x: Tensor, *_: object, **__: object) -> Tensor:
        return torch.zeros_like(x)

    for name in ("fused_group_norm", "fused_geglu", "fused_layer_norm"):
        monkeypatch.setattr(pointwise, name, zeros)
    x = randn(2, 32, 6, 6).to(dtype).contiguous(memory_format=torch.channels_last)
    norm, wide, added = (
        nn.GroupNorm(4, 32).to(dtype),
        randn(5, 64).to(dtype),
        x[:, :, 0, 0].contiguous(),
    )
    of_rows = nn.LayerNorm(64).to(dtype)

    def taken() -> list[bool]:
        normed = group_norm(x, norm), norm_silu(x, norm), norm_silu(x, norm, added=added)
        return [not bool(one.any()) for one in (*normed, geglu(wide), layer_norm(wide, of_rows))]

    assert taken() == [False] * 5
    with torch.no_grad():
        assert taken() == [True] * 5
        with torch.autocast("cpu", HALVES):
            assert taken() == [False] * 5
        with norm.register_forward_hook(lambda *_: None):
            assert taken() == [False, False, False, True, True]
        with of_rows.register_forward_hook(lambda *_: None):
            assert taken() == [True, True, True, True, False]
        monkeypatch.setattr(pointwise, "library", lambda *_: "no compiler")
        assert taken() == [False] * 5


@pytest.mark.parametrize("dtype", TYPES)
@torch.no_grad()
def test_what_lies_otherwise_is_left_to_torch(dtype: torch.dtype) -> None:
    last = torch.channels_last
    x, norm = randn(2, 32, 6, 6).to(dtype).contiguous(memory_format=last), nn.GroupNorm(4, 32)
    norm = norm.to(dtype)
    assert pointwise.may_norm(x, norm)
    assert not pointwise.may_norm(x.contiguous(), norm)
    assert not pointwise.may_norm(x[0], norm)
    added = x[:, :, 0, 0].contiguous()
    assert pointwise.may_norm(x, norm, added)
    assert not pointwise.may_norm(x, norm, added[:1])
    assert not pointwise.may_norm(x, norm, x[:, :, 0, 0])  # which lies apart
    assert not pointwise.may_norm(x, norm, added.double())
    assert not pointwise.may_norm(x, norm.double())
    assert not pointwise.may_norm(x.double(), norm)
    odd = randn(1, 24, 6, 6).to(dtype).contiguous(memory_format=last)
    assert not pointwise.may_norm(odd, nn.GroupNorm(4, 24).to(dtype))
    one = randn(1, 16, 1, 1).to(dtype).contiguous(memory_format=last)
    assert not pointwise.may_norm(one, nn.GroupNorm(16, 16).to(dtype))
    wide = randn(5, 64).to(dtype)
    of_rows = nn.LayerNorm(64).to(dtype)
    assert pointwise.may_norm_rows(wide, of_rows)
    assert not pointwise.may_norm_rows(wide[:, :32], nn.LayerNorm(32).to(dtype))
    assert not pointwise.may_norm_rows(wide, nn.LayerNorm((5, 64)).to(dtype))
    assert not pointwise.may_norm_rows(wide, nn.LayerNorm(64).double())
    assert not pointwise.may_norm_rows(randn(5, 24).to(dtype), nn.LayerNorm(24).to(dtype))
    assert not pointwise.may_gate(wide[:, ::2])
    assert not pointwise.may_gate(wide[:, :40].contiguous())
    assert not pointwise.may_gate(wide.double())
    assert not pointwise.may_gate(wide.to("meta"))
    assert not pointwise.may_gate(torch.tensor(1.0, dtype=dtype))


@pytest.mark.parametrize("dtype", TYPES)
@torch.no_grad()
def test_the_number_of_threads_changes_nothing(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = randn(2, 320, 40, 40).to(dtype).contiguous(memory_format=torch.channels_last)
    norm, wide = nn.GroupNorm(32, 320).to(dtype), randn(77, 64).to(dtype)
    of_rows = nn.LayerNorm(64).to(dtype)
    wanted = norm_silu(x, norm), geglu(wide), layer_norm(wide, of_rows)
    for threads in (1, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.equal(norm_silu(x, norm), wanted[0])
        assert torch.equal(geglu(wide), wanted[1])
        assert torch.equal(layer_norm(wide, of_rows), wanted[2])
