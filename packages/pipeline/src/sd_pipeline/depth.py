"""Depth maps: read to the last bit, brought to a picture's view, made a UNet's channel."""

import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from sd_pipeline.errors import PipelineError
from sd_pipeline.images import Fit
from sd_pipeline.picture_opener import MAX_PIXELS, open_values
from sd_pipeline.printable import printable

_OPAQUE = (255, 255)
_ROUNDING = 1e-6  # of a map's range: interpolating what is flat leaves less


def read_depth(path: Path) -> Image.Image:
    """Read a depth map as the numbers that its file holds, upright, as float32 (mode F).

    Raises `PictureError` when it is missing or broken, `PipelineError` as `depth_of`.
    """
    with warnings.catch_warnings():
        # What matters of Pillow's grumbling is raised.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        image = open_values(path, max_pixels=2 * MAX_PIXELS)
        try:
            return depth_of(image)
        except PipelineError as error:
            raise PipelineError(f"{printable(path)}: {error}") from error


def depth_of(image: Image.Image) -> Image.Image:
    """Return a depth map's values as float32 (mode F), whatever its bits.

    Raises `PipelineError` for colours, transparent places, and values that are no numbers.
    """
    if image.mode in ("LA", "RGBA") and image.getchannel("A").getextrema() != _OPAQUE:
        raise PipelineError("the depth map is transparent, which is no depth; fill it in")
    image = image.convert("RGB") if image.mode == "P" else image
    values = np.asarray(image)
    if values.ndim == 3:
        colours = values[..., :-1] if image.mode.endswith("A") else values
        values = colours[..., 0]
        if image.mode not in ("LA", "RGB", "RGBA") or (colours != values[..., None]).any():
            raise PipelineError("the depth map is in colour; give one that is grey")
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise PipelineError("the depth map has values that are no numbers; fill them in")
    return Image.fromarray(values)


def to_depth(
    image: Image.Image, picture: tuple[int, int], size: tuple[int, int], fit: Fit
) -> Tensor:
    """Turn a depth map (W, H) into values (1, 1, H', W') of what a picture is brought to.

    The map shows what a picture of the size `picture` shows, which is brought to `size` by `fit`:
    as large a share of the map is cut, or repeats its edge, to the nearest of its own pixels.
    """
    values = np.asarray(depth_of(image))
    wider = (size[0] / size[1]) / (picture[0] / picture[1])
    shares = {
        "crop": (min(1 / wider, 1.0), min(wider, 1.0)),
        "pad": (max(1 / wider, 1.0), max(wider, 1.0)),
        "stretch": (1.0, 1.0),
    }[fit]
    rows, columns = (_numbers(side, by) for side, by in zip(values.shape, shares, strict=True))
    return rearrange(torch.from_numpy(values[np.ix_(rows, columns)]), "h w -> 1 1 h w")


def depth_channel(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Return values (1, 1, H, W) as a UNet is shown them: (1, 1, h, w), from -1, farthest, to 1.

    As diffusers does it, but that a map without differences, which says nothing, is 0.
    """
    differences = values.double() - values.amin()
    small = F.interpolate(differences, size, mode="bicubic", align_corners=False)
    least, most = small.amin(), small.amax()
    if most - least <= _ROUNDING * differences.amax():
        return torch.zeros_like(small)
    return 2 * (small - least) / (most - least) - 1


def _numbers(side: int, share: float) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return which of `side` rows make `share` times as many, around the middle."""
    margin = max(round(side * (share - 1) / 2), -((side - 1) // 2))
    return np.arange(-margin, side + margin).clip(0, side - 1)
