"""Norms, SiLU with group norm, and GEGLU, by this package's own kernels on CPUs (`pointwise.c`).

Where gradients are off: they keep nothing for a backward pass, and what will learn later gives the
same before it does.
"""

import ctypes

import torch
from torch import Tensor, nn

from sd_ops.native.library import kernels, library, place

__all__ = [
    "fused_geglu",
    "fused_group_norm",
    "fused_layer_norm",
    "may_gate",
    "may_norm",
    "may_norm_rows",
]

_NAME = "pointwise"
_LANES = 16
_TYPES = (torch.float32, torch.bfloat16)


class _NormSizes(ctypes.Structure):
    _fields_ = (
        ("images", ctypes.c_long),
        ("pixels", ctypes.c_long),
        ("channels", ctypes.c_long),
        ("groups", ctypes.c_long),
        ("silu", ctypes.c_long),
        ("threads", ctypes.c_long),
        ("eps", ctypes.c_float),
    )


class _RowSizes(ctypes.Structure):
    _fields_ = (
        ("rows", ctypes.c_long),
        ("width", ctypes.c_long),
        ("threads", ctypes.c_long),
        ("eps", ctypes.c_float),
    )


class _GateSizes(ctypes.Structure):
    _fields_ = (("rows", ctypes.c_long), ("width", ctypes.c_long), ("threads", ctypes.c_long))


def may_gate(projected: Tensor) -> bool:
    """Tell whether `fused_geglu` takes (..., 2 C)."""
    return (
        projected.dim() > 0
        and projected.shape[-1] % (2 * _LANES) == 0
        and projected.is_contiguous()
        and _may(projected)
    )


def may_norm(x: Tensor, norm: nn.GroupNorm, added: Tensor | None = None) -> bool:
    """Tell whether `fused_group_norm` norms x (B, C, H, W) in the place of a norm's forward."""
    parameters = [part for part in (norm.weight, norm.bias, added) if part is not None]
    return (
        x.dim() == 4
        and x.shape[1] == norm.num_channels
        and x.shape[1] % _LANES == 0
        and x.numel() > norm.num_groups * x.shape[0]  # torch refuses groups of one value
        and x.is_contiguous(memory_format=torch.channels_last)
        and type(norm) is nn.GroupNorm
        and "forward" not in norm.__dict__
        and (added is None or added.shape == x.shape[:2])
        and all(part.is_contiguous() and part.dtype == x.dtype for part in parameters)
        and _may(x, *parameters)
    )


def may_norm_rows(x: Tensor, norm: nn.LayerNorm) -> bool:
    """Tell whether `fused_layer_norm` norms x (..., C) in the place of a norm's forward."""
    parameters = [part for part in (norm.weight, norm.bias) if part is not None]
    return (
        x.dim() > 0
        and norm.normalized_shape == x.shape[-1:]
        and x.shape[-1] % _LANES == 0
        and x.is_contiguous()
        and type(norm) is nn.LayerNorm
        and "forward" not in norm.__dict__
        and all(part.is_contiguous() and part.dtype == x.dtype for part in parameters)
        and _may(x, *parameters)
    )


def fused_geglu(projected: Tensor) -> Tensor:
    """Gate one half of contiguous (..., 2 C) by the GELU of the other, giving (..., C)."""
    width = projected.shape[-1] // 2
    out = projected.new_empty(*projected.shape[:-1], width)
    sizes = _GateSizes(out.numel() // width, width, torch.get_num_threads())
    kernels(_NAME, out.dtype).geglu(place(out), place(projected), sizes)
    return out


def fused_group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    silu: bool,
    added: Tensor | None = None,
) -> Tensor:
    """Norm x (B, C, H, W) in channels_last, and with ``silu`` take its SiLU.

    What is ``added`` (B, C) is added to each pixel of x before.
    """
    out = torch.empty_like(x)
    pixels = x.shape[2] * x.shape[3]
    sizes = _NormSizes(len(x), pixels, x.shape[1], num_groups, silu, torch.get_num_threads(), eps)
    places = map(place, (out, x, added, weight, bias))
    if kernels(_NAME, x.dtype).group_norm(*places, sizes):
        raise MemoryError("no memory for the sums of a group norm: use a smaller size")
    return out


def fused_layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Norm contiguous x (..., C) over C."""
    out, width = torch.empty_like(x), x.shape[-1]
    sizes = _RowSizes(x.numel() // width, width, torch.get_num_threads(), eps)
    kernels(_NAME, x.dtype).layer_norm(*map(place, (out, x, weight, bias)), sizes)
    return out


def _may(x: Tensor, *others: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype in _TYPES
        and x.numel() > 0
        and type(x) is Tensor
        and all(other.device.type == "cpu" for other in others)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch._C._get_tracing_state()
        and not isinstance(library(_NAME, x.dtype), str)
    )
