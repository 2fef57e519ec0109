"""Convolutions whose backward passes do and keep no more than is asked for, on the CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sd_ops.winograd import conv_winograd, winograd_weight_gradient

__all__ = ["frozen_convolution", "winograd_convolution"]

_ONLY_INPUT = (True, False, False)


def frozen_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...] = (1, 1),
    padding: tuple[int, ...] = (0, 0),
) -> Tensor:
    """Convolve x (B, C, H, W) as `F.conv2d` does, with a kernel and bias that do not learn.

    torch keeps the input of every convolution for the gradient of its kernel, whether that is
    wanted or not; this one keeps nothing but the kernel.
    """
    out: Tensor = _Frozen.apply(x, weight, bias, stride, padding)
    return out


def winograd_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Convolve x (B, C, H, W) in float32 with a kernel (O, C, 3, 3), both ways by Winograd.

    As `F.conv2d` with a stride of 1; the gradients of x and of the kernel take a quarter of the
    multiplications, too. x is kept only where the kernel learns.
    """
    out: Tensor = _Winograd.apply(x, weight, bias, padding)
    return out


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.stride, ctx.padding = x.shape, stride, padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        # Only its shape and layout are read, and pages that are not touched cost nothing.
        like = torch.empty(
            ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last
        )
        one = (1, 1)
        into_x, _, _ = torch.ops.aten.convolution_backward(
            grad, like, weight, None, ctx.stride, ctx.padding, one, False, (0, 0), 1, _ONLY_INPUT
        )
        return into_x, None, None, None, None


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        ctx.padding = padding
        return conv_winograd(x, weight, bias, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        into_x = into_weight = into_bias = None
        if for_x:
            # The transpose of a convolution is one with the kernel turned round.
            back = weight.transpose(0, 1)
            into_x = conv_winograd(grad, back, None, 2 - ctx.padding, turned=True)
        if for_weight:
            into_weight = winograd_weight_gradient(x, grad, ctx.padding)
        if for_bias:
            into_bias = grad.sum((0, 2, 3))
        return into_x, into_weight, into_bias, None
