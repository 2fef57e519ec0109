"""Paths of loops and views as one operation each, which is how a compiler is to see them.

It would write their loops out, head by head and tile by tile. Imported where something is compiled
and only then: making an operation known to torch takes milliseconds.
"""

import torch
from torch import Tensor

from sd_ops.attention import by_rows
from sd_ops.unfolded import conv_unfolded
from sd_ops.winograd import conv_winograd

__all__ = ["opaque_by_rows", "opaque_unfolded", "opaque_winograd"]


@torch.library.custom_op("sd_ops::by_rows", mutates_args=())
def opaque_by_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend as `attention` does by rows, (B, H, Tq, D)."""
    return by_rows(q, k, v)


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


@opaque_by_rows.register_fake
def _(q: Tensor, _k: Tensor, v: Tensor) -> Tensor:
    return v.new_empty(*q.shape[:3], v.shape[-1])


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
