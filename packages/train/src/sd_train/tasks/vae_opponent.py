"""The discriminator against which the autoencoder learns (Esser et al. 2021, arXiv:2012.09841)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sd_train.config import AdversarialSettings, TrainerConfig, VAETrainConfig
from sd_train.data import check_least_size
from sd_train.precision import memory_format
from sd_train.seeds import derive_seed
from sd_vae import AdversarialLoss, AutoencoderKL, Discriminator, DiscriminatorConfig


class VAEOpponent:
    """Learns to tell pictures from reconstructions, of which the autoencoder's loss tells it."""

    def __init__(
        self, game: AdversarialLoss, settings: AdversarialSettings, trainer: TrainerConfig
    ) -> None:
        self.game = game
        self.start_step = settings.start_step
        self.config = trainer.model_copy(
            update={
                "optimizer": "adamw",
                "learning_rate": settings.learning_rate or trainer.learning_rate,
                "learning_rate_scales": {},
                "betas": settings.betas,
                "weight_decay": settings.weight_decay,
            }
        )
        self._active = False
        self._seen: tuple[Tensor, Tensor] | None = None

    def modules(self) -> Mapping[str, nn.Module]:
        """Name what learns."""
        return {"discriminator": self.game.discriminator}

    def takes_part(self, step: int) -> bool:
        """Tell whether its first step has come; before it the autoencoder learns without it."""
        self._active = step >= self.start_step
        return self._active

    def of_decoder(self, images: Tensor, recon: Tensor, others: Tensor) -> Tensor:
        """Be the adversarial term of `sd_vae.VAELoss`, and remember the pictures for `loss`."""
        if not self._active:
            return others.new_zeros(())
        self._seen = images, recon.detach()
        return self.game.of_decoder(recon, others)

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Judge what the autoencoder's loss was last of."""
        assert self._seen is not None
        (images, recon), self._seen = self._seen, None
        loss, real, fake = self.game.of_discriminator(images, recon)
        return loss, {"logits_real": real, "logits_recon": fake}


def build_opponent(config: VAETrainConfig, vae: AutoencoderKL) -> VAEOpponent | None:
    """Make the opponent of a run that has one; raises TrainError where pictures are too small."""
    settings = config.adversarial
    if settings is None:
        return None
    network = DiscriminatorConfig(
        in_channels=vae.config.out_channels,
        num_filters=settings.num_filters,
        num_layers=settings.num_layers,
        norm=settings.norm,
    )
    check_least_size(
        config.data, network.least_size, "[adversarial]", halved=bool(config.equivariance)
    )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.trainer.seed, "discriminator", 0))
        discriminator = Discriminator(network)
    last_layer = vae.decoder.conv_out.weight
    discriminator.to(last_layer.device).to(
        memory_format=memory_format(config.trainer.channels_last)
    )
    game = AdversarialLoss(
        discriminator,
        last_layer if settings.adaptive else None,
        weight=settings.weight,
        kind=settings.loss,
    )
    return VAEOpponent(game, settings, config.trainer)
