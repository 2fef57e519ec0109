"""Encoding and decoding large pictures: exact, and in memory that does not grow with their size.

The networks are run a layer at a time and each layer in bands of rows. A layer's whole output is
kept, on disk when it is large, while the next layer reads it; so its group norm has the true
statistics of the whole picture, and every row of a convolution its true neighbours.
"""

import shutil
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sd_vae.autoencoder import AutoencoderKL
from sd_vae.config import VAEError
from sd_vae.posterior import DiagonalGaussian
from sd_vae.tiling.budget import MemoryBudget
from sd_vae.tiling.network import Keeper, decoded, moments_of_latents
from sd_vae.tiling.rows import Given, Rows, input_copies
from sd_vae.tiling.stores import Storeroom
from sd_vae.tiling.workspace import Plan, Workspace

__all__ = ["Band", "decode_in_bands", "decoded_bands", "encode_in_bands"]

# A res block run plainly: its input, the normed or the activated, what comes out, and that in the
# convolution's own layout; what the convolution makes of its input is beside these.
_PLAIN_COPIES = 4

_Network = Callable[[AutoencoderKL, Rows, Keeper], Rows]


class Band(NamedTuple):
    """Rows (B, 3, n, W) of a picture, from its row `start` on."""

    start: int
    rows: Tensor


def decode_in_bands(
    vae: AutoencoderKL,
    z: Tensor,
    *,
    budget: MemoryBudget | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Map z (B, C, h, w), not scaled, to what `vae.decode` makes of it (B, 3, f*h, f*w).

    The pictures go into `out` where it is given, on any device: as they are, about in [-1, 1],
    where it is floating, and as 0 to 255 where it is uint8. There are no gradients. Raises
    `VAEError` when the budget or the temporary disk is too small, or `out` of another kind.
    """
    height, width = (side * vae.config.downsampling for side in z.shape[-2:])
    shape = (z.shape[0], vae.config.out_channels, height, width)
    if out is not None and (out.shape != shape or not _takes_pictures(out.dtype)):
        raise VAEError(
            f"out is {tuple(out.shape)} of {out.dtype}; give one that is {shape}, floating or uint8"
        )
    bands = decoded_bands(vae, z, budget=budget)
    if out is None:
        weight = vae.post_quant_conv.weight
        out = torch.empty(shape, dtype=weight.dtype, device=weight.device)
    for start, rows in bands:
        if out.dtype == torch.uint8:
            rows = rows.float().clamp(-1, 1).add(1).mul(127.5).round()
        out[:, :, start : start + rows.shape[2]] = rows
    return out


def decoded_bands(
    vae: AutoencoderKL, z: Tensor, *, budget: MemoryBudget | None = None
) -> Iterator[Band]:
    """Yield the pictures of z (B, C, h, w) in bands of rows, from above, about in [-1, 1].

    So nothing of their size is ever in memory. Raises as `decode_in_bands` does.
    """
    budget = budget or MemoryBudget()
    weight = vae.post_quant_conv.weight
    if _fits_plainly(vae, z, decoded, budget):
        return _plainly(vae, z.to(weight.device))
    return _in_bands(vae, vae.decoder_input(z), decoded, budget)


@torch.no_grad()
def encode_in_bands(
    vae: AutoencoderKL, images: Tensor, *, budget: MemoryBudget | None = None
) -> DiagonalGaussian:
    """Map (B, 3, H, W) in [-1, 1] to what `vae.encode` makes of it, z (B, C, H/f, W/f).

    The images may be on another device than the weights and of another floating type. There are no
    gradients. Raises `VAEError` when a side is not a multiple of f, or the budget or the
    temporary disk is too small.
    """
    budget = budget or MemoryBudget()
    vae.config.check_size(*images.shape[-2:])
    if _fits_plainly(vae, images, moments_of_latents, budget):
        return vae.encode(images.to(vae.quant_conv.weight))
    bands = _in_bands(vae, images, moments_of_latents, budget)
    return vae.posterior(torch.cat([rows for _, rows in bands], dim=2))


def _takes_pictures(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype == torch.uint8


def _fits_plainly(
    vae: AutoencoderKL, whole: Tensor, network: _Network, budget: MemoryBudget
) -> bool:
    """Tell whether the picture needs no bands, after checking that they would have room."""
    weight = vae.post_quant_conv.weight
    with Storeroom(budget, weight.device, weight.dtype) as storeroom:
        plan = Plan(storeroom, budget, weight.dtype)
        plan.note(network(vae, Given(whole, weight), plan))
    copies = _PLAIN_COPIES + input_copies(vae.decoder.conv_in)
    if copies * plan.largest_activation * weight.dtype.itemsize <= budget.memory:
        return True
    height, width = whole.shape[-2:]
    if plan.largest_row > plan.band_values:
        # Half of the memory is for bands.
        least = 2 * plan.largest_row * weight.dtype.itemsize
        raise VAEError(
            f"{budget.memory:,} bytes of memory hold no row of the widest layer for an input of "
            f"{width}x{height}; give the budget at least {least:,}, or make the picture narrower"
        )
    folder = budget.temporary_folder
    free = shutil.disk_usage(folder).free
    if storeroom.most_on_disk > free:
        raise VAEError(
            f"an input of {width}x{height} needs {storeroom.most_on_disk:,} bytes of temporary "
            f"disk and {folder} has {free:,}; free some, choose another folder, or raise the "
            "budget's memory"
        )
    return False


@torch.no_grad()
def _plainly(vae: AutoencoderKL, z: Tensor) -> Iterator[Band]:
    yield Band(0, vae.decode(z))


@torch.no_grad()
def _in_bands(
    vae: AutoencoderKL, whole: Tensor, network: _Network, budget: MemoryBudget
) -> Iterator[Band]:
    weight = vae.post_quant_conv.weight
    with Storeroom(budget, weight.device, weight.dtype) as storeroom:
        workspace = Workspace(storeroom, budget, weight.dtype)
        rows = network(vae, Given(whole, weight), workspace)
        for start, stop in workspace.bands(rows):
            yield Band(start, rows.read(start, stop))
