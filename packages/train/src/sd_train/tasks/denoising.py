"""Learning to denoise, whatever it is that learns: losses, held-out losses, drawn samples."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from sd_pipeline import Parts
from sd_pipeline.script import Conditions
from sd_sampler import (
    Denoiser,
    Network,
    NoiseSource,
    Plan,
    classifier_free,
    loss_weight,
    multires_noise,
    offset_noise,
    plan,
    timestep_sampler,
)
from sd_textenc import Conditioning
from sd_train.config import SampleSettings, WeightingSettings
from sd_train.images import to_float, to_uint8
from sd_train.latents import area_mean
from sd_train.seeds import generator_for
from sd_train.task import Batch
from sd_train.text import encode_ids
from sd_unet import AddedConditions


class Denoising:
    """The objective of a latent denoiser (Rombach et al., arXiv:2112.10752, equation 3).

    What the network predicts, and from which noise, is the model's own. Gradients flow into all
    that asks for them: the UNet, the text encoder where a batch has ids, and adapters in either.
    """

    def __init__(
        self, parts: Parts, settings: WeightingSettings, *, sample_posterior: bool = False
    ) -> None:
        self.parts = parts
        self.sample_posterior = sample_posterior
        weight = parts.unet.conv_in.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.diffusion = parts.scheduler.diffusion
        self.schedule = self.diffusion.noise_schedule()
        self.sigmas = self.schedule.sigmas.float().to(self.device)
        self.prediction = self.diffusion.prediction_object()
        self.weight = loss_weight(settings.weighting, settings.min_snr_gamma)
        self.draw_timesteps = timestep_sampler(settings.timesteps)
        self.settings = settings

    def losses(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Compare output and target at random timesteps: weighted losses (B,), squared errors (B,).

        The batch is as `DenoiserSource` makes it, on the network's device.
        """
        x0 = self._latents(batch, lambda shape: torch.randn(shape, generator=generator))
        count = self.schedule.num_timesteps
        timesteps = self.draw_timesteps(len(x0), count, generator).to(self.device)
        noise = self._noise(x0.shape, generator).to(self.device)
        errors, weights = self._errors(x0, noise, timesteps, self._told(batch), batch.get("mask"))
        return weights * errors, errors

    def held_out_loss(self, batches: Sequence[Batch], *, chunk: int, repeats: int = 1) -> float:
        """Return the mean of `held_out_losses`."""
        return float(self.held_out_losses(batches, chunk=chunk, repeats=repeats)[1].mean())

    @torch.no_grad()
    def held_out_losses(
        self,
        batches: Sequence[Batch],
        *,
        chunk: int,
        repeats: int = 1,
        seed: int = 0,
        on_look: Callable[[int], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return timesteps and weighted losses (L,) of N examples at noise that is always the same.

        The examples of a batch are of one size. Each is seen at `repeats` timesteps; all of these,
        L = N * `repeats`, are spread evenly. The noise of a look is its own, whatever the `chunk`;
        `on_look` gets how many are done.
        """
        count = sum(len(next(iter(batch.values()))) for batch in batches)
        spread = torch.linspace(0, self.schedule.num_timesteps - 1, count * repeats).long()
        losses, seen, first = [], [], 0
        for batch in batches:
            size = len(next(iter(batch.values())))
            looks = torch.arange(count * repeats)
            looks = looks[(looks % count >= first) & (looks % count < first + size)]
            for some in torch.split(looks, chunk):
                places = some % count - first
                part = {name: values[places].to(self.device) for name, values in batch.items()}
                losses.append(self._losses_at(part, spread[some], _noises(seed, some.tolist())))
                seen.append(spread[some])
                if on_look is not None:
                    on_look(sum(len(each) for each in seen))
            first += size
        return torch.cat(seen), torch.cat(losses)

    def _losses_at(self, batch: Batch, timesteps: Tensor, noises: "_Noises") -> Tensor:
        x0 = self._latents(batch, noises)
        noise = noises(x0.shape).to(self.device)
        told, mask = self._told(batch), batch.get("mask")
        errors, weights = self._errors(x0, noise, timesteps.to(self.device), told, mask)
        return (weights * errors).cpu()

    @torch.no_grad()
    def samples(
        self,
        prompts: Sequence[str],
        settings: SampleSettings,
        *,
        first_seed: int = 0,
        labels: Sequence[int] | None = None,
    ) -> Tensor:
        """Draw a picture for each prompt, uint8 (B, 3, H, W).

        Picture i is from the noise of seed `first_seed` + i. Prompts are classes where no text is
        heard; `labels` are classes beside the prompts, without them none.
        """
        config, size = self.parts.unet.config, self.parts.unet.config.sample_size
        noise = NoiseSource(
            range(first_seed, first_seed + len(prompts)),
            (config.in_channels, size, size),
            device=self.device,
        )
        way = self.planned(settings)
        guided = self.guided(way, prompts, settings.guidance_scale, labels=labels)
        latents = way.run(guided, noise)
        vae = self.parts.vae
        # SDXL's autoencoder overflows in fp16, so it is left out of an autocast that is on.
        whole = torch.autocast(self.device.type, enabled=False)
        with whole if vae.config.force_upcast else nullcontext():
            return to_uint8(vae.decode(vae.unscale(latents)))

    def guided(
        self,
        way: Plan,
        prompts: Sequence[str],
        guidance_scale: float,
        *,
        labels: Sequence[int] | None = None,
    ) -> Denoiser:
        """Return what goes down `way` to a picture for each prompt, told as ``samples`` is."""
        cond, uncond = (
            way.denoiser(self._network(told), self.prediction, dtype=self.dtype)
            for told in (self._asked(prompts, labels), self._asked([""] * len(prompts), None))
        )
        return classifier_free(cond, uncond, guidance_scale)

    def planned(self, settings: SampleSettings) -> Plan:
        """Plan how samples are drawn; raises `SamplerError` for what cannot be."""
        options = self.diffusion.plan_options()
        return plan(
            settings.sampler, settings.sigmas or None, self.schedule, settings.steps, options
        )

    def _asked(self, prompts: Sequence[str], labels: Sequence[int] | None) -> Conditions:
        """Return what a picture is drawn by for each prompt: "" is no text, or no class."""
        classes, text = self.parts.classes, None
        if self.parts.text_encoder is not None:
            text = self.parts.text_encoder.encode(list(prompts))
            if self.parts.zeros_for_empty and not any(prompts):
                text = text.zeroed()
        elif classes is not None:
            labels = [classes.number(prompt) for prompt in prompts]
        side = self.parts.unet.config.sample_size * self.parts.vae.config.downsampling
        whole = torch.tensor([[side, side, 0, 0, side, side]] * len(prompts))
        numbers = None if labels is None else torch.tensor(list(labels), device=self.device)
        return self._conditions(text, whole.to(self.device, torch.float32), numbers)

    def _network(self, told: Conditions) -> Network:
        def network(x: Tensor, timesteps: Tensor) -> Tensor:
            return self._output(x, timesteps, told)

        return network

    def _output(self, x: Tensor, timesteps: Tensor, told: Conditions) -> Tensor:
        output: Tensor = self.parts.unet(
            x, timesteps, told.hidden_states, told.added, class_labels=told.class_labels
        )
        return output.float()

    def _noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        noise, settings = torch.randn(shape, generator=generator), self.settings
        if settings.noise_offset:
            noise = offset_noise(noise, settings.noise_offset, generator)
        if settings.multires_discount:
            noise = multires_noise(noise, settings.multires_discount, generator)
        return noise

    def _errors(
        self, x0: Tensor, noise: Tensor, timesteps: Tensor, told: Conditions, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the mean squared errors (B,) of the output, and their weights (B,).

        A mask (B, 1, H, W) weighs each latent's error before the mean, which stays that over all.
        """
        sigma = self.sigmas[timesteps]
        noised = self.schedule.add_noise(x0, noise, timesteps).to(self.dtype)
        output = self._output(noised, timesteps.float(), told)
        target = self.prediction.target(x0, noise, sigma)
        squares = (output - target).square()
        if mask is not None:
            squares = squares * area_mean(mask, *x0.shape[-2:])
        return squares.flatten(1).mean(1), self.weight(sigma, self.prediction)

    def _latents(self, batch: Batch, draw: "_Noises") -> Tensor:
        vae = self.parts.vae
        if "images" in batch:
            with torch.no_grad():
                posterior = vae.encode(to_float(batch["images"]))
            mean, std = posterior.mean, posterior.std
        else:
            mean, std = batch["mean"].float(), batch["std"].float()
        if self.sample_posterior:
            mean = mean + std * draw(mean.shape).to(mean.device)
        return vae.scale(mean)

    def _told(self, batch: Batch) -> Conditions:
        text, labels, sizes = None, batch.get("class_labels"), batch.get("sizes")
        if "hidden_states" in batch:
            text = Conditioning(hidden_states=batch["hidden_states"], pooled=batch.get("pooled"))
        elif self.parts.text_encoder is not None:
            text = encode_ids(self.parts.text_encoder, batch)
        if text is not None and "told" in batch:
            text = _zeroed_unless(text, batch["told"])
        return self._conditions(text, sizes, labels)

    def _conditions(
        self, text: Conditioning | None, sizes: Tensor | None, labels: Tensor | None
    ) -> Conditions:
        """Put together what the network takes; where it takes classes and none are told, none."""
        added, classes = None, self.parts.classes
        if text is None:
            return Conditions(class_labels=labels)
        if self.parts.unet.config.takes_sizes:
            assert text.pooled is not None
            assert sizes is not None
            added = AddedConditions(pooled=text.pooled.to(self.dtype), sizes=sizes)
        states = text.hidden_states.to(self.dtype)
        if classes is not None and labels is None:
            labels = torch.full((len(states),), classes.null, device=states.device)
        return Conditions(hidden_states=states, added=added, class_labels=labels)


_Noises = Callable[[torch.Size], Tensor]


def _noises(seed: int, looks: Sequence[int]) -> _Noises:
    """Draw white noise (B, ...) for looks at held-out examples, each from its own generator."""
    generators = [generator_for(seed, "validation", look) for look in looks]

    def draw(shape: torch.Size) -> Tensor:
        return torch.stack([torch.randn(shape[1:], generator=each) for each in generators])

    return draw


def _zeroed_unless(text: Conditioning, told: Tensor) -> Conditioning:
    """Return text with zeros in the rows that are not `told` (B,)."""
    zeros = text.zeroed()
    states = torch.where(told[:, None, None], text.hidden_states, zeros.hidden_states)
    pooled = text.pooled
    if pooled is not None and zeros.pooled is not None:
        pooled = torch.where(told[:, None], pooled, zeros.pooled)
    return Conditioning(hidden_states=states, pooled=pooled)
