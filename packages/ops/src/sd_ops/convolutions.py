"""Convolutions whose backward passes do and keep no more than is asked for, on the CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sd_ops.limits import limits
from sd_ops.native.winograd import may_convolve_natively
from sd_ops.winograd import conv_winograd, num_tiles, winograd_weight_gradient

__all__ = [
    "frozen_convolution",
    "kernel_gradient",
    "picture_gradient",
    "winograd_convolution",
]

_ONE, _NONE = (1, 1), (0, 0)
_ONLY_INPUT, _ONLY_WEIGHT = (True, False, False), (False, True, False)


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
    """Convolve x (B, C, H, W) with a kernel (O, C, 3, 3), both ways by Winograd.

    As `F.conv2d` with a stride of 1; the gradients of x and of the kernel take a quarter of the
    multiplications, too, but where there are few tiles or numbers are halves: then they are torch's
    own. x is kept only where the kernel learns. Of what `conv_winograd` takes.
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
        into_x = _input_gradient(grad, weight, ctx.shape, ctx.stride, ctx.padding)
        return into_x, None, None, None, None


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        ctx.padding, ctx.shape = padding, x.shape
        return conv_winograd(x, weight, bias, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        into_x = into_weight = into_bias = None
        if for_x:
            into_x = picture_gradient(grad, weight, ctx.shape, ctx.padding)
        if for_weight:
            into_weight = kernel_gradient(x, grad, weight, ctx.padding).to(weight.dtype)
        if for_bias:
            into_bias = grad.sum((0, 2, 3))
        return into_x, into_weight, into_bias, None


def picture_gradient(grad: Tensor, weight: Tensor, shape: torch.Size, padding: int) -> Tensor:
    """Return the gradient of pictures of a ``shape``, by Winograd where that may be, else torch's.

    For a kernel (O, C, 3, 3) with a stride of 1.
    """
    # The transpose of a convolution is one with the kernel turned round.
    back = weight.transpose(0, 1)
    if grad.dtype == torch.float32 or may_convolve_natively(grad, back, None):
        return conv_winograd(grad, back, None, 2 - padding, turned=True)
    grad = grad.contiguous(memory_format=torch.channels_last)
    return _input_gradient(grad, weight, shape, _ONE, (padding, padding))


def kernel_gradient(x: Tensor, grad: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Return the gradient of such a kernel from pictures x, in float32 where that is faster."""
    if limits(x.dtype).weights_learn_in_float32:
        x, grad = x.float(), grad.float()
    if num_tiles(x.shape) >= limits(x.dtype).min_tiles_to_learn:
        return winograd_weight_gradient(x, grad, padding)
    grad = grad.contiguous(memory_format=torch.channels_last)
    places = (_ONE, (padding, padding), _ONE, False, _NONE, 1)
    like = torch.empty_like(weight, dtype=x.dtype)  # as below
    _, found, _ = torch.ops.aten.convolution_backward(grad, x, like, None, *places, _ONLY_WEIGHT)
    gradient: Tensor = found
    return gradient


def _input_gradient(
    grad: Tensor,
    weight: Tensor,
    shape: torch.Size,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Tensor:
    # Only its shape and layout are read, and pages that are not touched cost nothing.
    like = torch.empty(
        shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last
    )
    found, _, _ = torch.ops.aten.convolution_backward(
        grad, like, weight, None, stride, padding, _ONE, False, _NONE, 1, _ONLY_INPUT
    )
    gradient: Tensor = found
    return gradient
