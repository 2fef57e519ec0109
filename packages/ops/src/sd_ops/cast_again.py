"""Layers that learn in float32 and compute in half precision, and keep no copy of their weights."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sd_ops.convolutions import kernel_gradient, picture_gradient
from sd_ops.limits import limits
from sd_ops.native.linear import linear_natively, may_map_natively
from sd_ops.native.winograd import convolve_natively, may_convolve_natively
from sd_ops.winograd import num_tiles

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
    """Map (..., C) to (..., O) as `F.linear` under autocast to ``dtype`` does.

    Bit for bit, but where our own kernels are faster (`sd_ops.limits`). The weight is cast once
    more in the backward pass.
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
    alone = weight.shape[2:] == stride == _ONE and padding == _NONE
    enough = x.numel() // x.shape[1] >= limits(dtype).min_tokens_natively
    if alone and enough and x.device.type == "cpu":
        mapped = cast_linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias, dtype)
        return mapped.permute(0, 3, 1, 2)
    out: Tensor = _Convolution.apply(x.to(dtype), weight, bias, stride, padding)
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        weight, bias = weight.to(x.dtype), _cast(bias, x.dtype)
        if may_map_natively(x, weight, bias):
            return linear_natively(x, weight, bias)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        into_x = into_weight = into_bias = None
        rows = grad.reshape(-1, grad.shape[-1])
        if for_x:
            kernel = weight.to(grad.dtype)
            if may_map_natively(grad, kernel, None, turned=True):
                into_x = linear_natively(grad, kernel, None, turned=True)
            else:
                into_x = (rows @ kernel).view(*grad.shape[:-1], -1)
        if for_weight:
            tokens = x.reshape(-1, x.shape[-1])
            if x.device.type == "cpu" and limits(x.dtype).weights_learn_in_float32:
                into_weight = rows.float().t() @ tokens.float()
            else:
                into_weight = (rows.t() @ tokens).to(weight.dtype)
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
        weight, bias = weight.to(x.dtype), _cast(bias, x.dtype)
        ctx.natively = _goes_natively(x, weight, bias, stride, padding)
        if ctx.natively:
            return convolve_natively(x, weight, bias, padding[0])
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if ctx.natively:
            padding, into_x, into_weight, into_bias = ctx.padding[0], None, None, None
            if wanted[0]:
                into_x = picture_gradient(grad, weight.to(grad.dtype), x.shape, padding)
            if wanted[1]:
                into_weight = kernel_gradient(x, grad, weight, padding).to(weight.dtype)
            if wanted[2]:
                into_bias = grad.sum((0, 2, 3)).to(weight.dtype)
            return into_x, into_weight, into_bias, None, None
        sizes = [weight.shape[0]] if wanted[2] else None
        kernel = weight.to(grad.dtype)
        into_x, into_weight, into_bias = torch.ops.aten.convolution_backward(
            grad, x, kernel, sizes, ctx.stride, ctx.padding, _ONE, False, _NONE, 1, wanted
        )
        into_weight, into_bias = (_cast(each, weight.dtype) for each in (into_weight, into_bias))
        return into_x, into_weight, into_bias, None, None


def _goes_natively(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> bool:
    return (
        stride == _ONE
        and padding in (_NONE, _ONE)
        and num_tiles(x.shape) >= limits(x.dtype).min_tiles_natively
        and may_convolve_natively(x, weight, bias)
    )


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)
