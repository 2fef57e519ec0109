"""The run from noise to latents: what the UNet is asked at each step, and how it is guided."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sd_pipeline.begin import Beginning, Source, begin_anew, begin_from
from sd_pipeline.conditions import script
from sd_pipeline.engine import Engine
from sd_pipeline.offload import Offload
from sd_pipeline.parts import Parts
from sd_pipeline.record import Record
from sd_pipeline.script import Conditions, Script
from sd_sampler import (
    BlendedNoise,
    Denoiser,
    Guidance,
    NoiseSource,
    Plan,
    Prediction,
    batch_sigma,
    compose,
    level_of,
    plan,
    prediction,
)
from sd_unet import FeatureReuse, features_reused, perturbed_attention, tokens_merged


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Step:
    """Hold how far a batch is: the number of its finished steps, and the latents it aims at.

    `x0` (B, C, h, w) are the denoiser's, scaled, as they would be decoded.
    """

    number: int
    num_steps: int
    x0: Tensor


OnStep = Callable[[Step], None]
"""Is told of each step when it is done; what it raises ends the run."""


def plan_of(parts: Parts, sampler: str, schedule: str | None, num_steps: int) -> Plan:
    """Return the plan of a run with a model's own diffusion process."""
    diffusion = parts.scheduler.diffusion
    return plan(sampler, schedule, diffusion.noise_schedule(), num_steps, diffusion.plan_options())


