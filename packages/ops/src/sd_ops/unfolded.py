"""Convolutions of small pictures as one matrix product."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from sd_ops.native.linear import linear_natively, may_map_natively
from sd_ops.padding import padded

__all__ = ["conv_unfolded", "num_pixels"]


def num_pixels(x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], padding: int) -> int:
    """Return how many pixels the convolution of x (B, C, H, W) has, in all pictures."""
    number = len(x)
    for side, size, step in zip(x.shape[2:], kernel_size, stride, strict=True):
        number *= (side + 2 * padding - size) // step + 1
    return number


def conv_unfolded(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: int
) -> Tensor:
    """Convolve x (B, C, H, W) with a kernel (O, C, h, w), each pixel's surroundings in a row.

    As `F.conv2d` with zeros around; returns (B, O, H', W') in channels_last, and copies no kernel
    that is in channels_last.
    """
    num_out, channels, *kernel = weight.shape
    seen = padded(x, padding, x.shape[2] + 2 * padding, x.shape[3] + 2 * padding)
    height, width = (
        (side - size) // step + 1
        for side, size, step in zip(seen.shape[1:3], kernel, stride, strict=True)
    )
    by_image, by_row, by_column, _ = seen.stride()
    rows = seen.as_strided(
        (len(x), height, width, kernel[0], kernel[1] * channels),
        (by_image, stride[0] * by_row, stride[1] * by_column, by_row, 1),
    )
    matrix = weight.permute(0, 2, 3, 1).reshape(num_out, -1)
    tokens = rows.reshape(-1, matrix.shape[1])
    best = linear_natively if may_map_natively(tokens, matrix, bias) else F.linear
    out = best(tokens, matrix, bias)
    return out.view(len(x), height, width, num_out).permute(0, 3, 1, 2)
