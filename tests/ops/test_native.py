"""Our own attention kernels give torch's numbers, both ways, and are never in anybody's way."""

import ctypes
import importlib
import os
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sd_ops import attention
from sd_ops.native.library import PRODUCTS, library, why_not_native

# By their paths, for the package hands on functions of these names.
NATIVE = importlib.import_module("sd_ops.native.attention")
LIBRARY = importlib.import_module("sd_ops.native.library")
ATTENTION = importlib.import_module("sd_ops.attention")

HALVES = torch.bfloat16
NEEDED = {dtype: why_not_native(dtype) for dtype in (torch.float32, HALVES)}


UNITS = {"tiles": "amx_bf16", "halves": "avx512_fp16"}


def _why_not(dtype: torch.dtype, products: str | None) -> str | None:
    unit = UNITS.get(products or "")
    if unit and unit not in LIBRARY._processor():
        return f"the processor lacks {unit}"
    return NEEDED[dtype]


def kinds(*, learn: bool = False) -> list[object]:
    """Return each type with what multiplies it; those that this processor lacks are skipped."""
    halves = tuple(name for name in PRODUCTS if not (learn and name == "halves"))
    return [
        pytest.param(
            dtype,
            products,
            id=products or "float32",
            marks=pytest.mark.skipif(
                (why := _why_not(dtype, products)) is not None, reason=str(why)
            ),
        )
        for dtype, products in ((torch.float32, None), *((HALVES, name) for name in halves))
    ]


