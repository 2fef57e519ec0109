import math

import pytest
import torch
from torch import Tensor

from sd_train.fidelity import psnr, ssim


def pictures(height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, height, width, generator=generator) * 2 - 1
    noise = torch.randn(images.shape, generator=generator)
    return images, (images + 0.3 * noise).clamp(-1, 1)


def by_hand(x: list[list[float]], y: list[list[float]]) -> float:
    """Wang et al. 2004, equations 13 to 16, window by window."""
    weights = [math.exp(-((i - 5) ** 2) / 4.5) for i in range(11)]
    whole, total, count = sum(weights) ** 2, 0.0, 0
    for top in range(len(x) - 10):
        for left in range(len(x[0]) - 10):
            window = [
                (weights[i] * weights[j] / whole, x[top + i][left + j], y[top + i][left + j])
                for i in range(11)
                for j in range(11)
            ]
            mean_x, mean_y = (sum(one[0] * one[k] for one in window) for k in (1, 2))
            var_x = sum(w * (a - mean_x) ** 2 for w, a, _ in window)
            var_y = sum(w * (b - mean_y) ** 2 for w, _, b in window)
            both = sum(w * (a - mean_x) * (b - mean_y) for w, a, b in window)
            likeness = (2 * mean_x * mean_y + 0.02**2) * (2 * both + 0.06**2)
            most = (mean_x**2 + mean_y**2 + 0.02**2) * (var_x + var_y + 0.06**2)
            total, count = total + likeness / most, count + 1
    return total / count


def test_psnr_of_a_known_error() -> None:
    images = torch.zeros(2, 3, 4, 4)
    assert psnr(images, images + 0.2).tolist() == pytest.approx([20.0, 20.0], rel=1e-5)


def test_ssim_is_the_mean_of_its_formula_over_all_windows() -> None:
    images, recon = pictures(13, 14)
    expected = [
        sum(by_hand(x.tolist(), y.tolist()) for x, y in zip(a, b, strict=True)) / 3
        for a, b in zip(images, recon, strict=True)
    ]
    assert ssim(images, recon).tolist() == pytest.approx(expected, rel=1e-9)


def test_a_picture_is_wholly_like_itself_and_pictures_smaller_than_a_window_are_compared() -> None:
    images, recon = pictures(8, 32)
    assert ssim(images, images).tolist() == pytest.approx([1.0, 1.0])
    assert (ssim(images, recon) < 1).all()


def test_ssim_of_two_flat_pictures_is_that_of_their_brightness() -> None:
    a, b = torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), -0.25)
    expected = (2 * 0.5 * -0.25 + 0.02**2) / (0.5**2 + 0.25**2 + 0.02**2)
    assert ssim(a, b).item() == pytest.approx(expected)


def test_ssim_is_the_same_under_autocast() -> None:
    images, recon = pictures(16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ssim(images, recon), ssim(images, recon))
        inside = ssim(images, recon)
    assert torch.equal(inside, ssim(images, recon))
