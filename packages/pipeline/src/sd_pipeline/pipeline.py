"""Text in, pictures out."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sd_checkpoint import load_json
from sd_ops import resolve_backend
from sd_pipeline.begin import Beginning, Source, begin_anew, begin_from
from sd_pipeline.conditions import Conditions, Script, check_prompt, script
from sd_pipeline.errors import PipelineError
from sd_pipeline.images import (
    blurred,
    bring_to,
    filled_up,
    flatten,
    mask_of,
    paste,
    pixel_hash,
    to_mask,
    to_pixels,
)
from sd_pipeline.model import Model
from sd_pipeline.parts import Parts, build
from sd_pipeline.picture import Picture, to_images
from sd_pipeline.record import Record
from sd_pipeline.request import Img2Img, Inpaint, Txt2Img
from sd_pipeline.source import open_model
from sd_sampler import (
    Denoiser,
    Guidance,
    GuidanceOptions,
    NoiseSource,
    Plan,
    compose,
    parse_sampler,
    parse_schedule,
    plan,
    prediction,
)
from sd_textenc import PromptReport

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
)
OnStep = Callable[[int, int], None]
"""Is told (finished steps of this batch, steps of a batch)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """What a request that leaves it open gets: a model's `sampling.json`."""

    num_steps: int = 20
    guidance_scale: float = 7.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """A model that is ready to draw.

    ``origin`` is what its records tell of where it came from: `model_hash`, `variant`, `use_ema`.
    """

    parts: Parts
    name: str
    device: torch.device
    dtype: torch.dtype
    attention: str = "auto"
    defaults: Defaults = Defaults()
    origin: Mapping[str, Any] = field(default_factory=dict)

    def check_prompt(self, prompt: str) -> PromptReport:
        """Report which words the model does not know, and how the prompt's syntax was taken."""
        return check_prompt(self.parts, prompt)

    def resolve(self, request: Txt2Img) -> Record:
        """Return the record of the request's first picture, every open setting filled in.

        Raises ``SamplerError`` for settings that the model's schedule cannot serve.
        """
        side = self.parts.unet.config.sample_size * self._factor
        width, height = request.width or side, request.height or side
        if isinstance(request, Img2Img):
            width, height = request.size
        sampler, schedule = self.parts.scheduler.sampler, self.parts.scheduler.schedule
        if request.sampler is not None:
            sampler, schedule = parse_sampler(request.sampler)
        if request.schedule is not None:
            schedule = parse_schedule(request.schedule)
        num_steps = request.num_steps or self.defaults.num_steps
        planned = self._plan(sampler, schedule, num_steps)
        scale = request.guidance_scale
        scale = self.defaults.guidance_scale if scale is None else scale
        return Record(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            width=width,
            height=height,
            num_steps=num_steps,
            sampler=sampler,
            schedule=planned.schedule,
            guidance_scale=scale,
            guidance=replace(request.guidance, scale=scale),
            seed=request.seed,
            model=self.name,
            dtype=str(self.dtype).removeprefix("torch."),
            device=str(self.device),
            attention=resolve_backend(self.attention, self.device, self.dtype),
            process=self.parts.scheduler.diffusion,
            edit=_edit(request),
            **self.origin,
        )

    def txt2img(self, request: Txt2Img, on_step: OnStep | None = None) -> Iterator[Picture]:
        """Draw ``request.count`` pictures, ``request.batch_size`` at a time, each when it is done.

        Picture i has seed ``request.seed + i`` and its own noise, whatever the batch.
        """
        return self._pictures(request, on_step)

    def img2img(self, request: Img2Img, on_step: OnStep | None = None) -> Iterator[Picture]:
        """Draw pictures from a picture: noise is added to its latents and taken out again.

        Seeds and batches are as in ``txt2img``. Raises ``PipelineError`` where the strength leaves
        no step, or for a model that edits in a way of its own.
        """
        image = bring_to(flatten(request.image), *request.size, request.fit)
        source = Source(pixels=to_pixels(image), strength=request.strength)
        return self._pictures(request, on_step, source=source)

    def inpaint(self, request: Inpaint, on_step: OnStep | None = None) -> Iterator[Picture]:
        """Draw a part of a picture anew, with an inpainting model or any other.

        An inpainting UNet sees the mask and what it leaves; for a plain one the rest of the picture
        is known at every step. Raises as ``img2img``.
        """
        image, mask = flatten(request.image), mask_of(request.mask or request.image)
        if request.width is not None or request.height is not None:
            image = bring_to(image, *request.size, request.fit)
            mask = bring_to(mask, *request.size, request.fit)
        source = Source(
            pixels=to_pixels(filled_up(image, self._factor)),
            strength=request.strength,
            mask=to_mask(filled_up(mask, self._factor)),
        )
        soft = blurred(mask, request.mask_blur)
        for picture in self._pictures(request, on_step, source=source):
            drawn = picture.image.crop((0, 0, *image.size))
            finished = paste(image, drawn, soft) if request.keep_outside else drawn
            yield replace(picture, image=finished)

    def _pictures(
        self, request: Txt2Img, on_step: OnStep | None, *, source: Source | None = None
    ) -> Iterator[Picture]:
        record = self.resolve(request)
        if source is not None:
            height, width = source.pixels.shape[-2:]
            record = replace(record, width=width, height=height)
        seeds = range(request.seed, request.seed + request.count)
        for start in range(0, request.count, request.batch_size):
            batch = seeds[start : start + request.batch_size]
            record = replace(record, batch_seed=batch[0], batch_size=len(batch))
            started = time.perf_counter()
            images = self.decode(self._denoise(record, batch, source, on_step))
            seconds = (time.perf_counter() - started) / len(batch)
            for seed, image in zip(batch, images, strict=True):
                yield Picture(image=image, record=record.with_seed(seed), seconds=seconds)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Turn scaled latents (B, C, H, W) into 8-bit RGB images of f times their size."""
        vae = self.parts.vae
        return to_images(vae.decode(vae.unscale(latents)))

    @torch.inference_mode()
    def _denoise(
        self,
        record: Record,
        seeds: Sequence[int],
        source: Source | None,
        on_step: OnStep | None,
    ) -> Tensor:
        planned = self._plan(record.sampler, record.schedule, record.num_steps)
        shape = (
            self.parts.vae.config.latent_channels,
            record.height // self._factor,
            record.width // self._factor,
        )
        noise = NoiseSource(seeds, shape, self.device)
        if source is None:
            begun = begin_anew(self.parts, planned, noise, self.dtype)
        else:
            begun = begin_from(self.parts, planned, noise, source, self.dtype)
        first, num_steps = begun.plan.first_step, begun.plan.num_steps
        told = script(self.parts, record, dtype=self.dtype).repeated(len(seeds))
        stage = _Stage(told=told.at(first + 1))

        def tell(step: int, _sigma: float, _x: Tensor, _x0: Tensor) -> None:
            if step + 2 <= record.num_steps:
                stage.told = told.at(step + 2)
            if on_step is not None:
                on_step(step + 1 - first, num_steps)

        denoise = self._guided(begun, record.guidance, told, stage)
        return begun.plan.run(begun.bound(denoise), noise, x=begun.x, on_step=tell)

    def _guided(
        self, begun: Beginning, options: GuidanceOptions, told: Script, stage: "_Stage"
    ) -> Denoiser:
        """Return the denoiser of a script: one call for all of a step's prompts together.

        `stage` says what is told now. Where there is no guidance the prompt is told alone.
        """
        extra = None if begun.extra is None else torch.cat([begun.extra] * told.num_rows)

        def network(x: Tensor, timesteps: Tensor) -> Tensor:
            latents = x if extra is None else torch.cat([x, extra[-len(x) :]], dim=1)
            now = stage.told.last(len(x))
            output: Tensor = self.parts.unet(latents, timesteps, now.hidden_states, now.added)
            return output

        kind = prediction(self.parts.scheduler.diffusion.prediction)
        denoise = begun.plan.denoiser(network, kind, dtype=self.dtype)
        if not told.guided:
            return denoise

        guidance = Guidance(options, kind, begun.plan.sigmas)

        def all_rows(x: Tensor, sigma: Tensor) -> Tensor:
            active, rows = guidance.active(sigma), told.num_rows
            if not active and told.weights == (1.0,):
                return denoise(x, sigma)
            x0 = denoise(torch.cat([x] * rows), torch.cat([sigma] * rows))
            uncond, *conds = x0.chunk(rows)
            cond = compose(uncond, conds, told.weights)
            return guidance(x, sigma, uncond, cond) if active else cond

        return all_rows

    def _plan(self, sampler: str, schedule: str | None, num_steps: int) -> Plan:
        diffusion = self.parts.scheduler.diffusion
        return plan(
            sampler, schedule, diffusion.noise_schedule(), num_steps, diffusion.plan_options()
        )

    @property
    def _factor(self) -> int:
        return self.parts.vae.config.downsampling


@dataclass(slots=True)
class _Stage:
    """Where in its script a run is."""

    told: Conditions


def _edit(request: Txt2Img) -> dict[str, Any]:
    if not isinstance(request, Img2Img):
        return {}
    edit: dict[str, Any] = {
        "source": pixel_hash(request.image),
        "strength": request.strength,
        "fit": request.fit,
        "width": request.width,
        "height": request.height,
    }
    if isinstance(request, Inpaint):
        edit |= {
            "mask": None if request.mask is None else pixel_hash(request.mask),
            "mask_blur": request.mask_blur,
            "keep_outside": request.keep_outside,
        }
    return edit


def load_pipeline(
    model: Path | Model,
    *,
    name: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "auto",
    defaults: Defaults | None = None,
) -> Pipeline:
    """Open a model's folder, file, or what `open_model` made of one, on `device`.

    `device` "auto" is CUDA, MPS or CPU, the first there is. `dtype` is fp32, fp16, bf16 or "auto":
    fp16 on CUDA, fp32 elsewhere. `attention` is a backend of sd_ops. `defaults` are, unless given,
    the path's own or else the family's. Raises `PipelineError` for a
    device or dtype that cannot be had, `AttentionUnavailable` for a backend that cannot run there,
    and what `open_model` and `build` raise.
    """
    place = resolve_device(device)
    precision = resolve_dtype(dtype, place)
    resolve_backend(attention, place, precision)
    path = model if isinstance(model, Path) else None
    opened = open_model(model) if isinstance(model, Path) else model
    parts = build(opened, dtype=precision)
    for module in (parts.unet, parts.vae, parts.text_encoder):
        module.to(place)
    parts.unet.set_attention_backend(attention)
    parts.vae.set_attention_backend(attention)
    return Pipeline(
        parts=parts,
        name=name or (path.resolve().name if path else "model"),
        device=place,
        dtype=precision,
        attention=attention,
        defaults=defaults or (path and read_defaults(path)) or _family_defaults(parts),
    )


def resolve_device(name: str) -> torch.device:
    """Return the device called ``name``; raises ``PipelineError`` when there is no such device."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise PipelineError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}); "
            "try --device cpu or auto"
        ) from error
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype called ``name``; raises ``PipelineError`` for an unknown one."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise PipelineError(f"dtype is {name!r}; it must be auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def _family_defaults(parts: Parts) -> Defaults:
    return Defaults(guidance_scale=parts.family.guidance_scale)


def read_defaults(folder: Path) -> Defaults | None:
    """Return what a model's `sampling.json` says, None where there is none."""
    path = folder / "sampling.json"
    if not path.is_file():
        return None
    values = load_json(path)
    try:
        return Defaults(**values)
    except TypeError as error:
        raise PipelineError(
            f"{path} holds {', '.join(values)}; it may hold num_steps and guidance_scale"
        ) from error