@pytest.fixture
def kernels(dtype: torch.dtype, products: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let attention be by the kernels of a type that multiply so."""
    chosen = library("attention", dtype, products=products)
    assert isinstance(chosen, ctypes.CDLL)
    monkeypatch.setattr(NATIVE, "library", lambda *_: chosen)
    monkeypatch.setattr(NATIVE, "kernels", lambda *_, **__: chosen)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def qkv(dtype: torch.dtype, queries: int, keys: int, width: int, peaked: float) -> list[Tensor]:
    """Return q, k and v (2, 3, T, D) as layers hand them on: heads side by side."""
    shapes = [(2, queries, 3, width), (2, keys, 3, width), (2, keys, 3, width)]
    made = [randn(*shape, seed=number) for number, shape in enumerate(shapes)]
    made[0] *= peaked
    return [one.to(dtype).transpose(1, 2) for one in made]


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


SIZES = [
    # queries, keys, width, how peaked
    (1, 1, 2, 1.0),
    (5, 33, 6, 1.0),
    (48, 128, 40, 1.0),
    (97, 77, 80, 3.0),
    (300, 600, 40, 1.0),
    (300, 601, 64, 8.0),  # later keys score more than the first ones
    (70, 259, 160, 0.1),
    (33, 31, 256, 1.0),
]


@pytest.mark.parametrize(("queries", "keys", "width", "peaked"), SIZES)
@pytest.mark.parametrize(("dtype", "products"), kinds())
@pytest.mark.usefixtures("kernels")
def test_it_attends_as_torch_does(
    dtype: torch.dtype,
    products: str | None,
    queries: int,
    keys: int,
    width: int,
    peaked: float,
) -> None:
    given = qkv(dtype, queries, keys, width, peaked)
    assert NATIVE.may_attend(*given)
    found, torchs = NATIVE.attend(*given), F.scaled_dot_product_attention(*given)
    # Scores in float16 are as many digits as they are large apart from exact ones, which are as
    # far from those of what has not been rounded to bfloat16.
    ours = products == "halves"
    true = qkv(torch.float64 if ours else dtype, queries, keys, width, peaked)
    exact = F.scaled_dot_product_attention(*(one.double() for one in true))
    assert found.dtype == dtype
    assert found.shape == exact.shape
    allowed = (1.2 if ours else 1.1) * error(torchs, exact)
    assert error(found, exact) < allowed + 2 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize(("queries", "keys", "width", "peaked"), SIZES)
@pytest.mark.parametrize(("dtype", "products"), kinds(learn=True))
@pytest.mark.usefixtures("kernels")
def test_it_learns_as_torch_does(
    dtype: torch.dtype, queries: int, keys: int, width: int, peaked: float
) -> None:
    given = qkv(dtype, queries, keys, width, peaked)
    grad = randn(2, queries, 3, width, seed=9).to(dtype).transpose(1, 2)

    def learnt(attend: object, *given: Tensor) -> tuple[Tensor, ...]:
        leaves = [one.detach().requires_grad_() for one in given]
        assert callable(attend)
        return torch.autograd.grad(attend(*leaves), leaves, grad.to(leaves[0].dtype))

    found = learnt(NATIVE.attend_and_learn, *given)
    torchs = learnt(F.scaled_dot_product_attention, *given)
    exact = learnt(F.scaled_dot_product_attention, *(one.double() for one in given))
    largest = max(float(one.norm()) for one in exact)
    for ours, theirs, true in zip(found, torchs, exact, strict=True):
        assert ours.dtype == dtype
        apart, allowed = (float((one.double() - true).norm()) for one in (ours, theirs))
        # A gradient that is nothing, as of one key alone, is nothing to rounding.
        assert apart < 1.3 * allowed + 1e-5 * float(true.norm()) + 1e-6 * largest


@pytest.mark.parametrize(("dtype", "products"), kinds())
@pytest.mark.usefixtures("kernels")
def test_scores_may_be_as_large_as_they_like(dtype: torch.dtype) -> None:
    q, k, v = qkv(dtype, 40, 700, 40, 1.0)
    k = k * 0
    k[:, :, 650] = 300 * q[:, :, 3]  # far above all that came before
    k[:, :, 10] = -300 * q[:, :, 3]
    found = NATIVE.attend(q, k, v)
    torch.testing.assert_close(found[:, :, 3], v[:, :, 650])
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    torchs = F.scaled_dot_product_attention(q, k, v)
    assert error(found, exact) < 3 * error(torchs, exact) + torch.finfo(dtype).eps


@pytest.mark.parametrize("exponent", [-30, -12, 12, 30])
@pytest.mark.parametrize(("dtype", "products"), kinds())
@pytest.mark.usefixtures("kernels")
def test_what_is_large_in_one_and_small_in_another_is_the_same(
    dtype: torch.dtype, exponent: int
) -> None:
    q, k, v = qkv(dtype, 70, 300, 40, 2.0)
    wanted = NATIVE.attend(q, k, v)
    found = NATIVE.attend(q * 2.0**exponent, k * 2.0**-exponent, v * 2.0 ** (exponent // 2))
    assert torch.equal(found, wanted * 2.0 ** (exponent // 2))
    even = NATIVE.attend(q * 2.0**-30, k, v)  # whose scores are all but nought
    torch.testing.assert_close(even, v.mean(2, keepdim=True).expand_as(even), atol=2e-3, rtol=2e-2)


@pytest.mark.parametrize(("dtype", "products"), kinds())
@pytest.mark.usefixtures("kernels")
def test_what_is_not_a_number_is_not_hidden(dtype: torch.dtype) -> None:
    q, k, v = qkv(dtype, 40, 50, 16, 1.0)
    q[0, 0, 7, 3] = torch.nan
    found = NATIVE.attend(q, k, v)
    assert found[0, 0, 7].isnan().all()
    assert found.isnan().sum() == 16


@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize(("dtype", "products"), kinds())
@pytest.mark.usefixtures("kernels")
def test_the_number_of_threads_changes_nothing(
    dtype: torch.dtype, products: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [one.requires_grad_() for one in qkv(dtype, 200, 150, 40, 1.0)]

    def work() -> list[Tensor]:
        if products == "halves":
            return [NATIVE.attend(*(one.detach() for one in given))]
        out = NATIVE.attend_and_learn(*given)
        return [out, *torch.autograd.grad(out.float().square().sum(), given)]

    wanted = work()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for ours, other in zip(work(), wanted, strict=True):
        assert torch.equal(ours, other)


@pytest.mark.parametrize(("dtype", "products"), kinds())
@pytest.mark.usefixtures("kernels")
def test_tensors_are_taken_as_they_lie(dtype: torch.dtype) -> None:
    q, k, v = qkv(dtype, 60, 50, 16, 1.0)
    wanted = NATIVE.attend(q, k, v)
    turned = q.transpose(2, 3).contiguous().transpose(2, 3)  # whose rows do not lie in one piece
    packed = torch.cat([k, v], dim=-1)
    found = NATIVE.attend(turned, packed[..., :16], packed[..., 16:])
    assert torch.equal(found, wanted)
    one = v[:1, :, :1].expand_as(v)  # one value for all: its rows lie on top of each other
    torch.testing.assert_close(
        NATIVE.attend(q, k, one), one[:, :, :1].expand(q.shape), rtol=1e-2, atol=1e-2
    )


def test_nothing_else_is_taken() -> None:
    q, k, v = qkv(torch.float32, 40, 50, 16, 1.0)
    taken = NEEDED[torch.float32] is None
    assert NATIVE.may_attend(q, k, v) == taken
    assert not NATIVE.may_attend(*(one.double() for one in (q, k, v)))
    assert not NATIVE.may_attend(*(one.half() for one in (q, k, v)))
    assert not NATIVE.may_attend(q, k, v[..., :8])
    assert not NATIVE.may_attend(q, k[..., :8], v[..., :8])
    assert not NATIVE.may_attend(q, k[:1], v[:1])
    assert not NATIVE.may_attend(q, k[:, :1], v[:, :1])
    assert not NATIVE.may_attend(q[0], k[0], v[0])
    assert not NATIVE.may_attend(*(one[..., :15] for one in (q, k, v)))
    assert not NATIVE.may_attend(q, k[:, :, :0], v[:, :, :0])
    assert not NATIVE.may_attend(torch.nn.Parameter(q), k, v)


@pytest.mark.parametrize(("dtype", "products"), kinds(learn=True))
@pytest.mark.usefixtures("kernels")
def test_auto_takes_it_where_it_is_the_faster_one(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def told(name: str) -> object:
        path = getattr(NATIVE, name)
        return lambda *given: asked.append(name) or path(*given)

    for name in ("attend", "attend_and_learn"):
        monkeypatch.setattr(ATTENTION, name, told(name))
    q, k, v = qkv(dtype, 1024, 77, 40, 1.0)
    for backend in ("auto", "native", "sdpa", "chunked"):
        attention(q, k, v, backend=backend)
    attention(q[:, :, :32], k, v)
    wide = torch.zeros(1, 1, 1024, 512, dtype=dtype)  # as the autoencoder's
    attention(wide, wide, wide, backend="native")
    assert asked == ["attend", "attend"]
    attention(q.requires_grad_(), k, v)
    assert asked[2:] == (["attend_and_learn"] if dtype == HALVES else [])


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Begin anew with an empty cache; return its folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(LIBRARY, "library", library.__wrapped__)
    return tmp_path / "cache" / "sd-ops"


needs_kernels = pytest.mark.skipif(
    NEEDED[torch.float32] is not None, reason=str(NEEDED[torch.float32])
)


@needs_kernels
def test_it_is_compiled_once_and_kept(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(LIBRARY.library("attention", torch.float32), ctypes.CDLL)
    (kept,) = elsewhere.iterdir()  # and nothing of the making
    assert kept.suffix == ".so"
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    assert isinstance(LIBRARY.library("attention", torch.float32), ctypes.CDLL)


@pytest.mark.skipif(NEEDED[HALVES] is not None, reason=str(NEEDED[HALVES]))
def test_a_compiler_too_old_for_float16_serves_all_the_same(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old-cc"
    old.write_text('#!/bin/sh\ncase "$*" in *-DHALVES=1*) exit 1;; esac\nexec cc "$@"\n')
    old.chmod(0o755)
    monkeypatch.setenv("CC", str(old))
    monkeypatch.setattr(LIBRARY, "_best_products", lambda _: ("halves", "floats"))
    assert isinstance(LIBRARY.library("linear", HALVES), ctypes.CDLL)
    assert len(list(elsewhere.iterdir())) == 1
    assert isinstance(LIBRARY.library("linear", HALVES, products="halves"), str)
    assert LIBRARY.products_to_learn(HALVES) == "floats"


@needs_kernels
def test_a_damaged_one_is_compiled_anew(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LIBRARY.library("attention", torch.float32)
    (kept,) = elsewhere.iterdir()
    # In another folder, for what has been loaded once is not read again.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    damaged = tmp_path / "other" / "sd-ops" / kept.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(kept.read_bytes()[:1000])
    assert isinstance(LIBRARY.library("attention", torch.float32), ctypes.CDLL)
    assert {file.stat().st_size for file in damaged.parent.iterdir()} == {kept.stat().st_size}


@needs_kernels
def test_without_a_compiler_it_says_so(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    reason = LIBRARY.library("attention", torch.float32)
    assert LIBRARY.why_not_native(torch.float32) == reason
    assert reason == ("they cannot be built or loaded (no C compiler: cc, gcc, clang not found)")
    monkeypatch.setenv("CC", "nobodys-cc")
    assert "nobodys-cc not found" in str(LIBRARY.library("attention", torch.float32))
    assert not elsewhere.exists()


@needs_kernels
def test_a_compiler_that_fails_leaves_nothing(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho 'I cannot' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    reason = LIBRARY.library("attention", torch.float32)
    assert reason == "they cannot be built or loaded (I cannot)"
    assert list(elsewhere.iterdir()) == []


@needs_kernels
def test_a_cache_that_cannot_be_written_to_costs_the_kernels_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(LIBRARY, "library", library.__wrapped__)
    assert "cannot be built" in str(LIBRARY.library("attention", torch.float32))


def test_it_may_be_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SD_OPS_NATIVE", "0")
    monkeypatch.setattr(NATIVE, "library", library.__wrapped__)
    monkeypatch.setattr(LIBRARY, "library", library.__wrapped__)
    q, k, v = qkv(torch.float32, 1024, 77, 40, 1.0)
    assert LIBRARY.why_not_native(torch.float32) == "SD_OPS_NATIVE is 0"
    assert not NATIVE.may_attend(q, k, v)
    assert torch.equal(attention(q, k, v), F.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize(
    ("system", "machine", "unit", "dtype", "reason"),
    [
        ("Windows", "AMD64", "AVX512", torch.float32, "Linux on x86-64, not Windows on AMD64"),
        ("Linux", "x86_64", "AVX2", torch.float32, "lacks AVX-512"),
        ("Linux", "x86_64", "AVX512", torch.float64, "not torch.float64"),
    ],
)
def test_elsewhere_it_says_why_not(
    system: str,
    machine: str,
    unit: str,
    dtype: torch.dtype,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SD_OPS_NATIVE", raising=False)
    monkeypatch.setattr(LIBRARY.platform, "system", lambda: system)
    monkeypatch.setattr(LIBRARY.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: unit)
    assert reason in str(LIBRARY.library.__wrapped__("attention", dtype))


SOURCES = [
    *((name, products) for name in ("attention", "linear", "winograd") for products in PRODUCTS),
    *((name, None) for name in ("attention", "linear", "winograd", "pointwise")),
    ("pointwise", "floats"),
]


@needs_kernels
@pytest.mark.parametrize(("name", "products"), SOURCES)
def test_compilers_have_nothing_to_complain_of(
    name: str, products: str | None, tmp_path: Path
) -> None:
    types = LIBRARY._defines(HALVES if products else torch.float32, products or "floats")
    compiler = os.environ.get("CC", "cc")
    probe = (compiler, "-mavx512fp16", "-x", "c", "-E", os.devnull)
    if products == "halves" and subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this compiler knows no products of float16, and is done without")
    units = (
        "-mavx512f",
        "-mavx512bf16",
        "-mamx-tile",
        "-mamx-bf16",
        "-mavx512bw",
        "-mavx512vl",
        "-mfma",
        *(["-mavx512fp16"] if products == "halves" else []),
    )
    source = Path(LIBRARY.__file__).parent / f"{LIBRARY._source(name, products or '')}.c"
    flags = ("-O1", *units, "-fopenmp", "-Wall", "-Wextra", *types, "-c", str(source))
    done = subprocess.run(
        (compiler, *flags, "-o", str(tmp_path / "a.o")),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
