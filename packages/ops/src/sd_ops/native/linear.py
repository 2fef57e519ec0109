"""Linear layers by this package's own kernel on CPUs (`linear.c`)."""

import ctypes

import torch
from torch import Tensor

from sd_ops.limits import limits
from sd_ops.native.library import kernels, library, place

__all__ = ["linear_natively", "may_map_natively"]

_NAME = "linear"
_LANES, _PANEL = 16, 32


class _Sizes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_long) for name in ("rows", "depth", "outputs", "threads"))


def may_map_natively(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Tell whether `linear_natively` is best for these: enough plain tokens, and no gradients.

    The first such question on a machine compiles it.
    """
    plain = (x, weight) if bias is None else (x, weight, bias)
    return (
        x.numel() // x.shape[-1] >= limits(x.dtype).min_tokens_natively
        and all(type(part) in (Tensor, torch.nn.Parameter) for part in plain)
        and all(part.dtype == x.dtype and part.device.type == "cpu" for part in plain)
        and weight.shape[1] % _LANES == 0
        and weight.shape[0] % _PANEL == 0
        and all(part.is_contiguous() for part in plain[1:])
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch._C._get_tracing_state()  # which would take the result for a constant
        and not isinstance(library(_NAME, x.dtype), str)
    )


def linear_natively(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map x (..., C) to (..., O) as `F.linear` does, with sums in float32."""
    x = x.contiguous()
    out = x.new_empty(*x.shape[:-1], len(weight))
    depth = x.shape[-1]
    sizes = _Sizes(x.numel() // depth, depth, len(weight), torch.get_num_threads())
    if kernels(_NAME, x.dtype).linear(*map(place, (out, x, weight, bias)), sizes):
        raise MemoryError("no memory for a linear layer's kernel: use a smaller size")
    return out