@dataclass(frozen=True, kw_only=True, slots=True)
class Denoising:
    """Run the denoiser on a device, in a dtype.

    `batch_invariant`: the UNet is asked for one picture at a time, so that what stands beside a
    picture does not change its last digits. `offload`: the networks are on the device only while
    they compute. `engine` computes the UNet.
    """

    parts: Parts
    device: torch.device
    dtype: torch.dtype
    batch_invariant: bool
    offload: Offload
    engine: Engine

    @torch.inference_mode()
    def __call__(
        self,
        record: Record,
        seeds: Sequence[int],
        source: Source | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return scaled latents (B, C, h, w), one a seed, from noise or from a picture."""
        noise = self._noise(record, seeds)
        planned = plan_of(self.parts, record.sampler, record.schedule, record.num_steps)
        begun = self._begun(planned, noise, source)
        first, num_steps = begun.plan.first_step, begun.plan.num_steps
        with self.offload.using(self.parts.text_encoder):
            told = script(self.parts, record, dtype=self.dtype, device=self.device)
        stage = _Stage(told=told.at(first + 1))

        def tell(step: int, _sigma: float, _x: Tensor, x0: Tensor) -> None:
            if step + 2 <= record.num_steps:
                done = step + 1 - first
                stage.go_on(told.at(step + 2), anew=done % record.reuse_features == 0)
            if on_step is not None:
                on_step(Step(number=step + 1 - first, num_steps=num_steps, x0=x0))

        groups = [slice(i, i + 1) for i in range(len(seeds))]
        if not self.batch_invariant:
            groups = [slice(0, len(seeds))]
        denoisers = [self._guided(begun, record, told, stage, group) for group in groups]

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            if not self.batch_invariant:
                return denoisers[0](x, sigma)
            level, parts = level_of(sigma), []
            for group, ask in zip(groups, denoisers, strict=True):
                parts.append(ask(x[group], batch_sigma(x[group], level)))
            return torch.cat(parts)

        with ExitStack() as kept:  # what the steps have in common
            kept.enter_context(self.offload.using(self.parts.unet))
            if record.reuse_features > 1:
                stage.reuse = kept.enter_context(features_reused(self.parts.unet))
            if record.merge_tokens:
                size = begun.x.shape[-2:]
                kept.enter_context(tokens_merged(self.parts.unet, record.merge_tokens, size))
            kept.enter_context(self.engine.run())
            return begun.plan.run(begun.bound(denoise), noise, x=begun.x, on_step=tell)

    def _begun(self, planned: Plan, noise: NoiseSource, source: Source | None) -> Beginning:
        encodes = source is not None or self.parts.task != "txt2img"
        with self.offload.using(self.parts.vae if encodes else None):
            if source is None:
                return begin_anew(self.parts, planned, noise, self.dtype)
            return begin_from(self.parts, planned, noise, source, self.dtype)

    def _noise(self, record: Record, seeds: Sequence[int]) -> NoiseSource:
        factor = self.parts.vae.config.downsampling
        channels = self.parts.vae.config.latent_channels
        shape = (channels, record.height // factor, record.width // factor)
        noise = NoiseSource(seeds, shape, self.device)
        blend = record.blend
        if blend is None or blend.seed is None:
            return noise
        others = [seed - record.seed + blend.seed for seed in seeds]
        return BlendedNoise(noise, others, blend.share)

    def _guided(
        self, begun: Beginning, record: Record, told: Script, stage: "_Stage", group: slice
    ) -> Denoiser:
        """Return the denoiser of some pictures: one call for all of a step's prompts together.

        `stage` says what is told now. Where there is no guidance the prompt is told alone.
        """
        asking = self._asking(begun, record, stage, group)
        alone = asking(_Rows(told=told.prompts))
        if not told.guided and not record.guidance.pag_scale:
            return alone
        guidance = Guidance(record.guidance, self._kind, begun.plan.sigmas, timesteps=begun.plan)

        def all_rows(x: Tensor, sigma: Tensor) -> Tensor:
            active, perturbs = guidance.active(sigma), guidance.pag_scale(sigma) > 0
            if not active and not perturbs and told.weights == (1.0,):
                return alone(x, sigma)
            rows = _Rows.of(told, blind=guidance.image_scale(sigma) != 1, perturbs=perturbs)
            number = len(rows.told)
            repeated = torch.cat([x] * number)
            levels = batch_sigma(repeated, level_of(sigma))
            x0s = asking(rows)(repeated, levels).chunk(number)
            blind = x0s[0] if rows.num_blind else None
            x0s = x0s[rows.num_blind :]
            # Without a negative prompt's row there is one prompt, which `compose` hands back.
            cond = compose(x0s[0], x0s[told.guided : told.num_rows], told.weights)
            if not active and not perturbs:
                return cond
            perturbed = compose(x0s[0], x0s[told.num_rows :], told.weights) if perturbs else None
            return guidance(x, sigma, x0s[0] if active else None, cond, perturbed, blind)

        return all_rows

    def _asking(
        self, begun: Beginning, record: Record, stage: "_Stage", group: slice
    ) -> "Callable[[_Rows], Denoiser]":
        """Return what makes denoisers of some pictures: of an x that is repeated for each row."""

        def asking(rows: _Rows) -> Denoiser:
            def network(x: Tensor, timesteps: Tensor) -> Tensor:
                num_pictures = len(begun.x[group])
                latents = begun.with_extra(x, group, rows.num_blind)
                if rows.alike:
                    latents, timesteps = latents[:num_pictures], timesteps[:num_pictures]
                now = stage.asked(rows, group)
                layers, number = record.guidance.pag_layers, rows.num_perturbed * num_pictures
                with perturbed_attention(self.parts.unet, layers, number):
                    return self.engine(
                        latents, timesteps, now.hidden_states, now.added, now.class_labels
                    )

            return begun.plan.denoiser(network, self._kind, dtype=self.dtype)

        return asking

    @property
    def _kind(self) -> Prediction:
        return prediction(self.parts.scheduler.diffusion.prediction)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """Hold what a step asks for: `told`, rows of its script by number, any of them repeatedly.

    The first `num_blind` are asked without the picture that a UNet may be shown, and the last
    `num_perturbed` with perturbed attention.
    """

    told: tuple[int, ...]
    num_blind: int = 0
    num_perturbed: int = 0

    @property
    def alike(self) -> bool:
        """Whether the UNet sees the same in every row, but for the text."""
        return not self.num_blind and not self.num_perturbed

    @classmethod
    def of(cls, told: Script, *, blind: bool, perturbs: bool) -> "_Rows":
        """Ask for all of a script, the negative prompt also `blind`, the prompts also perturbed."""
        again = told.prompts * perturbs
        return cls(
            told=(*(0,) * blind, *range(told.num_rows), *again),
            num_blind=int(blind),
            num_perturbed=len(again),
        )


@dataclass(slots=True)
class _Stage:
    """Where in its script a run is, and what it may use again."""

    told: Conditions
    reuse: FeatureReuse | None = None
    _laid_out: dict[tuple[tuple[int, ...], int], Conditions] = field(default_factory=dict)

    def go_on(self, told: Conditions, *, anew: bool) -> None:
        """Go to the next step; `anew` says that its features are not those of another."""
        if self.reuse is not None:
            self.reuse.anew = anew or told is not self.told
        if told is not self.told:
            self.told = told
            self._laid_out.clear()

    def asked(self, rows: _Rows, group: slice) -> Conditions:
        """Return what rows of some pictures are told, the same tensors for as long as they are."""
        number = group.stop - group.start
        if self.reuse is not None:
            self.reuse.question = rows, group.start
        key = rows.told, number
        if key not in self._laid_out:
            self._laid_out[key] = self.told.rows(rows.told).repeated(number)
        return self._laid_out[key]
