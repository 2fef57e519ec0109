"""Paths of loops and views as one operation each, which is how a compiler is to see them.

It would write their loops out, head by head and tile by tile. Imported where something is compiled
and only then: making an operation known to torch takes milliseconds.
"""

import torch
from torch import Tensor

from sd_ops.attention import without_gradients
from sd_ops.unfolded import conv_unfolded
from sd_ops.winograd import conv_winograd

__all__ = ["opaque_attention", "opaque_unfolded", "opaque_winograd"]


@torch.library.custom_op("sd_ops::attention", mutates_args=())
def opaque_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend (B, H, Tq, D) as `attention` does on this processor."""
    return _heads_side_by_side(without_gradients(q, k, v))


@torch.library.custom_op("sd_ops::unfolded", mutates_args=())
def opaque_unfolded(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: int
) -> Tensor:
    """Convolve as `conv_unfolded` does."""
    return conv_unfolded(x, weight, bias, (stride[0], stride[1]), padding)


@torch.library.custom_op("sd_ops::winograd", mutates_args=())
def opaque_winograd(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Convolve as `conv_winograd` does."""
    return conv_winograd(x, weight, bias, padding)


@opaque_attention.register_fake
def _(q: Tensor, _k: Tensor, v: Tensor) -> Tensor:
    return _heads_side_by_side(v.new_empty(*q.shape[:3], v.shape[-1]))


@opaque_unfolded.register_fake
def _(x: Tensor, weight: Tensor, _bias: Tensor | None, stride: list[int], padding: int) -> Tensor:
    return _as_convolved(x, weight, stride, padding)


@opaque_winograd.register_fake
def _(x: Tensor, weight: Tensor, _bias: Tensor | None, padding: int) -> Tensor:
    return _as_convolved(x, weight, [1, 1], padding)


def _as_convolved(x: Tensor, weight: Tensor, stride: list[int], padding: int) -> Tensor:
    height, width = (
        (side + 2 * padding - size) // step + 1
        for side, size, step in zip(x.shape[2:], weight.shape[2:], stride, strict=True)
    )
    return x.new_empty(len(x), height, width, len(weight)).permute(0, 3, 1, 2)


def _heads_side_by_side(x: Tensor) -> Tensor:
    # A compiler relies on the strides that it was told, and paths differ in theirs.
    return x.transpose(1, 2).contiguous().transpose(1, 2)
