"""Group norm with SiLU, and GEGLU, as single passes over memory on CUDA, where Triton is.

Within `kernels_fused`, that is: launching a kernel of Triton's keeps the processor busier than one
of torch's, so that they are for steps which are recorded once and replayed (CUDA graphs).

torch ships Triton with its CUDA builds for Linux. Where it is not there, or where it cannot build
a kernel for the card, nothing here may be called, and `may_norm` and `may_gate` say so.

A kernel is built at its first use for a type and a width, some seconds for a whole network, and is
then kept on disk by Triton. As with torch's own, run once before a CUDA graph is captured.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import ModuleType

import torch
from torch import Tensor, nn

__all__ = ["fused_geglu", "fused_group_norm", "kernels_fused", "may_gate", "may_norm"]

_WANTED = ContextVar("_WANTED", default=False)

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_MAX_VALUES = 2**31 - 1  # the kernels count in int32
_MAX_WIDTH = 1024  # channels of a group

# Values that a program holds at once, 32 in each of 256 threads; and those up to which it norms a
# group by itself: there a second launch would cost more than the processors that stand idle.
_TILE, _SMALL = 2**13, 2**14
_LANES = 128  # channels side by side: 160 bytes and more of halves in one read
# Enough to fill a card of 132 processors, each of which runs four at once.
_PROGRAMS, _MAX_CHUNKS = 512, 64
_GATE_BLOCK = 1024
# Triton 3.9 warns where it is not told whether a b + c may be rounded once.
_FUSION = {"enable_fp_fusion": True}


@contextmanager
def kernels_fused() -> Iterator[None]:
    """Let `group_norm`, `norm_silu` and `geglu` take these kernels on CUDA, where they may."""
    before = _WANTED.set(True)
    try:
        yield
    finally:
        _WANTED.reset(before)


def may_gate(projected: Tensor) -> bool:
    """Tell whether `fused_geglu` may take (..., 2 C)."""
    return (
        _may(projected)
        and projected.is_contiguous()
        and projected.dim() > 0
        and projected.shape[-1] % 2 == 0
    )


def may_norm(x: Tensor, norm: nn.GroupNorm) -> bool:
    """Tell whether `fused_group_norm` may norm x (B, C, H, W) in the place of a norm's forward."""
    parameters = [part for part in (norm.weight, norm.bias) if part is not None]
    return (
        _may(x, *parameters)
        and type(norm) is nn.GroupNorm
        and "forward" not in norm.__dict__
        and x.dim() == 4
        and x.shape[1] == norm.num_channels <= _MAX_WIDTH * norm.num_groups
        # torch refuses to norm groups of one value.
        and x.numel() > norm.num_groups
        and (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last))
        and all(part.is_contiguous() for part in parameters)
        # Autocast would give float32.
        and (x.dtype == torch.float32 or not torch.is_autocast_enabled("cuda"))
    )


def fused_geglu(projected: Tensor) -> Tensor:
    """Gate one half of contiguous (..., 2 C) by the GELU of the other, giving (..., C).

    Shazeer, arXiv:2002.05202, section 2, in float32 inside. Differentiates nothing.
    """
    width = projected.shape[-1] // 2
    out = projected.new_empty(*projected.shape[:-1], width)
    grid = (_parts(out.numel(), _GATE_BLOCK),)
    with torch.cuda.device(projected.get_device()):
        _kernels().gate[grid](
            *(projected, out, out.numel()), width=width, block=_GATE_BLOCK, **_FUSION
        )
    return out


def fused_group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    silu: bool,
) -> Tensor:
    """Return normed x (B, C, H, W), or its SiLU, in the memory format of x.

    Wu and He, arXiv:1803.08494. Statistics are float32, about the mean, and the same in every run.
    x is contiguous or in channels_last. Differentiates nothing.
    """
    batch, channels, height, wide = x.shape
    num_pixels, width = height * wide, channels // num_groups
    strides = (1, num_pixels) if x.is_contiguous() else (channels, 1)
    lanes = _power_of_two(width)
    out = torch.empty_like(x)
    shape, kernels = {"width": width, "lanes": lanes} | _FUSION, _kernels()
    with torch.cuda.device(x.get_device()):
        tile_pixels = _power_of_two(num_pixels)
        if tile_pixels * lanes <= _SMALL:
            kernels.normalise_small[batch, num_groups](
                *(x, out, weight, bias, num_pixels, num_groups, eps, *strides),
                **shape,
                tile_pixels=tile_pixels,
                silu=silu,
                num_warps=min(16, max(4, tile_pixels * lanes // 1024)),
            )
            return out
        tile_groups = max(1, _LANES // lanes)
        tile_pixels = _TILE // (tile_groups * lanes)
        shape |= {"tile_groups": tile_groups, "tile_pixels": tile_pixels, "num_warps": 8}
        tiles = _parts(num_groups, tile_groups)
        chunks = min(_MAX_CHUNKS, _parts(_PROGRAMS, batch * tiles))
        chunk = _parts(_parts(num_pixels, chunks), tile_pixels) * tile_pixels
        grid = (batch, tiles, _parts(num_pixels, chunk))
        means, squares = x.new_empty(2, batch, grid[2], num_groups, dtype=torch.float32)
        kernels.statistics[grid](
            *(x, means, squares, num_pixels, num_groups, chunk, *strides), **shape
        )
        kernels.normalise[grid](
            *(x, out, means, squares, weight, bias, num_pixels, num_groups, chunk, eps, *strides),
            **shape,
            max_chunks=_MAX_CHUNKS,
            silu=silu,
        )
    return out


def _may(x: Tensor, *parameters: Tensor) -> bool:
    # A compiler fuses by itself, and a tracer sees no kernels that are not torch's.
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    every = (x, *parameters)
    return (
        _WANTED.get()
        and all(type(tensor) in (Tensor, nn.Parameter) for tensor in every)
        and _runs(x.device, x.dtype)
        and all(tensor.dtype == x.dtype and tensor.device == x.device for tensor in parameters)
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in every))
        and 0 < x.numel() <= _MAX_VALUES
    )


@cache
def _runs(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether Triton is here and builds what runs on the device, by trying it once."""
    if device.type != "cuda" or dtype not in _DTYPES:
        return False
    try:
        fused_geglu(torch.zeros(2, dtype=dtype, device=device))
    except Exception:  # no Triton, no C compiler for what launches its kernels, a card too old, ...
        return False
    return True


@cache
def _kernels() -> ModuleType:
    """Import the kernels when they are first needed: Triton is slow to import, and optional."""
    from sd_ops import triton_kernels

    return triton_kernels


def _parts(number: int, size: int) -> int:
    return -(-number // size)


def _power_of_two(number: int) -> int:
    """Return the smallest power of two that is not below a number of 1 or more."""
    return 1 << (number - 1).bit_length()
