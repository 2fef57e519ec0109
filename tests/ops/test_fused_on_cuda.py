"""The fused kernels give what torch gives: by Triton's interpreter, and on a card where one is.

The interpreter has to be chosen before Triton is imported, so this file runs itself as a program.
"""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_ops import fused_on_cuda, geglu, group_norm, kernels_fused, norm_silu
from sd_ops.fused_on_cuda import fused_geglu, fused_group_norm

HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32
# Of a result's size: what rounding to the type does, and for float32 some sums besides.
TOLERANCE = {HALF: 2**-10, BRAIN: 2**-7, SINGLE: 2e-5}

with_triton = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs Triton")
on_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Norm(NamedTuple):
    shape: tuple[int, int, int, int]
    groups: int = 32
    dtype: torch.dtype = HALF
    last: bool = True
    silu: bool = True
    mean: float = 0.0
    weight: bool = True
    bias: bool = True
    programs: int = 512  # few of them have many pixels each

    def check(self, device: str) -> None:
        channels = self.shape[1]
        x = (randn(*self.shape) + self.mean).to(device, self.dtype)
        x = x.contiguous(memory_format=torch.channels_last if self.last else torch.preserve_format)
        weight = randn(channels).to(device, self.dtype) + 1 if self.weight else None
        bias = randn(channels + 1)[1:].to(device, self.dtype) if self.bias else None
        with mock.patch.object(fused_on_cuda, "_PROGRAMS", self.programs):
            found = fused_group_norm(x, self.groups, weight, bias, 1e-5, silu=self.silu)
        parts = (part if part is None else part.double() for part in (weight, bias))
        wanted = F.group_norm(x.double(), self.groups, *parts, 1e-5)
        compare(found, F.silu(wanted) if self.silu else wanted, self.dtype, self.mean)
        assert found.stride() == x.stride()


class Gate(NamedTuple):
    shape: tuple[int, ...]
    dtype: torch.dtype = HALF

    def check(self, device: str) -> None:
        projected = (2 * randn(*self.shape)).to(device, self.dtype)
        hidden, gate = projected.double().chunk(2, dim=-1)
        compare(fused_geglu(projected), hidden * F.gelu(gate), self.dtype)


CASES: dict[str, Norm | Gate] = {
    "small-last": Norm((2, 320, 7, 9)),
    "small-contiguous": Norm((1, 320, 7, 9), last=False),
    "small-bfloat16-no-silu": Norm((1, 1280, 8, 8), dtype=BRAIN, silu=False),
    "small-float32-far-from-0": Norm((3, 64, 5, 3), dtype=SINGLE, mean=1000.0, silu=False),
    "small-no-bias": Norm((1, 96, 3, 4), bias=False),
    "small-no-weight-one-group": Norm((2, 24, 3, 4), groups=1, weight=False),
    "one-pixel": Norm((2, 320, 1, 1), dtype=SINGLE),
    "last": Norm((1, 320, 33, 35), programs=64),
    "contiguous": Norm((1, 160, 33, 35), 16, last=False, programs=16),
    "last-bfloat16-wide": Norm((1, 960, 23, 25), dtype=BRAIN, programs=16),
    "last-float32-far-from-0": Norm((2, 80, 33, 35), 8, SINGLE, mean=1000.0, programs=4),
    "contiguous-float32-far-from-0": Norm(
        (1, 72, 51, 53), 9, SINGLE, False, silu=False, mean=1000.0, programs=8
    ),
    "last-no-parameters-odd-groups": Norm(
        (1, 110, 33, 35), 11, weight=False, bias=False, programs=16
    ),
    "gate": Gate((2, 7, 640)),
    "gate-bfloat16-odd": Gate((3, 5, 7, 46), BRAIN),
    "gate-float32": Gate((1, 77, 2, 96), SINGLE),
    "gate-one": Gate((2,), SINGLE),
}


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def compare(found: Tensor, exact: Tensor, dtype: torch.dtype, mean: float = 0.0) -> None:
    assert found.dtype == dtype
    assert found.shape == exact.shape
    apart = (found.double() - exact).abs() / (exact.abs() + 1)
    assert apart.max().item() <= TOLERANCE[dtype] + 1e-6 * mean


