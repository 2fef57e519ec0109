"""Layers that learn in float32 and compute in half precision, and keep no copy of their weights."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["autocast_dtype", "cast_convolution", "cast_linear"]

_ONE, _NONE = (1, 1), (0, 0)


def autocast_dtype(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """Return what autocast would cast a learning float32 ``weight`` to; None where it would not.

    Autocast keeps every copy until the forward pass is over, and the graph keeps it until the
    backward pass has used it: two bytes for each weight of a network that learns whole.
    """
    if not (torch.is_grad_enabled() and weight.requires_grad and weight.dtype == torch.float32):
        return None
    kind = x.device.type
    if torch.compiler.is_compiling() or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def cast_linear(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Map (..., C) to (..., O) as `F.linear` under autocast to ``dtype`` does, bit for bit.

    The weight is cast once more in the backward pass.
    """
    out: Tensor = _Linear.apply(x.to(dtype), weight, bias)
    return out


def cast_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Tensor:
    """Convolve x (B, C, H, W) as `F.conv2d` under autocast to ``dtype`` does, as `cast_linear`."""
    out: Tensor = _Convolution.apply(x.to(dtype), weight, bias, stride, padding)
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight.to(x.dtype), _cast(bias, x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        into_x = into_weight = into_bias = None
        rows = grad.reshape(-1, grad.shape[-1])
        if for_x:
            into_x = (rows @ weight.to(grad.dtype)).view(*grad.shape[:-1], -1)
        if for_weight:
            into_weight = (rows.t() @ x.reshape(-1, x.shape[-1])).to(weight.dtype)
        if for_bias:
            into_bias = rows.sum(0).to(weight.dtype)
        return into_x, into_weight, into_bias


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight.to(x.dtype), _cast(bias, x.dtype), stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        sizes = [weight.shape[0]] if wanted[2] else None
        kernel = weight.to(grad.dtype)
        into_x, into_weight, into_bias = torch.ops.aten.convolution_backward(
            grad, x, kernel, sizes, ctx.stride, ctx.padding, _ONE, False, _NONE, 1, wanted
        )
        into_weight, into_bias = (_cast(each, weight.dtype) for each in (into_weight, into_bias))
        return into_x, into_weight, into_bias, None, None


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)
