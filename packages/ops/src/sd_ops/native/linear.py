"""Linear layers by this package's own kernel on CPUs (`linear.c`)."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sd_ops.limits import limits
from sd_ops.native.library import kernels, library, place

__all__ = ["PANEL", "linear_natively", "map_and_learn", "may_map_natively"]

_NAME = "linear"
_LANES = 16
PANEL = 32
"""What the outputs are a multiple of."""


class _Sizes(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_long) for name in ("rows", "depth", "outputs", "gated", "turned", "threads")
    )


def may_map_natively(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    added: Tensor | None = None,
    turned: bool = False,
) -> bool:
    """Tell whether `linear_natively` is best for these: enough plain tokens, and no gradients.

    Or `map_and_learn`, where gradients are on. The first such question on a machine compiles it.
    """
    plain = [part for part in (x, weight, bias, added) if part is not None]
    outputs, depth = reversed(weight.shape) if turned else weight.shape
    return (
        x.numel() // x.shape[-1] >= limits(x.dtype).min_tokens_natively
        and all(type(part) in (Tensor, torch.nn.Parameter) for part in plain)
        and all(part.dtype == x.dtype and part.device.type == "cpu" for part in plain)
        and depth % _LANES == 0
        and outputs % PANEL == 0
        and all(part.is_contiguous() for part in plain[1:])
        and (not torch.is_grad_enabled() or depth % PANEL == 0)  # the outputs, on the way back
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
    turned: bool = False,
) -> Tensor:
    """Map x (..., C) to (..., O) as `F.linear` does, summed as `products.h` says.

    A ``weight`` that is ``turned`` is (C, O).

    What is ``added`` (..., O) is added to the sums before they are rounded. With ``gated`` the
    first half of the sums is gated by the second, as `sd_ops.geglu` does, giving (..., O / 2).
    """
    x = x.contiguous()
    depth, outputs = x.shape[-1], weight.shape[int(turned)] // (2 if gated else 1)
    out = x.new_empty(*x.shape[:-1], outputs)
    sizes = _Sizes(x.numel() // depth, depth, outputs, gated, turned, torch.get_num_threads())
    if kernels(_NAME, x.dtype).linear(*map(place, (out, x, weight, bias, added)), sizes):
        raise MemoryError("no memory for a linear layer's kernel: use a smaller size")
    return out


def map_and_learn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map x (..., C) to (..., O) with gradients of x alone; nothing but the weight is kept."""
    out = _Frozen.apply(x, weight, bias)
    assert isinstance(out, Tensor)
    return out


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return linear_natively(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return linear_natively(grad, weight, None, turned=True), None, None
