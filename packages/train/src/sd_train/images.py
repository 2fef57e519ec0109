"""Pictures as tensors: open, convert, put into a grid, write."""

from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn import functional

from sd_checkpoint import atomic_path


def to_float(images: Tensor, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Turn uint8 (B, 3, H, W) into fp32 in [-1, 1], in the memory format of the weights.

    Decoded pictures lie channels last, and a convolution would take that format from its input.
    """
    return images.to(torch.float32, memory_format=layout).div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """Turn pictures (B, 3, H, W) in [-1, 1] into uint8 on the CPU, clipping what lies outside."""
    return images.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).cpu()


def grid(images: Tensor, columns: int) -> Tensor:
    """Lay uint8 pictures (B, 3, H, W) out in rows of `columns`; missing ones stay black."""
    missing = -len(images) % columns
    padded = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, missing))
    return rearrange(padded, "(rows cols) c h w -> c (rows h) (cols w)", cols=columns)


def save_png(path: Path, image: Tensor) -> None:
    """Write a uint8 picture (3, H, W) as PNG, atomically."""
    array = rearrange(image, "c h w -> h w c").contiguous().numpy()
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG")
