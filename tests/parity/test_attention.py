"""Every attention backend against softmax(q k^T / sqrt(D)) v worked out in float64."""

import pytest
import torch
from torch import Tensor

from sd_ops import attention, resolve_backend

# (B, H, Tq, T, D): UNet self- and cross-attention, the VAE's single wide head.
SHAPES = [(2, 8, 64, 64, 40), (1, 8, 100, 77, 160), (1, 1, 64, 64, 512), (1, 4, 1, 5, 8)]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}

on_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def qkv(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, queries, keys, width = shape
    generator = torch.Generator().manual_seed(sum(shape))
    q = torch.randn(batch, heads, queries, width, generator=generator)
    k = torch.randn(batch, heads, keys, width, generator=generator)
    v = torch.randn(batch, heads, keys, width, generator=generator)
    return q, k, v


def written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (t.double().cpu() for t in (q, k, v))
    return ((q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5).softmax(-1) @ v


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", ["auto", "sdpa", "chunked"])
def test_a_backend_equals_the_formula_to_1e_5_in_float32(
    backend: str, shape: tuple[int, ...]
) -> None:
    q, k, v = qkv(shape)
    out = attention(q, k, v, backend=backend).double()
    torch.testing.assert_close(out, written_out(q, k, v), atol=1e-5, rtol=0)


@on_card
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("backend", ["auto", "xformers", "sdpa", "chunked"])
def test_a_backend_equals_the_formula_on_cuda(backend: str, dtype: torch.dtype) -> None:
    if backend == "xformers":
        pytest.importorskip("xformers.ops", exc_type=ImportError)
    for shape in SHAPES:
        q, k, v = (t.to("cuda", dtype) for t in qkv(shape))
        out = attention(q, k, v, backend=backend).double().cpu()
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(out, written_out(q, k, v), atol=tolerance, rtol=tolerance)


@on_card
@pytest.mark.gpu
def test_auto_on_cuda_is_xformers_where_it_imports() -> None:
    pytest.importorskip("xformers.ops", exc_type=ImportError)
    assert resolve_backend("auto", torch.device("cuda"), torch.float16) == "xformers"
