"""3x3 convolutions with a quarter of the multiplications (Winograd).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308, section 4.3:
F(4x4, 3x3), tiles of 6 x 6 that give 4 x 4 each. In float32 its error is some 2e-6 of the result's
deviation, three times that of the sums as they stand; in halves the transforms would lose digits.
"""

from math import ceil, prod
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["conv_winograd", "num_tiles", "winograd_weight"]

_OUT, _IN = 4, 6  # pixels of a tile's side, given and seen
_MAX_TILES = 512  # at once, so that what is between the transforms stays in the cache

# The polynomials' points are 0, 1, -1, 2, -2 and infinity.
_PICTURE = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_RESULT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


class _Transforms(NamedTuple):
    """Each as one matrix on a tile's values in a row."""

    picture: Tensor
    kernel: Tensor
    result: Tensor


def _both_ways(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    matrix = torch.tensor(rows, dtype=torch.float64, device="cpu")
    return torch.kron(matrix, matrix).float()


_TRANSFORMS = _Transforms(*map(_both_ways, (_PICTURE, _KERNEL, _RESULT)))


def num_tiles(shape: tuple[int, ...] | torch.Size) -> int:
    """Return how many tiles pictures (B, C, H, W) have, which is what the work grows with."""
    return shape[0] * prod(ceil(side / _OUT) for side in shape[-2:])


def winograd_weight(weight: Tensor) -> Tensor:
    """Return a kernel (O, C, 3, 3) as `conv_winograd` wants it: (36, O, C), four times as large."""
    num_out, num_in = weight.shape[:2]
    transformed = _TRANSFORMS.kernel @ weight.detach().reshape(num_out * num_in, 9).t()
    return transformed.view(_IN * _IN, num_out, num_in)


def conv_winograd(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Convolve x (B, C, H, W) in float32 on the CPU with what `winograd_weight` made.

    As `F.conv2d` with a stride of 1 and the same padding on each side; returns (B, O, H', W') in
    channels_last.
    """
    batch, channels, height, width = x.shape
    height, width = height + 2 * padding - 2, width + 2 * padding - 2
    rows, columns = ceil(height / _OUT), ceil(width / _OUT)
    num_out = weight.shape[1]
    seen = _padded(x, padding, _OUT * rows + 2, _OUT * columns + 2)
    out = x.new_empty(batch, rows, _OUT, columns, _OUT, num_out)
    by_image, by_row, by_column, _ = seen.stride()
    strides = by_row, by_column, by_image, _OUT * by_row, _OUT * by_column, 1
    kernel = weight.transpose(1, 2)
    step = max(1, _MAX_TILES // (batch * columns))
    for row in range(0, rows, step):
        number = min(step, rows - row)
        count = batch * number * columns
        tiles = seen.as_strided(
            (_IN, _IN, batch, number, columns, channels), strides, row * _OUT * by_row
        )
        transformed = _TRANSFORMS.picture @ tiles.reshape(_IN * _IN, count * channels)
        products = torch.bmm(transformed.view(_IN * _IN, count, channels), kernel)
        result = _TRANSFORMS.result @ products.view(_IN * _IN, count * num_out)
        result = result.view(_OUT, _OUT, batch, number, columns, num_out)
        if bias is not None:
            result += bias
        out[:, row : row + number] = result.permute(2, 3, 0, 4, 1, 5)
    picture = out.view(batch, rows * _OUT, columns * _OUT, num_out)[:, :height, :width]
    return picture.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _padded(x: Tensor, padding: int, height: int, width: int) -> Tensor:
    """Return x as (B, height, width, C) with zeros around it."""
    seen = x.new_zeros(x.shape[0], height, width, x.shape[1])
    inner = seen[:, padding : padding + x.shape[2], padding : padding + x.shape[3]]
    inner.copy_(x.permute(0, 2, 3, 1))
    return seen
