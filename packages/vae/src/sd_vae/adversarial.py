"""What autoencoder and discriminator want of each other (Esser et al. 2021, arXiv:2012.09841)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_vae.config import VAEError
from sd_vae.discriminator import Discriminator

__all__ = ["AdversarialLoss", "adaptive_weight"]

_MOST_WEIGHT = 1e4
_DELTA = 1e-6


class AdversarialLoss:
    """Hold the two sides of the game for a discriminator.

    - "hinge": the discriminator learns until every patch is on its side of the margin, and the
      decoder raises the logits (Lim & Ye 2017, arXiv:1705.02894; what latent diffusion uses);
    - "non_saturating": both learn the cross entropy, the decoder with the labels swapped
      (Goodfellow et al. 2014, arXiv:1406.2661, section 3).

    `last_layer` is the weight of the decoder's last layer (`vae.decoder.conv_out.weight`). With it
    the decoder's side has `adaptive_weight` besides `weight`; with None, `weight` alone. It is no
    module, for a loss does not own the discriminator. Raises `VAEError` for an unknown loss.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        last_layer: Tensor | None,
        *,
        weight: float = 0.5,
        kind: Literal["hinge", "non_saturating"] = "hinge",
    ) -> None:
        if kind not in ("hinge", "non_saturating"):
            raise VAEError(f"unknown adversarial loss {kind!r}; choose hinge or non_saturating")
        self.discriminator = discriminator
        self.last_layer = last_layer
        self.weight = weight
        self.kind = kind

    def of_decoder(self, recon: Tensor, others: Tensor) -> Tensor:
        """Return the decoder's side, weighted, a scalar; the discriminator gets no gradient.

        `recon` (B, 3, H, W) is as the decoder has it; `others` are the other terms of its loss.
        """
        with _without_gradients(self.discriminator):
            logits = self.discriminator(recon).float()
        loss = F.softplus(-logits).mean() if self.kind == "non_saturating" else -logits.mean()
        if self.last_layer is not None:
            # Of sums, for the gradients of means may be too small for float16.
            loss = loss * adaptive_weight(others, loss, self.last_layer, scale=recon.numel())
        return self.weight * loss

    def of_discriminator(self, images: Tensor, recon: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the discriminator's side, a scalar, and its mean logits of both, detached.

        `images` and `recon` are (B, 3, H, W) in [-1, 1]; neither gets a gradient. Each goes through
        the discriminator by itself, for a batch norm would tell the halves of one batch apart.
        """
        real = self.discriminator(images.detach()).float()
        fake = self.discriminator(recon.detach()).float()
        if self.kind == "non_saturating":
            loss = 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
        else:
            loss = 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())
        return loss, real.detach().mean(), fake.detach().mean()


def adaptive_weight(
    others: Tensor, adversarial: Tensor, last_layer: Tensor, *, scale: float = 1.0
) -> Tensor:
    """Return the weight, in [0, 1e4], with which both losses pull equally at the last layer.

    It is the ratio of the norms of their gradients there (Esser et al. 2021, arXiv:2012.09841,
    equation 7). `scale` multiplies both losses, scalars, on the way and is taken out of the norms.
    """
    pulls = []
    for loss in (others, adversarial):
        (grad,) = torch.autograd.grad(scale * loss, last_layer, retain_graph=True)
        pulls.append(torch.linalg.vector_norm(grad.float()) / scale)
    ratio: Tensor = pulls[0] / (pulls[1] + _DELTA)
    return ratio.clamp(0.0, _MOST_WEIGHT).detach()


@contextmanager
def _without_gradients(module: nn.Module) -> Iterator[None]:
    """Keep the module's weights out of the graph that is made inside."""
    learning = [p for p in module.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
