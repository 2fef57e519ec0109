"""The UNet learns to take noise from latents, told by text (Rombach et al., arXiv:2112.10752)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sd_pipeline import Parts, save_model
from sd_sampler import (
    Network,
    NoiseSource,
    classifier_free,
    loss_weight,
    plan,
    timestep_sampler,
)
from sd_textenc import TextTower
from sd_train.config import DenoiserTrainConfig
from sd_train.images import grid, to_float, to_uint8
from sd_train.latents import DenoiserSource
from sd_train.precision import EXPORT_DTYPES
from sd_train.seeds import generator_for
from sd_train.task import Batch, Validation
from sd_unet import UNet

_COLUMNS = 4


class DenoiserTask:
    """Trains a UNet, and the text encoder along with it if so configured."""

    def __init__(self, parts: Parts, source: DenoiserSource, config: DenoiserTrainConfig) -> None:
        self.unet: UNet = parts.unet
        assert isinstance(parts.text_encoder, TextTower)  # two towers are not trained yet
        self.text_encoder = parts.text_encoder
        self.vae = parts.vae
        self.parts = parts
        self.source = source
        self.config = config
        self.device = next(parts.unet.parameters()).device
        self.diffusion = parts.scheduler.diffusion
        self.schedule = self.diffusion.noise_schedule()
        self.sigmas = self.schedule.sigmas.float().to(self.device)
        self.prediction = self.diffusion.prediction_object()
        self.weight = loss_weight(config.objective.weighting, config.objective.min_snr_gamma)
        self.draw_timesteps = timestep_sampler(config.objective.timesteps)

    def modules(self) -> Mapping[str, nn.Module]:
        """Name what learns: the UNet, and the text encoder if it is trained along."""
        if self.config.text.train:
            return {"unet": self.unet, "text_encoder": self.text_encoder}
        return {"unet": self.unet}

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare the network's output with its target at random timesteps."""
        x0 = self._latents(batch, generator)
        count = self.schedule.num_timesteps
        timesteps = self.draw_timesteps(len(x0), count, generator).to(self.device)
        noise = torch.randn(x0.shape, generator=generator).to(self.device)
        errors, weights = self._errors(x0, noise, timesteps, self._hidden_states(batch))
        return (weights * errors).mean(), {"mse": errors.detach().mean()}

    @torch.no_grad()
    def validate(self) -> Validation:
        """Measure the loss on held-out pictures at fixed noise and timesteps, and draw samples."""
        scalars: dict[str, float] = {}
        held_out = self.source.held_out()
        count = len(self.source.folder.held_out)
        if count:
            generator = generator_for(0, "validation", 0)
            losses = []
            spread = torch.linspace(0, self.schedule.num_timesteps - 1, count).long()
            for places in torch.split(torch.arange(count), self.config.trainer.batch_size):
                batch = {name: values[places].to(self.device) for name, values in held_out.items()}
                x0 = self._latents(batch, generator)
                noise = torch.randn(x0.shape, generator=generator).to(self.device)
                timesteps = spread[places].to(self.device)
                errors, weights = self._errors(x0, noise, timesteps, self._hidden_states(batch))
                losses.append(weights * errors)
            scalars["loss"] = float(torch.cat(losses).mean())
        images = self._samples() if self.config.samples.count else {}
        return Validation(scalars=scalars, images=images)

    def export(self, folder: Path) -> None:
        """Write the whole model as a folder in the diffusers layout."""
        save_model(folder, self.parts, dtype=EXPORT_DTYPES[self.config.export_dtype])

    def _errors(
        self, x0: Tensor, noise: Tensor, timesteps: Tensor, hidden_states: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the mean squared errors (B,) of the output, and their weights (B,)."""
        sigma = self.sigmas[timesteps]
        noised = self.schedule.add_noise(x0, noise, timesteps)
        output = self.unet(noised, timesteps.float(), hidden_states).float()
        target = self.prediction.target(x0, noise, sigma)
        return (output - target).square().flatten(1).mean(1), self.weight(sigma, self.prediction)

    def _latents(self, batch: Batch, generator: torch.Generator) -> Tensor:
        if "images" in batch:
            with torch.no_grad():
                posterior = self.vae.encode(to_float(batch["images"]))
            mean, std = posterior.mean, posterior.std
        else:
            mean, std = batch["mean"].float(), batch["std"].float()
        if self.config.sample_posterior:
            mean = mean + std * torch.randn(mean.shape, generator=generator).to(mean.device)
        return self.vae.scale(mean)

    def _hidden_states(self, batch: Batch) -> Tensor:
        if "hidden_states" in batch:
            return batch["hidden_states"].float()
        return self.text_encoder.encode_tokens(batch["token_ids"]).hidden_states

    def _network(self, prompts: list[str]) -> Network:
        hidden_states = self.text_encoder.encode(prompts).hidden_states

        def network(x: Tensor, timesteps: Tensor) -> Tensor:
            output: Tensor = self.unet(x, timesteps, hidden_states)
            return output.float()

        return network

    def _samples(self) -> dict[str, Tensor]:
        settings = self.config.samples
        captions = [self.source.folder.captions[i] for i in self.source.folder.held_out]
        prompts = list(settings.prompts or captions)[: settings.count]
        if not prompts:
            return {}
        size = self.unet.config.sample_size
        shape = (self.unet.config.in_channels, size, size)
        noise = NoiseSource(range(len(prompts)), shape, device=self.device)
        options = self.diffusion.plan_options()
        way = plan(
            settings.sampler, settings.sigmas or None, self.schedule, settings.steps, options
        )
        told, untold = (
            way.denoiser(self._network(texts), self.prediction)
            for texts in (prompts, [""] * len(prompts))
        )
        latents = way.run(classifier_free(told, untold, settings.guidance_scale), noise)
        images = to_uint8(self.vae.decode(self.vae.unscale(latents)))
        return {"samples": grid(images, min(_COLUMNS, len(prompts)))}
