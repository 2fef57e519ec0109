"""Linear layers by this package's own kernel on CPUs (`linear.c`)."""

import ctypes

import torch
from torch import Tensor

from sd_ops.limits import limits
from sd_ops.native.library import kernels, library, place

__all__ = ["PANEL", "linear_natively", "may_map_natively"]

_NAME = "linear"
_LANES = 16
PANEL = 32
"""What the outputs are a multiple of."""


class _Sizes(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_long) for name in ("rows", "depth", "outputs", "gated", "threads")
    )


def may_map_natively(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, added: Tensor | None = None
) -> bool:
    """Tell whether `linear_natively` is best for these: enough plain tokens, and no gradients.

    The first such question on a machine compiles it.
    """
    plain = [part for part in (x, weight, bias, added) if part is not None]
    return (
        x.numel() // x.shape[-1] >= limits(x.dtype).min_tokens_natively
        and all(type(part) in (Tensor, torch.nn.Parameter) for part in plain)
        and all(part.dtype == x.dtype and part.device.type == "cpu" for part in plain)
        and weight.shape[1] % _LANES == 0
        and weight.shape[0] % PANEL == 0
        and all(part.is_contiguous() for part in plain[1:])
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch._C._get_tracing_state()  # which would take the result for a constant
        and not isinstance(library(_NAME, x.dtype), str)
    )


def linear_natively(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    added: Tensor | None = None,
    gated: bool = False,
) -> Tensor:
    """Map x (..., C) to (..., O) as `F.linear` does, summed as `products.h` says.

    What is ``added`` (..., O) is added to the sums before they are rounded. With ``gated`` the
    first half of the sums is gated by the second, as `sd_ops.geglu` does, giving (..., O / 2).
    """
    x = x.contiguous()
    depth, outputs = x.shape[-1], len(weight) // (2 if gated else 1)
    out = x.new_empty(*x.shape[:-1], outputs)
    sizes = _Sizes(x.numel() // depth, depth, outputs, gated, torch.get_num_threads())
    if kernels(_NAME, x.dtype).linear(*map(place, (out, x, weight, bias, added)), sizes):
        raise MemoryError("no memory for a linear layer's kernel: use a smaller size")
    return out
