"""The diagonal Gaussian that the encoder's moments describe."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["DiagonalGaussian", "PointMass"]


@dataclass(frozen=True, slots=True)
class DiagonalGaussian:
    """Hold a Gaussian with independent components; mean and log-variance are (B, C, H, W)."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def from_moments(cls, moments: Tensor) -> "DiagonalGaussian":
        """Split (B, 2C, H, W) into mean and log-variance, clamped to [-30, 20].

        Half-precision moments become float32, so that sums over a latent keep their digits.
        """
        if moments.dtype in (torch.float16, torch.bfloat16):
            moments = moments.float()
        mean, logvar = moments.chunk(2, dim=1)
        return cls(mean, logvar.clamp(-30.0, 20.0))

    @property
    def std(self) -> Tensor:
        """The standard deviation (B, C, H, W)."""
        return torch.exp(0.5 * self.logvar)

    def sample(
        self, *, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """Draw mean + std * noise (Kingma & Welling 2013, arXiv:1312.6114, section 2.4).

        `noise` (B, C, H, W) is taken as it is; else it comes from `generator`, on the generator's
        own device, or from torch's default one.
        """
        if noise is None:
            device = generator.device if generator is not None else self.mean.device
            noise = torch.randn(self.mean.shape, generator=generator, device=device)
        return self.mean + self.std * noise.to(self.mean)

    def mode(self) -> Tensor:
        """Return the most likely value: the mean."""
        return self.mean

    def kl(self) -> Tensor:
        """Return the divergence from the standard normal in nats per picture, (B,).

        Kingma & Welling 2013, arXiv:1312.6114, appendix B.
        """
        terms = self.mean.square() + self.logvar.exp() - 1.0 - self.logvar
        return 0.5 * terms.flatten(1).sum(dim=1)

    def nll(self, x: Tensor) -> Tensor:
        """Return the negative log-likelihood of `x` (B, C, H, W) in nats per picture, (B,)."""
        terms = math.log(2.0 * math.pi) + self.logvar + (x - self.mean).square() / self.logvar.exp()
        return 0.5 * terms.flatten(1).sum(dim=1)


class PointMass(DiagonalGaussian):
    """Be a Gaussian without any width: every sample is the mean.

    Its divergence counts as nought, for a codebook's is the same for every latent (van den Oord et
    al. 2017, arXiv:1711.00937, section 3.1).
    """

    __slots__ = ()

    @classmethod
    def at(cls, mean: Tensor) -> "PointMass":
        """Make the one at `mean` (B, C, H, W); half precision becomes float32."""
        if mean.dtype in (torch.float16, torch.bfloat16):
            mean = mean.float()
        return cls(mean, torch.full_like(mean, -math.inf))

    def kl(self) -> Tensor:
        """Return noughts (B,)."""
        return self.mean.new_zeros(len(self.mean))
