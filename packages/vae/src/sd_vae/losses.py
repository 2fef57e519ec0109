"""What the autoencoder learns from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_vae.config import VAEError
from sd_vae.posterior import DiagonalGaussian
from sd_vae.quantizer import Quantized

__all__ = ["Likelihood", "VAELoss", "VAELossConfig", "VAELossTerms"]

_NUM_GRADIENT_SCALES = 3
_DETAIL_SIZE = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class VAELossConfig:
    """Weigh the terms of the loss; see `VAELoss` for their units."""

    reconstruction: Literal["l1", "mse"] = "l1"
    kl_weight: float = 1e-6
    gradient_weight: float = 0.0
    detail_weight: float = 0.0
    perceptual_weight: float = 1.0
    codebook_weight: float = 1.0
    commitment_weight: float = 0.25
    learn_logvar: bool = False
    logvar_init: float = 0.0

    def __post_init__(self) -> None:
        if self.reconstruction not in ("l1", "mse"):
            raise VAEError(f"unknown reconstruction loss {self.reconstruction!r}; choose l1 or mse")


class VAELossTerms(NamedTuple):
    """Hold the loss and its terms, scalars; only `adversarial` is weighted already."""

    total: Tensor
    reconstruction: Tensor
    gradient: Tensor
    kl: Tensor
    detail: Tensor
    perceptual: Tensor
    adversarial: Tensor
    codebook: Tensor


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
      crops of any size;
    - codebook: of a `VQModel`, how far codes are from latents, and `commitment_weight` times how
      far latents are from codes (van den Oord et al. 2017, arXiv:1711.00937, equation 3).

    The places for the learned terms, called with pictures (B, 3, H, W):

    - `perceptual` (images, recon) -> (B,) or a scalar, such as `LPIPS`;
    - `adversarial` (images, recon, others) -> scalar. `others` is the sum of all other terms, of
      which an adaptive weight needs the gradient. It is added as it is: it carries its own weight.

    With `learn_logvar` all terms of the error but kl and adversarial, which say together how
    likely the picture is, are divided by exp(logvar), and logvar is added: a Laplace or normal
    distribution whose width is learnt, as in latent diffusion. `likelihood` is what learns it.
    """

    def __init__(
        self,
        config: VAELossConfig | None = None,
        *,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        adversarial: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.config = config or VAELossConfig()
        self.likelihood: Likelihood | None = None
        if self.config.learn_logvar:
            self.likelihood = Likelihood(self.config.logvar_init)
        self.perceptual = perceptual
        self.adversarial = adversarial

    def forward(
        self,
        images: Tensor,
        recon: Tensor,
        posterior: DiagonalGaussian,
        *,
        num_values: int | None = None,
        quantized: Quantized | None = None,
    ) -> VAELossTerms:
        """Compare `recon` with `images`, both (B, 3, H, W) in [-1, 1], in float32.

        `num_values` are the colour values of the picture that `posterior` is of, where that is not
        `images`' own size; `quantized` are the codes where there is a codebook.
        """
        config = self.config
        reconstruction, gradient, detail, perceptual = self._errors(images, recon)
        values_per_picture = images[0].numel() if num_values is None else num_values
        kl = posterior.kl().mean() / values_per_picture
        adversarial = codebook = torch.zeros_like(reconstruction)
        total = reconstruction + config.gradient_weight * gradient + config.detail_weight * detail
        total = total + config.perceptual_weight * perceptual
        if self.likelihood is not None:
            total = self.likelihood(total)
        total = total + config.kl_weight * kl
        if quantized is not None:
            codebook = quantized.codebook + config.commitment_weight * quantized.commitment
            total = total + config.codebook_weight * codebook
        if self.adversarial is not None:
            adversarial = self.adversarial(images, recon, total)
            total = total + adversarial
        return VAELossTerms(
            total, reconstruction, gradient, kl, detail, perceptual, adversarial, codebook
        )

    def _errors(self, images: Tensor, recon: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return reconstruction, gradient, detail and perceptual; what counts nothing is nought."""
        config = self.config
        error = recon.float() - images.float()
        absolute = config.reconstruction == "l1"
        reconstruction = error.abs().mean() if absolute else error.square().mean()
        gradient = detail = perceptual = torch.zeros_like(reconstruction)
        if config.gradient_weight:
            gradient = _gradient_error(error)
        if config.detail_weight:
            detail = (details(images.float()) * error.abs()).mean()
        if self.perceptual is not None:
            perceptual = self.perceptual(images, recon).mean()
        return reconstruction, gradient, detail, perceptual


class Likelihood(nn.Module):
    """Learn how wide the distribution is that the error of a colour value is drawn from."""

    def __init__(self, logvar: float) -> None:
        super().__init__()
        self.logvar = nn.Parameter(torch.tensor(float(logvar)))

    def forward(self, error: Tensor) -> Tensor:
        """Turn the mean error of a colour value into its negative log-likelihood, but a constant.

        Rombach et al. 2022, arXiv:2112.10752, appendix G, with the width learnt.
        """
        nll: Tensor = error / self.logvar.exp() + self.logvar
        return nll


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
