"""The kernels behind `sd_ops.fused_on_cuda`, which alone imports them: they need Triton.

A picture may be in either memory format: its strides say which. Of a group's channels as many
``lanes`` are laid out as the next power of two, for Triton knows no other sizes.
"""

# Triton has no types.
# mypy: disable-error-code="untyped-decorator"

import triton
import triton.language as tl

__all__ = ["gate", "normalise", "normalise_small", "statistics"]


@triton.jit
def gate(
    projected: tl.tensor,
    out: tl.tensor,
    number: tl.tensor,
    width: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Write hidden * GELU(gate) for a block of the ``number`` results, rows of ``width``."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < number
    # Result r w + c is made of 2 r w + c and of what lies w further on.
    hidden_at = projected + at + at // width * width
    hidden = tl.load(hidden_at, mask=inside, other=0.0).to(tl.float32)
    gates = tl.load(hidden_at + width, mask=inside, other=0.0).to(tl.float32)
    gelu = 0.5 * gates * (1.0 + tl.erf(gates * 0.7071067811865476))
    tl.store(out + at, (hidden * gelu).to(out.dtype.element_ty), mask=inside)


@triton.jit
def normalise_small(
    x: tl.tensor,
    out: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    num_pixels: tl.tensor,
    num_groups: tl.tensor,
    eps: tl.tensor,
    stride_pixel: tl.tensor,
    stride_channel: tl.tensor,
    width: tl.constexpr,
    lanes: tl.constexpr,
    tile_pixels: tl.constexpr,
    silu: tl.constexpr,
) -> None:
    """Norm one group of one picture, all of which a program holds."""
    image, group = tl.program_id(0), tl.program_id(1)
    pixel, lane = tl.arange(0, tile_pixels)[:, None], tl.arange(0, lanes)
    channel = group * width + lane
    inside = (pixel < num_pixels) & (lane < width)[None, :]
    at = image * (num_groups * width * num_pixels)
    at += pixel * stride_pixel + (channel * stride_channel)[None, :]
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    number = 1.0 * width * num_pixels
    mean = tl.sum(values) / number
    apart = tl.where(inside, values - mean, 0.0)
    normed = apart * tl.rsqrt(tl.sum(apart * apart) / number + eps)
    made = _finished(normed, weight, bias, channel, lane < width, silu)
    tl.store(out + at, made.to(out.dtype.element_ty), mask=inside)


@triton.jit
def statistics(
    x: tl.tensor,
    means: tl.tensor,
    squares: tl.tensor,
    num_pixels: tl.tensor,
    num_groups: tl.tensor,
    chunk: tl.tensor,
    stride_pixel: tl.tensor,
    stride_channel: tl.tensor,
    width: tl.constexpr,
    lanes: tl.constexpr,
    tile_groups: tl.constexpr,
    tile_pixels: tl.constexpr,
) -> None:
    """Write the mean and the squares about it of some groups over a chunk of pixels.

    Channel by channel first: what a tile of pixels has is added by the formula of Chan et al.,
    "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
    """
    image, part = tl.program_id(0), tl.program_id(2)
    group = tl.program_id(1) * tile_groups + tl.arange(0, tile_groups)
    lane = tl.arange(0, lanes)
    channel = group[:, None] * width + lane[None, :]
    real = (group < num_groups)[:, None] & (lane < width)[None, :]
    x += image * (num_groups * width * num_pixels)
    end = tl.minimum(part * chunk + chunk, num_pixels)
    mean = tl.zeros((tile_groups, lanes), tl.float32)
    square = tl.zeros((tile_groups, lanes), tl.float32)
    count = 0.0
    for start in range(part * chunk, end, tile_pixels):
        pixel = (start + tl.arange(0, tile_pixels))[:, None, None]
        inside = (pixel < end) & real[None, :, :]
        at = pixel * stride_pixel + (channel * stride_channel)[None, :, :]
        values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        number = tl.minimum(end - start, tile_pixels).to(tl.float32)
        here = tl.sum(values, axis=0) / number
        apart = tl.where(inside, values - here[None, :, :], 0.0)
        delta, total = here - mean, count + number
        mean += delta * (number / total)
        square += tl.sum(apart * apart, axis=0) + delta * delta * (count * number / total)
        count = total
    whole = tl.sum(mean, axis=1) / width
    apart = tl.where(real, mean - whole[:, None], 0.0)
    about = tl.sum(square, axis=1) + count * tl.sum(apart * apart, axis=1)
    at = (image * tl.num_programs(2) + part) * num_groups + group
    tl.store(means + at, whole, mask=group < num_groups)
    tl.store(squares + at, about, mask=group < num_groups)


@triton.jit
def normalise(
    x: tl.tensor,
    out: tl.tensor,
    means: tl.tensor,
    squares: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    num_pixels: tl.tensor,
    num_groups: tl.tensor,
    chunk: tl.tensor,
    eps: tl.tensor,
    stride_pixel: tl.tensor,
    stride_channel: tl.tensor,
    width: tl.constexpr,
    lanes: tl.constexpr,
    tile_groups: tl.constexpr,
    tile_pixels: tl.constexpr,
    max_chunks: tl.constexpr,
    silu: tl.constexpr,
) -> None:
    """Norm what `statistics` read in the same place of the same grid, by all chunks' results."""
    image, part, num_chunks = tl.program_id(0), tl.program_id(2), tl.num_programs(2)
    group = tl.program_id(1) * tile_groups + tl.arange(0, tile_groups)
    lane = tl.arange(0, lanes)
    channel = group[:, None] * width + lane[None, :]
    real = (group < num_groups)[:, None] & (lane < width)[None, :]

    each = tl.arange(0, max_chunks)[:, None]
    known = (each < num_chunks) & (group < num_groups)[None, :]
    read = (image * num_chunks + each) * num_groups + group[None, :]
    part_means = tl.load(means + read, mask=known, other=0.0)
    part_squares = tl.load(squares + read, mask=known, other=0.0)
    sizes = tl.minimum(chunk, num_pixels - each * chunk) * width
    sizes = tl.where(known, sizes.to(tl.float32), 0.0)
    number = 1.0 * width * num_pixels
    mean = tl.sum(part_means * sizes, axis=0) / number
    apart = part_means - mean[None, :]
    variance = tl.sum(part_squares + sizes * apart * apart, axis=0) / number
    scale = tl.rsqrt(variance + eps)[None, :, None]
    mean = mean[None, :, None]

    offset = image * (num_groups * width * num_pixels)
    end = tl.minimum(part * chunk + chunk, num_pixels)
    for start in range(part * chunk, end, tile_pixels):
        pixel = (start + tl.arange(0, tile_pixels))[:, None, None]
        inside = (pixel < end) & real[None, :, :]
        at = offset + pixel * stride_pixel + (channel * stride_channel)[None, :, :]
        values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        made = _finished((values - mean) * scale, weight, bias, channel, real, silu)
        tl.store(out + at, made.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _finished(
    normed: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    channel: tl.tensor,
    real: tl.tensor,
    silu: tl.constexpr,
) -> tl.tensor:
    if weight is not None:
        scale = tl.load(weight + channel, mask=real, other=0.0).to(tl.float32)
        normed *= tl.expand_dims(scale, 0)
    if bias is not None:
        shift = tl.load(bias + channel, mask=real, other=0.0).to(tl.float32)
        normed += tl.expand_dims(shift, 0)
    if silu:
        normed *= tl.sigmoid(normed)
    return normed
