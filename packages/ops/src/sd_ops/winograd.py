"""3x3 convolutions with a quarter of the multiplications (Winograd).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308, section 4.3:
F(4x4, 3x3), tiles of 6 x 6 that give 4 x 4 each. In float32 its error is some 2e-6 of the result's
deviation, three times that of the sums as they stand; in halves the transforms would lose digits.
"""

from collections.abc import Callable, Iterator, Sequence
from math import ceil, prod
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "conv_winograd",
    "conv_winograd_once",
    "num_tiles",
    "winograd_weight",
    "winograd_weight_gradient",
]

_OUT, _IN = 4, 6  # pixels of a tile's side, given and seen
_MAX_TILES = 512  # at once, so that what is between the transforms stays in the cache
_MAX_KERNEL = 2**22  # values of a transformed kernel: 16 MiB

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
_KERNEL_ROWS = torch.tensor(_KERNEL, dtype=torch.float64, device="cpu").float()


def num_tiles(shape: tuple[int, ...] | torch.Size) -> int:
    """Return how many tiles pictures (B, C, H, W) have, which is what the work grows with."""
    return shape[0] * prod(ceil(side / _OUT) for side in shape[-2:])


def winograd_weight(weight: Tensor, *, turned: bool = False) -> Tensor:
    """Return a kernel (O, C, 3, 3) as `conv_winograd` wants it: (36, O, C), four times as large.

    `turned` is of the kernel turned by 180 degrees.
    """
    num_out, num_in = weight.shape[:2]
    transform = _KERNEL_ROWS.flip(1) if turned else _KERNEL_ROWS
    rows = weight.detach().permute(2, 3, 0, 1).reshape(3, 3 * num_out * num_in)
    # Rows, then columns, is half as much as both at once.
    columns = (transform @ rows).view(_IN, 3, num_out * num_in)
    return torch.matmul(transform, columns).view(_IN * _IN, num_out, num_in)


def conv_winograd(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Convolve x (B, C, H, W) in float32 on the CPU with what `winograd_weight` made.

    As `F.conv2d` with a stride of 1 and the same padding on each side; returns (B, O, H', W') in
    channels_last.
    """
    whole = [slice(0, weight.shape[1])]
    return _convolved(x, whole, lambda channels: weight[:, channels], bias, padding)


def conv_winograd_once(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, *, turned: bool = False
) -> Tensor:
    """Convolve as `conv_winograd` with a kernel (O, C, 3, 3) that is transformed for this once.

    Where all tiles go at once so do a part of the kernel's channels, for which the transformed
    kernel stays in the cache; the whole is four times as large as the kernel.
    """
    if num_tiles(x.shape) > _MAX_TILES:
        return conv_winograd(x, winograd_weight(weight, turned=turned), bias, padding)

    def kernel_of(channels: slice) -> Tensor:
        return winograd_weight(weight[channels], turned=turned)

    return _convolved(x, _parts(*weight.shape[:2]), kernel_of, bias, padding)


def winograd_weight_gradient(x: Tensor, grad: Tensor, padding: int) -> Tensor:
    """Return the gradient (O, C, 3, 3) of a kernel, from x (B, C, H, W) and that of the result.

    The algorithm is linear in the kernel, so that its transpose gives the gradient, with a quarter
    of the multiplications too; `grad` is (B, O, H', W').
    """
    (batch, num_in), (num_out, height, width) = x.shape[:2], grad.shape[1:]
    rows, columns = ceil(height / _OUT), ceil(width / _OUT)
    seen = _padded(x, padding, _OUT * rows + 2, _OUT * columns + 2)
    given = _padded(grad, 0, _OUT * rows, _OUT * columns)
    given = given.view(batch, rows, _OUT, columns, _OUT, num_out)
    gradient = x.new_zeros(num_out, num_in, 9)
    for row, number, count in _turns(batch, rows, columns):
        tiles = given[:, row : row + number].permute(2, 4, 0, 1, 3, 5)
        of_grad = _TRANSFORMS.result.t() @ tiles.reshape(_OUT * _OUT, count * num_out)
        of_grad = of_grad.view(_IN * _IN, count, num_out).transpose(1, 2)
        of_x = _seen_tiles(seen, row, number, columns)
        for channels in _parts(num_out, num_in):
            products = torch.bmm(of_grad[:, channels], of_x).view(_IN * _IN, -1)
            share = _TRANSFORMS.kernel.t() @ products
            gradient[channels] += share.t().view(-1, num_in, 9)
    return gradient.view(num_out, num_in, 3, 3)


def _convolved(
    x: Tensor,
    parts: Sequence[slice],
    kernel_of: Callable[[slice], Tensor],
    bias: Tensor | None,
    padding: int,
) -> Tensor:
    """Convolve with a transformed kernel (36, O, C), a part of the output's channels at a time."""
    batch, _, height, width = x.shape
    height, width = height + 2 * padding - 2, width + 2 * padding - 2
    rows, columns = ceil(height / _OUT), ceil(width / _OUT)
    seen = _padded(x, padding, _OUT * rows + 2, _OUT * columns + 2)
    out = x.new_empty(batch, rows, _OUT, columns, _OUT, parts[-1].stop)
    for row, number, _ in _turns(batch, rows, columns):
        tiles = _seen_tiles(seen, row, number, columns)
        for channels in parts:
            products = torch.bmm(tiles, kernel_of(channels).transpose(1, 2))
            result = _TRANSFORMS.result @ products.view(_IN * _IN, -1)
            result = result.view(_OUT, _OUT, batch, number, columns, -1)
            if bias is not None:
                result += bias[channels]
            out[:, row : row + number, ..., channels] = result.permute(2, 3, 0, 4, 1, 5)
    picture = out.view(batch, rows * _OUT, columns * _OUT, -1)[:, :height, :width]
    return picture.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _parts(num_out: int, num_in: int) -> list[slice]:
    """Return parts of the output's channels whose transformed kernels are of about one size."""
    step = max(1, _MAX_KERNEL // (_IN * _IN * num_in))
    return [slice(first, min(first + step, num_out)) for first in range(0, num_out, step)]


def _turns(batch: int, rows: int, columns: int) -> Iterator[tuple[int, int, int]]:
    """Yield rows of tiles that are worked on at once: the first, how many, and their tiles."""
    step = max(1, _MAX_TILES // (batch * columns))
    for row in range(0, rows, step):
        number = min(step, rows - row)
        yield row, number, batch * number * columns


def _seen_tiles(seen: Tensor, row: int, number: int, columns: int) -> Tensor:
    """Return rows of overlapping tiles of a padded picture, transformed: (36, tiles, C)."""
    batch, channels = seen.shape[0], seen.shape[-1]
    by_image, by_row, by_column, _ = seen.stride()
    strides = by_row, by_column, by_image, _OUT * by_row, _OUT * by_column, 1
    tiles = seen.as_strided(
        (_IN, _IN, batch, number, columns, channels), strides, row * _OUT * by_row
    )
    count = batch * number * columns
    transformed = _TRANSFORMS.picture @ tiles.reshape(_IN * _IN, count * channels)
    return transformed.view(_IN * _IN, count, channels)


def _padded(x: Tensor, padding: int, height: int, width: int) -> Tensor:
    """Return x as (B, height, width, C) with zeros around it."""
    seen = x.new_zeros(x.shape[0], height, width, x.shape[1])
    inner = seen[:, padding : padding + x.shape[2], padding : padding + x.shape[3]]
    inner.copy_(x.permute(0, 2, 3, 1))
    return seen
