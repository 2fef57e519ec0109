"""The UNet learns to take noise from latents, told by text or by classes (arXiv:2112.10752)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from sd_pipeline import Parts, save_model
from sd_textenc import DualTextEncoder
from sd_train.config import DenoiserTrainConfig
from sd_train.images import grid
from sd_train.latents import DenoiserSource
from sd_train.precision import EXPORT_DTYPES
from sd_train.task import Batch, Validation
from sd_train.tasks.denoising import Denoising
from sd_train.timestep_bands import by_band
from sd_unet import Backbone, backbone_layers

_COLUMNS, _BANDS = 4, 4


class DenoiserTask:
    """Trains a UNet or DiT, and the text encoder along with it if so configured."""

    def __init__(self, parts: Parts, source: DenoiserSource, config: DenoiserTrainConfig) -> None:
        self.unet: Backbone = parts.unet
        # Two towers are not trained from nothing.
        assert not isinstance(parts.text_encoder, DualTextEncoder)
        self.text_encoder = parts.text_encoder
        self.vae = parts.vae
        self.parts = parts
        self.networks = (parts.unet,)
        self.source = source
        self.config = config
        self.denoising = Denoising(
            parts, config.objective, sample_posterior=config.sample_posterior
        )
        self.denoising.planned(config.samples)  # told now, not at the first validation

    def modules(self) -> Mapping[str, nn.Module]:
        """Name what learns: the UNet, and the text encoder if it is trained along."""
        text = self.config.text
        if self.text_encoder is not None and text is not None and text.train:
            return {"unet": self.unet, "text_encoder": self.text_encoder}
        return {"unet": self.unet}

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The parts of the UNet by which it may be shared out; the text encoder stays whole."""
        return backbone_layers(self.unet)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare the network's output with its target at random timesteps."""
        losses, errors = self.denoising.losses(batch, generator)
        return losses.mean(), {"mse": errors.detach().mean()}

    def validate(self) -> Validation:
        """Measure the loss on held-out pictures at fixed noise and timesteps, and draw samples.

        `loss_0_249` is that of the timesteps from 0 to 249, and so on.
        """
        scalars: dict[str, float] = {}
        if self.source.folder.held_out:
            chunk, denoising = self.config.trainer.batch_size, self.denoising
            timesteps, losses = denoising.held_out_losses(self.source.held_out(), chunk=chunk)
            scalars["loss"] = float(losses.mean())
            count = denoising.schedule.num_timesteps
            bands = min(_BANDS, count)
            for band in by_band(timesteps, losses, num_timesteps=count, num_bands=bands):
                scalars[f"loss_{band.first}_{band.last}"] = band.loss
        return Validation(scalars=scalars, images=self._samples())

    def export(self, folder: Path) -> None:
        """Write the whole model as a folder in the diffusers layout."""
        save_model(folder, self.parts, dtype=EXPORT_DTYPES[self.config.export_dtype])

    def _samples(self) -> dict[str, Tensor]:
        settings, folder = self.config.samples, self.source.folder
        captions = [folder.captions[i] for i in folder.held_out]
        labels: list[int] | None = None
        if self.text_encoder is None and folder.classes is not None:
            captions = in_turn(folder.classes.names, settings.count)
        elif folder.classes is not None and not settings.prompts:
            labels = [folder.labels[i] for i in folder.held_out][: settings.count]
        prompts = list(settings.prompts or captions)[: settings.count]
        if not prompts:
            return {}
        images = self.denoising.samples(prompts, settings, labels=labels)
        return {"samples": grid(images, min(_COLUMNS, len(prompts)))}


def in_turn(names: Sequence[str], count: int) -> list[str]:
    """Return `count` names: each as often as every other, or where they are more, spread evenly."""
    if len(names) <= count:
        return [names[i % len(names)] for i in range(count)]
    return [names[i * len(names) // count] for i in range(count)]
