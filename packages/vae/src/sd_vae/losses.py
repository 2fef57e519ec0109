"""What the autoencoder learns from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from sd_vae.config import VAEError
from sd_vae.posterior import DiagonalGaussian

__all__ = ["VAELoss", "VAELossConfig", "VAELossTerms"]

_NUM_GRADIENT_SCALES = 3
_DETAIL_SIZE = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class VAELossConfig:
    """Weigh the terms of the loss; see `VAELoss` for their units."""

    reconstruction: Literal["l1", "mse"] = "l1"
    kl_weight: float = 1e-6
    gradient_weight: float = 0.0
    detail_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.reconstruction not in ("l1", "mse"):
            raise VAEError(f"unknown reconstruction loss {self.reconstruction!r}; choose l1 or mse")


class VAELossTerms(NamedTuple):
    """Hold the loss and its terms, scalars; the terms are not weighted yet."""

    total: Tensor
    reconstruction: Tensor
    gradient: Tensor
    kl: Tensor
    detail: Tensor


class VAELoss(nn.Module):
    """Sum reconstruction, image gradients, small details and the KL term of a batch.

    - reconstruction: mean absolute or squared error of a colour value;
    - gradient: mean absolute error of the differences of neighbours, across plus down, averaged
      over the picture and its halves and quarters; it keeps edges sharp;
    - detail: mean of the absolute error times `details(images)`; it keeps eyes and thin lines,
      which are so few pixels that the other terms hardly miss them, and so hard to place that
      their median is the surrounding colour;
    - kl: divergence of the posterior per picture, divided by the number of colour values of a
      picture, averaged over the batch. Both terms are then per colour value, so `kl_weight` means
      what it does in latent diffusion (Rombach et al. 2022, arXiv:2112.10752, appendix G), for
      crops of any size.

    `perceptual` (images, recon) -> scalar and `adversarial` (recon) -> scalar are the places for
    the learned terms: called with pictures (B, 3, H, W) and added to the total as they are, so each
    carries its own weight.
    """

    def __init__(
        self,
        config: VAELossConfig | None = None,
        *,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        adversarial: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.config = config or VAELossConfig()
        self.perceptual = perceptual
        self.adversarial = adversarial

    def forward(
        self,
        images: Tensor,
        recon: Tensor,
        posterior: DiagonalGaussian,
        *,
        num_values: int | None = None,
    ) -> VAELossTerms:
        """Compare `recon` with `images`, both (B, 3, H, W) in [-1, 1], in float32.

        `num_values` are the colour values of the picture that `posterior` is of, where that is not
        `images`' own size.
        """
        config = self.config
        error = recon.float() - images.float()
        values_per_picture = images[0].numel() if num_values is None else num_values
        absolute = config.reconstruction == "l1"
        reconstruction = error.abs().mean() if absolute else error.square().mean()
        kl = posterior.kl().mean() / values_per_picture
        total = reconstruction + config.kl_weight * kl
        gradient = error.new_zeros(())
        if config.gradient_weight:
            gradient = _gradient_error(error)
            total = total + config.gradient_weight * gradient
        detail = error.new_zeros(())
        if config.detail_weight:
            detail = (details(images.float()) * error.abs()).mean()
            total = total + config.detail_weight * detail
        if self.perceptual is not None:
            total = total + self.perceptual(images, recon)
        if self.adversarial is not None:
            total = total + self.adversarial(recon)
        return VAELossTerms(total, reconstruction, gradient, kl, detail)


def details(images: Tensor) -> Tensor:
    """Map pictures (B, C, H, W) in [-1, 1] to how much each pixel stands out of its surroundings.

    The map (B, 1, H, W), in [0, 2], is the morphological closing less the opening by a square of
    7 px (the white plus the black top-hat of Meyer 1979), the largest of the channels: the contrast
    of what is narrower than the square, and nothing at the edges of anything larger.
    """
    closing = -_dilate(-_dilate(images))
    opening = _dilate(-_dilate(-images))
    return (closing - opening).amax(dim=1, keepdim=True)


def _dilate(images: Tensor) -> Tensor:
    return F.max_pool2d(images, _DETAIL_SIZE, stride=1, padding=_DETAIL_SIZE // 2)


def _gradient_error(error: Tensor) -> Tensor:
    """Average the absolute gradient of the error (B, C, H, W) over three scales.

    Differences and means are linear, so the gradient of the error is the error of the gradients.
    """
    total = error.new_zeros(())
    for scale in range(_NUM_GRADIENT_SCALES):
        if scale:
            error = F.avg_pool2d(error, 2)
        across = (error[..., :, 1:] - error[..., :, :-1]).abs().mean()
        down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        total = total + across + down
    return total / _NUM_GRADIENT_SCALES
