"""3x3 convolutions with a quarter of the multiplications (Winograd).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308, section 4.3:
F(4x4, 3x3), tiles of 6 x 6 that give 4 x 4 each. In float32 its error is some 2e-6 of the result's
deviation, three times that of the sums as they stand; in halves the transforms would lose digits.
"""

from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from sd_ops.native.winograd import convolve_natively, may_convolve_natively
from sd_ops.padding import padded

__all__ = ["by_products", "conv_winograd", "num_tiles", "winograd_weight_gradient"]

_OUT, _IN = 4, 6  # pixels of a tile's side, given and seen
_PLACES = _IN * _IN
# For so few the kernel's rows are the products' rows: 32 x 1280 x 86 at 121 GFLOP/s in place of 85.
_FEW_TILES = 64
# Numbers that are held at once, so that what is between the transforms stays in or near the cache.
_MAX_GATHERED, _MAX_SEEN, _MAX_KERNEL = 2**21, 2**24, 2**22

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
    height, width = shape[-2:]
    return shape[0] * ceil(height / _OUT) * ceil(width / _OUT)


def conv_winograd(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, *, turned: bool = False
) -> Tensor:
    """Convolve x (B, C, H, W) in float32 on the CPU with a kernel (O, C, 3, 3).

    As `F.conv2d` with a stride of 1 and the same padding on each side; returns (B, O, H', W') in
    channels_last, which is also the layout in which it takes both with the fewest copies. The
    kernel is first ``turned`` by 180 degrees if asked for. By our own kernel where it takes these
    (`may_convolve_natively`), and of bfloat16 only there; else `by_products`.

    A kernel as the products want it is four times as large. It is made anew at every call, some
    output channels at a time: that is a hundredth of SD 1.5's step, and keeping it a gigabyte.
    """
    if may_convolve_natively(x, weight, bias):
        return convolve_natively(x, weight, bias, padding, turned=turned)
    return by_products(x, weight, bias, padding, turned=turned)


def by_products(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, *, turned: bool = False
) -> Tensor:
    """Convolve in float32 as `conv_winograd` does, by torch's own products."""
    batch, _, height, width = x.shape
    height, width = height + 2 * padding - 2, width + 2 * padding - 2
    rows, columns = ceil(height / _OUT), ceil(width / _OUT)
    seen = padded(x, padding, _OUT * rows + 2, _OUT * columns + 2)
    out = x.new_empty(batch, rows, _OUT, columns, _OUT, len(weight))
    for band in _stretches(rows, _MAX_SEEN // (_PLACES * batch * columns * x.shape[1])):
        tiles = _seen_tiles(seen, band, columns)
        for part in _stretches(len(weight), _MAX_KERNEL // (_PLACES * x.shape[1])):
            result = _given_tiles(tiles, _transformed(weight[part], turned))
            result = result.view(_OUT, _OUT, batch, band.stop - band.start, columns, -1)
            result, place = result.permute(2, 3, 0, 4, 1, 5), out[:, band, ..., part]
            if bias is None:
                place.copy_(result)
            else:
                torch.add(result, bias[part], out=place)
    picture = out.view(batch, rows * _OUT, columns * _OUT, -1)[:, :height, :width]
    return picture.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def winograd_weight_gradient(x: Tensor, grad: Tensor, padding: int) -> Tensor:
    """Return the gradient (O, C, 3, 3) of a kernel, from x (B, C, H, W) and that of the result.

    The algorithm is linear in the kernel, so that its transpose gives the gradient, with a quarter
    of the multiplications too; ``grad`` is (B, O, H', W').
    """
    (batch, num_in), (num_out, height, width) = x.shape[:2], grad.shape[1:]
    rows, columns = ceil(height / _OUT), ceil(width / _OUT)
    seen = padded(x, padding, _OUT * rows + 2, _OUT * columns + 2)
    given = padded(grad, 0, _OUT * rows, _OUT * columns)
    given = given.view(batch, rows, _OUT, columns, _OUT, num_out)
    gradient = x.new_zeros(num_out, num_in, 9)
    for band in _stretches(rows, _MAX_SEEN // (_PLACES * batch * columns * max(num_in, num_out))):
        tiles = given[:, band].permute(2, 4, 0, 1, 3, 5)
        of_grad = _TRANSFORMS.result.t() @ tiles.reshape(_OUT * _OUT, -1)
        of_grad = of_grad.view(_PLACES, -1, num_out).transpose(1, 2)
        of_x = _seen_tiles(seen, band, columns)
        for part in _stretches(num_out, _MAX_KERNEL // (_PLACES * num_in)):
            products = torch.bmm(of_grad[:, part], of_x).view(_PLACES, -1)
            share = _TRANSFORMS.kernel.t() @ products
            gradient[part] += share.t().view(-1, num_in, 9)
    return gradient.view(num_out, num_in, 3, 3)


def _seen_tiles(seen: Tensor, band: slice, columns: int) -> Tensor:
    """Transform the tiles of some of the rows: (36, tiles, C) of (B, H, W, C)."""
    batch, channels = seen.shape[0], seen.shape[3]
    by_image, by_row, by_column, _ = seen.stride()
    strides = by_row, by_column, by_image, _OUT * by_row, _OUT * by_column, 1
    number = band.stop - band.start
    transformed = seen.new_empty(_PLACES, batch, number, columns * channels)
    for row in _stretches(number, _MAX_GATHERED // (_PLACES * batch * columns * channels)):
        size = _IN, _IN, batch, row.stop - row.start, columns, channels
        tiles = seen.as_strided(size, strides, (band.start + row.start) * _OUT * by_row)
        found = _TRANSFORMS.picture @ tiles.reshape(_PLACES, -1)
        transformed[:, :, row] = found.view(_PLACES, batch, -1, columns * channels)
    return transformed.view(_PLACES, batch * number * columns, channels)


def _transformed(weight: Tensor, turned: bool) -> Tensor:
    """Return a kernel (O, C, 3, 3) as (36, O, C)."""
    nine = weight.detach().permute(2, 3, 0, 1).reshape(9, -1)
    transform = _TRANSFORMS.kernel.flip(1) if turned else _TRANSFORMS.kernel
    return (transform @ nine).view(_PLACES, *weight.shape[:2])


def _given_tiles(tiles: Tensor, kernel: Tensor) -> Tensor:
    """Multiply seen tiles (36, T, C) with a kernel (36, O, C), giving (16, T, O)."""
    if tiles.shape[1] > _FEW_TILES:
        products = torch.bmm(tiles, kernel.transpose(1, 2))
        return (_TRANSFORMS.result @ products.view(_PLACES, -1)).view(
            _OUT * _OUT, -1, len(kernel[0])
        )
    products = torch.bmm(kernel, tiles.transpose(1, 2))
    result = _TRANSFORMS.result @ products.view(_PLACES, -1)
    return result.view(_OUT * _OUT, kernel.shape[1], -1).transpose(1, 2)


def _stretches(number: int, at_most: int) -> list[slice]:
    """Divide a number of things into as few equal stretches as hold so many, or one, each."""
    size = ceil(number / ceil(number / max(1, at_most)))
    return [slice(start, min(start + size, number)) for start in range(0, number, size)]
