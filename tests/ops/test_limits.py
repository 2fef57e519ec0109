"""Layers and attention take their processor's paths, and give the same numbers by all of them."""

import importlib

import pytest
import torch
from torch import Tensor, nn

from sd_ops import Conv2d, Linear, attention, use_fast_paths
from sd_ops.limits import PROCESSORS, limits

# By their paths, for the package hands on functions of these names.
LIMITS = importlib.import_module("sd_ops.limits")
ATTENTION = importlib.import_module("sd_ops.attention")

HALVES = torch.bfloat16


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def be(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this processor be taken for another."""
    monkeypatch.setattr(LIMITS, "processor", lambda: name)


INTEL, AMD = "Intel Xeon", "AMD EPYC"


@pytest.mark.parametrize(
    ("units", "others", "name"),
    [
        ({"amx_tile", "avx512_bf16"}, {"avx512_fp16": True, "cpu_name": INTEL}, "amx"),
        ({"avx512_bf16"}, {"avx512_fp16": True, "cpu_name": INTEL}, "avx512_fp16"),
        ({"avx512_bf16"}, {"avx512_fp16": False, "cpu_name": INTEL}, "avx512_bf16"),
        ({"avx512_bf16"}, {"avx512_fp16": False, "cpu_name": AMD}, "avx512_bf16"),
        ({"avx512_bf16"}, {"avx512_fp16": True, "cpu_name": AMD}, "avx512_bf16"),
        ({"avx512_bf16"}, {}, "avx512_bf16"),
        (set(), {"cpu_name": INTEL}, "other"),
    ],
)
def test_a_processor_is_known_by_the_products_it_offers(
    units: set[str], others: dict[str, object], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for unit in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{unit}_supported", lambda unit=unit: unit in units)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: others)
    assert LIMITS._recognised() == name


def test_a_torch_that_cannot_tell_is_one_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for unit in ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "get_capabilities"):
        monkeypatch.delattr(torch.cpu, unit, raising=False)
    assert LIMITS._recognised() == "other"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert LIMITS._recognised() == "avx512_bf16"


@pytest.mark.parametrize("name", PROCESSORS)
def test_winograd_is_for_float32_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    be(name, monkeypatch)
    assert limits(torch.float32).min_tiles < 10**6
    for dtype in (torch.bfloat16, torch.float16):
        assert min(limits(dtype).min_tiles, limits(dtype).min_tiles_to_learn) > 10**15


def test_without_products_of_halves_they_go_torchs_own_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    be("other", monkeypatch)
    known = limits(HALVES)
    assert min(known.min_tokens, known.min_rows) > 10**15
    assert known.max_pixels == 0


LAYERS = [
    (Linear(64, 72), (1, 2100, 64)),
    (Conv2d(64, 72, 3, padding=1), (2, 64, 9, 14)),  # one product
    (Conv2d(64, 72, 3, padding=1), (2, 64, 15, 16)),  # one product with tiles in the processor
    (Conv2d(64, 72, 3, padding=1), (1, 64, 30, 33)),  # Winograd
]


@pytest.mark.parametrize("dtype", [torch.float32, HALVES])
@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_every_processors_path_gives_the_same(
    layer: nn.Module,
    shape: tuple[int, ...],
    name: str,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    be(name, monkeypatch)
    layer, x = layer.to(dtype), randn(*shape).to(dtype)
    with torch.inference_mode():
        use_fast_paths(layer, False)
        wanted = layer(x)
        use_fast_paths(layer)
        found = layer(x)
    error = (found.double() - wanted.double()).square().mean().sqrt() / wanted.double().std()
    assert error < (1e-5 if dtype == torch.float32 else 4e-3)


@pytest.mark.parametrize(
    ("name", "by_rows"), [("amx", 0), ("avx512_bf16", 1), ("avx512_fp16", 0), ("other", 0)]
)
def test_halves_are_attended_by_rows_where_torchs_kernel_is_slow(
    name: str, by_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(name, monkeypatch)
    monkeypatch.setattr(ATTENTION, "may_attend", lambda *_: False)  # no compiler, say
    asked = []
    rows = ATTENTION.by_rows
    monkeypatch.setattr(ATTENTION, "by_rows", lambda *given: asked.append(1) or rows(*given))
    q, k, v = (randn(2, 2, 1030 + number, 8)[:, :, :1030] for number in range(3))
    exact = attention(q, k, v)  # float32: torch's own on all
    assert not asked
    halves = [one.to(HALVES) for one in (q, k, v)]
    found = attention(*halves)
    assert len(asked) == by_rows
    error = (found.double() - exact).square().mean().sqrt() / exact.std()
    assert error < torch.finfo(HALVES).eps