def complaints() -> dict[str, str]:
    """Return what is wrong, case by case, on the CPU."""
    found = {}
    if "triton" in sys.modules:
        found["import"] = "Triton is imported before it is needed"
    for name, case in CASES.items():
        try:
            case.check("cpu")
        except AssertionError as error:
            found[name] = str(error) or "not equal"
    return found


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, str] = json.loads(done.stdout)
    return told


@with_triton
def test_no_triton_is_imported_before_it_is_needed(interpreted: dict[str, str]) -> None:
    assert "import" not in interpreted


@with_triton
@pytest.mark.parametrize("name", CASES)
def test_interpreted_kernels_give_what_torch_gives(name: str, interpreted: dict[str, str]) -> None:
    assert name not in interpreted, interpreted[name]


SHAPE = {"width": 10, "lanes": 16}
TILE = SHAPE | {"tile_groups": 8, "tile_pixels": 64}


@with_triton
@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("gate", {"width": 1280, "block": 1024}),
        ("normalise_small", SHAPE | {"tile_pixels": 64, "silu": True}),
        ("normalise_small", SHAPE | {"tile_pixels": 1, "num_pixels": 1, "silu": False}),
        ("statistics", TILE),
        ("normalise", TILE | {"max_chunks": 64, "silu": True}),
        ("normalise", TILE | {"max_chunks": 64, "silu": False, "weight": None, "bias": None}),
    ],
)
def test_kernels_can_be_built_for_a_card(
    name: str, constants: dict[str, int | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter lets pass what the compiler refuses."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler import compile as build

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(importlib.import_module("sd_ops.triton_kernels"), name)
    numbers = {"means": "*fp32", "squares": "*fp32", "eps": "fp32"}
    numbers |= dict.fromkeys(("x", "out", "weight", "bias", "projected"), "*fp16")
    # Triton takes a size of 1 for a constant.
    constants = {"stride_channel": 1} | constants
    types = {
        each: "constexpr" if each in constants else numbers.get(each, "i32")
        for each in kernel.arg_names
    }
    known = {each: constants[each] for each in kernel.arg_names if each in constants}
    source = ASTSource(kernel, types, known)
    built = build(source, GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True})
    assert "st.global" in built.asm["ptx"]


@pytest.fixture(autouse=True)
def _wanted() -> Iterator[None]:
    with kernels_fused():
        yield


@pytest.fixture
def as_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything else decide whether the kernels are taken, and these give zeros."""
    monkeypatch.setattr(fused_on_cuda, "_runs", lambda _device, dtype: dtype != torch.float64)

    def zeros(x: Tensor, *_: object, **__: object) -> Tensor:
        return torch.zeros_like(x)

    monkeypatch.setattr(fused_on_cuda, "fused_group_norm", zeros)
    monkeypatch.setattr(fused_on_cuda, "fused_geglu", zeros)
    monkeypatch.setattr("sd_ops.native.pointwise.library", lambda *_: "this is a card")


def is_fused(function: Callable[..., Tensor], *arguments: object) -> bool:
    return not bool(function(*arguments).any())


PICTURE = randn(2, 16, 5, 6)


@pytest.mark.usefixtures("as_on_a_card")
def test_a_norm_is_fused_where_no_gradient_is_wanted() -> None:
    norm = nn.GroupNorm(4, 16)
    for function in (group_norm, norm_silu):
        assert not is_fused(function, PICTURE, norm)
        with torch.no_grad():
            assert is_fused(function, PICTURE, norm)
            assert is_fused(function, PICTURE.contiguous(memory_format=torch.channels_last), norm)
    norm.requires_grad_(False)
    assert is_fused(norm_silu, PICTURE, norm)
    assert not is_fused(norm_silu, PICTURE.clone().requires_grad_(), norm)


@pytest.mark.usefixtures("as_on_a_card")
@torch.no_grad()
def test_a_norm_is_torchs_where_the_kernels_would_give_something_else() -> None:
    class Other(nn.GroupNorm):
        pass

    hooked, replaced = nn.GroupNorm(4, 16), nn.GroupNorm(4, 16)
    hooked.register_forward_hook(lambda *_: torch.ones(1))
    replaced.forward = lambda _: torch.ones(1)
    norm = nn.GroupNorm(4, 16)
    for function in (group_norm, norm_silu):
        for special in (hooked, replaced, Other(4, 16)):
            assert not is_fused(function, PICTURE, special)
        assert not is_fused(function, PICTURE.double(), nn.GroupNorm(4, 16).double())
        assert not is_fused(function, PICTURE.transpose(2, 3), norm)
        assert not is_fused(function, PICTURE[:, :, 0], norm)
        with pytest.raises(RuntimeError):
            function(PICTURE[:, :12], norm)
        with pytest.raises(ValueError, match="more than 1 value"):
            function(randn(1, 4, 1, 1), nn.GroupNorm(4, 4))


@pytest.mark.usefixtures("as_on_a_card")
def test_a_gate_is_fused_where_no_gradient_is_wanted() -> None:
    tokens = randn(2, 7, 24)
    assert is_fused(geglu, tokens)
    assert not is_fused(geglu, tokens.clone().requires_grad_())
    assert not is_fused(geglu, tokens.double())
    assert not is_fused(geglu, tokens.transpose(0, 1))
    with torch.no_grad():
        assert is_fused(geglu, tokens.clone().requires_grad_())


@pytest.mark.usefixtures("as_on_a_card")
@torch.no_grad()
def test_they_are_only_for_whoever_wants_them() -> None:
    norm = nn.GroupNorm(4, 16)
    assert is_fused(geglu, randn(2, 7, 24))
    with mock.patch.object(fused_on_cuda, "_WANTED", ContextVar("_WANTED", default=False)):
        assert not is_fused(geglu, randn(2, 7, 24))
        assert not is_fused(norm_silu, PICTURE, norm)
        with kernels_fused():
            assert is_fused(norm_silu, PICTURE, norm)
        assert not is_fused(norm_silu, PICTURE, norm)


@pytest.mark.usefixtures("as_on_a_card")
@torch.no_grad()
def test_a_compiler_and_a_tracer_see_torchs_own() -> None:
    norm = nn.GroupNorm(4, 16)
    for told in ("torch._C._get_tracing_state", "torch.compiler.is_compiling"):
        with mock.patch(told, return_value=True):
            assert not is_fused(geglu, randn(2, 7, 24))
            assert not is_fused(norm_silu, PICTURE, norm)


@pytest.mark.gpu
@on_card
@with_triton
@pytest.mark.parametrize("name", CASES)
def test_kernels_on_cuda_give_what_torch_gives(name: str) -> None:
    CASES[name].check("cuda")


@pytest.mark.gpu
@on_card
@with_triton
@pytest.mark.parametrize("size", [8, 64])
@torch.no_grad()
def test_a_cuda_graph_gives_what_its_first_run_gave(size: int) -> None:
    norm = nn.GroupNorm(32, 320).to("cuda", HALF)
    first, second = randn(2, 320, size, size), randn(2, 320, size, size) * 3 + 2
    x = first.to("cuda", HALF).contiguous(memory_format=torch.channels_last)
    wide = randn(2, 9, 640).to("cuda", HALF)
    assert fused_on_cuda.may_norm(x, norm)
    assert fused_on_cuda.may_gate(wide)
    norm_silu(x, norm), geglu(wide)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        normed, gated = norm_silu(x, norm), geglu(wide)
    x.copy_(second)
    wide.neg_()
    graph.replay()
    assert torch.equal(normed, norm_silu(x, norm))
    assert torch.equal(gated, geglu(wide))
    compare(normed, F.silu(norm.double()(x.double())), HALF)


@pytest.mark.gpu
@on_card
@with_triton
@torch.no_grad()
def test_autocast_gets_the_type_that_it_would_get_from_torch() -> None:
    norm, x = nn.GroupNorm(4, 16).cuda(), PICTURE.cuda()
    with torch.autocast("cuda", torch.float16):
        assert fused_on_cuda.may_norm(x, norm)
        assert norm_silu(x, norm).dtype == F.silu(norm(x)).dtype
        half, halves = x.half(), nn.GroupNorm(4, 16).to("cuda", HALF)
        assert norm_silu(half, halves).dtype == F.silu(halves(half)).dtype == SINGLE


if __name__ == "__main__":
    print(json.dumps(complaints()))
