"""Pictures that a request begins with: read, brought to size, turned into pixels."""

import hashlib
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from sd_pipeline.errors import PipelineError
from sd_pipeline.picture_opener import MAX_PIXELS, WHITE, open_picture

Fit = Literal["crop", "stretch", "pad"]
FITS: tuple[Fit, ...] = ("crop", "stretch", "pad")

_GREY = 128
_MAX_ROOM = 4096


def read_image(path: Path) -> Image.Image:
    """Read a picture as RGB or, where it has transparency, RGBA: upright and in sRGB.

    Raises `PictureError` when it is missing, broken, or so large that Pillow reads none such.
    """
    with warnings.catch_warnings():
        # What matters of Pillow's grumbling is raised.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        return open_picture(path, background=None, max_pixels=2 * MAX_PIXELS)


def flatten(image: Image.Image) -> Image.Image:
    """Return a picture as RGB, on white where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    whole = image.convert("RGBA")
    ground = Image.new("RGBA", whole.size, (*WHITE, 255))
    return Image.alpha_composite(ground, whole).convert("RGB")


def bring_to(image: Image.Image, width: int, height: int, fit: Fit = "crop") -> Image.Image:
    """Return a picture of the size: cut at the sides, stretched, or set on white, as `fit` says.

    One that has the size already comes back as it is, to the bit.
    """
    size = (width, height)
    if image.size == size:
        return image
    if fit == "stretch":
        return image.resize(size, Image.Resampling.LANCZOS)
    if fit == "crop":
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    colour = 0 if image.mode == "L" else WHITE
    return ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=colour)


def filled_up(image: Image.Image, multiple: int) -> Image.Image:
    """Return a picture whose sides are multiples, its last columns and rows repeated to the right.

    One whose sides are so already comes back as it is; cut to its size it is the same again.
    """
    right, below = (-side % multiple for side in image.size)
    if not right and not below:
        return image
    padding = [(0, below), (0, right), (0, 0)][: np.asarray(image).ndim]
    return Image.fromarray(np.pad(np.asarray(image), padding, mode="edge"))


def extended(
    image: Image.Image, *, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0
) -> tuple[Image.Image, Image.Image]:
    """Return a picture with room on its sides, and the mask that is white there: for outpainting.

    The room repeats the picture's edge. Raises `PipelineError` for less than no room.
    """
    sides = {"left": left, "top": top, "right": right, "bottom": bottom}
    for name, number in sides.items():
        if not 0 <= number <= _MAX_ROOM:
            raise PipelineError(f"{name} is {number}; it must be from 0 to {_MAX_ROOM} pixels")
    if not any(sides.values()):
        raise PipelineError("there is no room on any side; give at least one of them pixels")
    flat = np.asarray(flatten(image))
    wide = np.pad(flat, ((top, bottom), (left, right), (0, 0)), mode="edge")
    mask = Image.new("L", wide.shape[1::-1], 255)
    mask.paste(0, (left, top, left + image.width, top + image.height))
    return Image.fromarray(wide), mask


def to_pixels(image: Image.Image) -> Tensor:
    """Turn an RGB picture into pixels (1, 3, H, W) in [-1, 1], float32."""
    array = torch.from_numpy(np.array(flatten(image)))
    return rearrange(array, "h w c -> 1 c h w").float() / 127.5 - 1


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Turn pixels (B, 3, H, W) in [-1, 1] into 8-bit RGB images."""
    scaled = (pixels.detach().float() / 2 + 0.5).clamp(0, 1) * 255
    array = rearrange(scaled.round().to(torch.uint8).cpu(), "b c h w -> b h w c").numpy()
    return [Image.fromarray(one) for one in array]


def mask_of(image: Image.Image) -> Image.Image:
    """Return a mask as grey levels, white where a picture is to be drawn anew.

    A picture with transparency is to be drawn where it is transparent, another where it is white.
    """
    if image.has_transparency_data:
        return ImageOps.invert(image.convert("RGBA").getchannel("A"))
    return image.convert("L")


def blurred(mask: Image.Image, radius: float) -> Image.Image:
    """Return a mask whose edge fades outwards over `radius` pixels; what it covered stays whole."""
    if radius <= 0:
        return mask
    wide = mask.filter(ImageFilter.MaxFilter(2 * round(radius) + 1))
    soft = np.asarray(wide.filter(ImageFilter.GaussianBlur(radius / 2)))
    return Image.fromarray(np.maximum(soft, np.asarray(mask)))


def to_mask(mask: Image.Image) -> Tensor:
    """Turn grey levels into a mask (1, 1, H, W) of 0 and 1, float32."""
    array = torch.from_numpy(np.array(mask))
    return rearrange(array >= _GREY, "h w -> 1 1 h w").float()


def paste(original: Image.Image, drawn: Image.Image, mask: Image.Image) -> Image.Image:
    """Return `original` where `mask` is black, to the bit, `drawn` where it is white."""
    return Image.composite(drawn, original, mask)


def pixel_hash(image: Image.Image) -> str:
    """Return the SHA-256 of a picture's size, mode and pixels, which no file format changes."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height} ".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
