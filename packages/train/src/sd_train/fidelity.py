"""How near a reconstruction is to its picture, as the field measures it."""

import torch
import torch.nn.functional as F
from torch import Tensor

_RANGE = 2.0
_WINDOW = 11
_SIGMA = 1.5
_C1 = (0.01 * _RANGE) ** 2
_C2 = (0.03 * _RANGE) ** 2


def psnr(images: Tensor, recon: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio (B,) in dB of pictures in [-1, 1]."""
    error = (recon.clamp(-1, 1) - images).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error)


def ssim(images: Tensor, recon: Tensor) -> Tensor:
    """Return the structural similarity (B,), at most 1, of pictures (B, C, H, W) in [-1, 1].

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity",
    equation 13: Gaussian windows of 11 px and sigma 1.5 that lie wholly inside the picture (smaller
    ones in smaller pictures), K1 = 0.01, K2 = 0.03; the mean over places and channels.
    """
    # In float64: variances are small differences, and autocast leaves it alone.
    x, y = images.double(), recon.double().clamp(-1, 1)
    mean_x, mean_y, square_x, square_y, product = (
        _smoothed(each) for each in (x, y, x * x, y * y, x * y)
    )
    covariance = product - mean_x * mean_y
    variances = square_x - mean_x.square() + square_y - mean_y.square()
    likeness = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    most = (mean_x.square() + mean_y.square() + _C1) * (variances + _C2)
    return (likeness / most).flatten(1).mean(1)


def _smoothed(images: Tensor) -> Tensor:
    """Average (B, C, H, W) under a Gaussian window at every place where it fits."""
    num_channels, side = images.shape[1], min(*images.shape[-2:])
    width = min(_WINDOW, side - 1 + side % 2)
    places = torch.arange(width, dtype=images.dtype, device=images.device) - width // 2
    window = torch.exp(-places.square() / (2 * _SIGMA**2))
    across = (window / window.sum()).expand(num_channels, 1, 1, width)
    images = F.conv2d(images, across, groups=num_channels)
    return F.conv2d(images, across.mT, groups=num_channels)
