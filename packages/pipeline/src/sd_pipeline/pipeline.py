"""Text in, pictures out."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sd_ops import resolve_backend, use_fast_paths
from sd_pipeline.adapter_use import AdapterUse
from sd_pipeline.adapting import AdapterShelf
from sd_pipeline.autoencoding import Tiling, decode_latents
from sd_pipeline.begin import Source
from sd_pipeline.class_script import class_script
from sd_pipeline.classes import class_asked
from sd_pipeline.compiled_unet import CompiledUNet
from sd_pipeline.conditions import check_clip_skip, check_prompt
from sd_pipeline.defaults import Defaults, family_defaults, read_defaults
from sd_pipeline.denoising import Denoising, OnStep, plan_of
from sd_pipeline.edits import edit_of, img2img_source, inpaint_source, set_back
from sd_pipeline.engine import Engine, EngineName, PlainUNet, check_engine, check_request
from sd_pipeline.errors import PipelineError
from sd_pipeline.graphed_unet import GraphedUNet
from sd_pipeline.model import Model
from sd_pipeline.offload import Offload
from sd_pipeline.openvino_unet import OpenVINOUNet, check_convertible, check_openvino
from sd_pipeline.parts import Parts, build
from sd_pipeline.picture import Picture
from sd_pipeline.precision import resolve_dtype
from sd_pipeline.preview import fit_preview
from sd_pipeline.record import Record, engine_versions
from sd_pipeline.request import Img2Img, Inpaint, Outpaint, Txt2Img
from sd_pipeline.seamless import seamless
from sd_pipeline.settled import settled
from sd_pipeline.source import locate, open_model
from sd_pipeline.tiny_vae import TinyVAE, open_tiny_vae
from sd_sampler import parse_sampler, parse_schedule
from sd_textenc import PromptReport
from sd_unet import Backbone, features_reused, self_attentions, tokens_merged


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """A model that is ready to draw.

    ``origin`` is what its records tell of where it came from: `model_hash`, `variant`, `use_ema`.
    ``batch_invariant``: pictures do not depend, to the bit, on those of the same batch. ``tiling``:
    large pictures go through the autoencoder in bands of rows. ``fuse``: LoRAs are written into the
    weights while they are used; ``shelf`` keeps the adapters that were opened. ``int8`` says that
    the UNet holds its weights in eight bits. ``tiny_vae`` draws in place of the autoencoder's
    decoder, which is not exact, and shows what a run aims at. ``offload``: the networks are in the
    CPU's memory but while they compute, one at a time. ``unet_engine`` computes in the UNet's
    place. Raises ``PipelineError`` for ``fuse`` with ``int8``.
    """

    parts: Parts
    name: str
    device: torch.device
    dtype: torch.dtype
    attention: str = "auto"
    batch_invariant: bool = False
    tiling: Tiling = "auto"
    fuse: bool = False
    int8: bool = False
    tiny_vae: TinyVAE | None = None
    offload: bool = False
    unet_engine: Engine | None = None
    defaults: Defaults = field(default_factory=Defaults)
    origin: Mapping[str, Any] = field(default_factory=dict)
    shelf: AdapterShelf = field(default_factory=AdapterShelf, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.fuse and self.int8:
            raise PipelineError(
                "LoRAs cannot be written into weights that are held as int8; leave out --fuse, and "
                "they ride on top, or leave out --int8"
            )

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "auto",
        variant: str | None = None,
        int8: bool = False,
        offload: bool = False,
        engine: str = "torch",
    ) -> "Pipeline":
        """Open a folder, a file, or a model of the Hub, ready to draw.

        A name of the Hub, `org/name`, is taken from the cache or downloaded. Raises as
        `load_pipeline` and `locate`.
        """
        path = locate(str(model), variant=variant)
        return load_pipeline(
            open_model(path, variant=variant),
            name=str(model),
            device=device,
            dtype=dtype,
            attention=attention,
            defaults=read_defaults(path),
            int8=int8,
            offload=offload,
            engine=engine,
        )

    def check_prompt(self, prompt: str, adapters: Sequence[AdapterUse] = ()) -> PromptReport:
        """Report which words the model does not know, and how the prompt's syntax was taken.

        Raises as `AdapterShelf.attached`.
        """
        with self.shelf.attached(self.parts, adapters):
            return check_prompt(self.parts, prompt)

    def resolve(self, request: Txt2Img) -> Record:
        """Return the record of the request's first picture, every open setting filled in.

        Raises ``SamplerError`` for settings that the model's schedule cannot serve, and
        ``UNetInputError`` for layers to perturb that it has not, ``TextEncoderError`` for more
        layers to skip than it has, ``PipelineError`` for an adapter's file that is not there, for
        a class that the model has not, for what the engine cannot do, and as `settled` for what is
        not for this model.
        """
        request = settled(request, self.parts.task)
        check_request(self.engine, request)
        if self.engine == "openvino":
            check_convertible(request, fuse=self.fuse)
        side = self.parts.unet.config.sample_size * self.factor
        width, height = request.width or side, request.height or side
        if isinstance(request, Img2Img):
            width, height = request.size
        sampler, schedule = self.parts.scheduler.sampler, self.parts.scheduler.schedule
        if request.sampler is not None:
            sampler, schedule = parse_sampler(request.sampler)
        if request.schedule is not None:
            schedule = parse_schedule(request.schedule)
        check_clip_skip(self.parts, request.clip_skip)
        if request.reuse_features > 1:
            with features_reused(self.parts.unet):  # raises for a network that has no levels
                pass
        if request.merge_tokens:
            with tokens_merged(self.parts.unet, 0.0, (1, 1)):  # likewise
                pass
        if request.guidance.pag_scale:
            self_attentions(self.parts.unet, request.guidance.pag_layers)  # raises for none
        scale = request.guidance_scale
        scale = self.defaults.guidance_scale if scale is None else scale
        num_steps = request.num_steps or self.defaults.num_steps
        classes, has_text = self.parts.classes, self.parts.text_encoder is not None
        record = Record(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            width=width,
            height=height,
            num_steps=num_steps,
            sampler=sampler,
            schedule=plan_of(self.parts, sampler, schedule, num_steps).schedule,
            guidance_scale=scale,
            guidance=replace(request.guidance, scale=scale),
            seed=request.seed,
            model=self.name,
            dtype=str(self.dtype).removeprefix("torch."),
            device=str(self.device),
            attention=self._attention(),
            process=self.parts.scheduler.diffusion,
            edit=edit_of(request),
            blend=request.blend,
            seamless=request.seamless,
            clip_skip=request.clip_skip,
            class_name=class_asked(classes, request.prompt, request.class_name, has_text=has_text),
            adapters=tuple(self.shelf.known(use) for use in request.adapters),
            reuse_features=request.reuse_features,
            merge_tokens=request.merge_tokens,
            batch_invariant=self.batch_invariant,
            tiling=self.tiling,
            int8=self.int8,
            engine=self.engine,
            versions=engine_versions(self.engine),
            tiny_vae=None if self.tiny_vae is None else self.tiny_vae.path,
            tiny_vae_hash=None if self.tiny_vae is None else self.tiny_vae.sha256,
            **self.origin,
        )
        if classes is not None and not has_text:
            class_script(classes, record)  # raises for what is no class
        return record

    def _attention(self) -> str:
        if self.engine == "openvino":
            return "sdpa"  # as the graph is made of it
        return resolve_backend(self.attention, self.device, self.dtype)

    def draw(self, request: Txt2Img, on_step: OnStep | None = None) -> Iterator[Picture]:
        """Draw what a request of any kind asks for."""
        match request:
            case Outpaint():
                return self.outpaint(request, on_step)
            case Inpaint():
                return self.inpaint(request, on_step)
            case Img2Img():
                return self.img2img(request, on_step)
        return self.txt2img(request, on_step)

    def txt2img(self, request: Txt2Img, on_step: OnStep | None = None) -> Iterator[Picture]:
        """Draw ``request.count`` pictures, ``request.batch_size`` at a time, each when it is done.

        Picture i has seed ``request.seed + i`` and its own noise, whatever the batch.
        """
        return self._pictures(request, self.resolve(request), None, on_step)

    def img2img(self, request: Img2Img, on_step: OnStep | None = None) -> Iterator[Picture]:
        """Draw pictures from a picture: noise is added to its latents and taken out again.

        A model that edits by instructions begins with noise alone, and is shown the picture at
        every step; one that draws by depth is shown the request's depth map. Seeds and batches are
        as in ``txt2img``. Raises ``PipelineError`` as ``resolve``, and where the strength leaves no
        step.
        """
        request = settled(request, self.parts.task)
        source = img2img_source(request, self.factor, self.tiling)
        return self._pictures(request, self.resolve(request), source, on_step)

    def inpaint(self, request: Inpaint, on_step: OnStep | None = None) -> Iterator[Picture]:
        """Draw a part of a picture anew, with an inpainting model or any other.

        An inpainting UNet sees the mask and what it leaves; for a plain one the rest of the picture
        is known at every step. Raises as ``img2img``.
        """
        request = settled(request, self.parts.task)
        record = self.resolve(request)
        side = self.parts.unet.config.sample_size * self.factor
        source, place = inpaint_source(request, self.factor, side, self.tiling)
        height, width = source.pixels.shape[-2:]
        record = replace(record, width=width, height=height)
        for picture in self._pictures(request, record, source, on_step):
            yield replace(picture, image=set_back(picture.image, place))

    def outpaint(self, request: Outpaint, on_step: OnStep | None = None) -> Iterator[Picture]:
        """Draw what lies beyond the sides of a picture. Raises as ``img2img``."""
        edit = edit_of(request)
        for picture in self.inpaint(request.as_inpaint(), on_step):
            yield replace(picture, record=replace(picture.record, edit=edit))

    def _pictures(
        self, request: Txt2Img, record: Record, source: Source | None, on_step: OnStep | None
    ) -> Iterator[Picture]:
        tiny = () if self.tiny_vae is None else (self.tiny_vae.decoder,)
        networks = self.parts.unet, self.parts.vae, *tiny
        seeds = range(request.seed, request.seed + request.count)
        for start in range(0, request.count, request.batch_size):
            batch = seeds[start : start + request.batch_size]
            record = replace(record, batch_seed=batch[0], batch_size=len(batch))
            started = time.perf_counter()
            adapted = self.shelf.attached(
                self.parts,
                request.adapters,
                fuse=self.fuse,
                device=self.device if self.offload else None,
            )
            with adapted, seamless(request.seamless, *networks):
                images = self.decode(self._denoising(record, batch, source, on_step))
            seconds = (time.perf_counter() - started) / len(batch)
            for seed, image in zip(batch, images, strict=True):
                yield Picture(image=image, record=record.with_seed(seed), seconds=seconds)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Turn scaled latents (B, C, h, w) into 8-bit RGB images of f times their size."""
        size = 1 if self.batch_invariant else len(latents)
        groups = (latents[start : start + size] for start in range(0, len(latents), size))
        if self.tiny_vae is not None:
            return [image for group in groups for image in self.tiny_vae.decode(group)]
        vae = self.parts.vae
        with self._offload.using(vae):
            return [image for group in groups for image in decode_latents(vae, group, self.tiling)]

    def previewer(self) -> Callable[[Tensor], list[Image.Image]]:
        """Return what shows scaled latents (B, C, h, w) while they are on their way.

        That is the tiny autoencoder where there is one, else a linear map to images of h x w pixels
        that is fitted now.
        """
        if self.tiny_vae is not None:
            return self.tiny_vae.decode
        with self._offload.using(self.parts.vae):
            return fit_preview(self.parts.vae)

    def with_tiny_vae(self, path: str | Path) -> "Pipeline":
        """Return it drawing through a tiny autoencoder; raises as `open_tiny_vae`."""
        vae = self.parts.vae.config
        tiny = open_tiny_vae(path, vae, device=self.device, dtype=self.dtype)
        return replace(self, tiny_vae=tiny)

    @property
    def engine(self) -> EngineName:
        """The name of what computes the UNet."""
        return "torch" if self.unet_engine is None else self.unet_engine.name

    @property
    def factor(self) -> int:
        """How many pixels a latent has on a side."""
        return self.parts.vae.config.downsampling

    @property
    def _denoising(self) -> Denoising:
        return Denoising(
            parts=self.parts,
            device=self.device,
            dtype=self.dtype,
            batch_invariant=self.batch_invariant,
            offload=self._offload,
            engine=self.unet_engine or PlainUNet(self.parts.unet),
        )

    @property
    def _offload(self) -> Offload:
        return Offload(device=self.device, active=self.offload)


def load_pipeline(
    model: str | Path | Model,
    *,
    name: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "auto",
    batch_invariant: bool = False,
    defaults: Defaults | None = None,
    int8: bool = False,
    offload: bool = False,
    engine: str = "torch",
) -> Pipeline:
    """Open a model's folder, file, or what `open_model` made of one, on `device`.

    `device` "auto" is CUDA, MPS or CPU, the first there is. `dtype` is fp32, fp16, bf16 or "auto",
    as `resolve_dtype` has it. `attention` is a backend of sd_ops. `batch_invariant` is the
    pipeline's. `defaults` are, unless given, the path's own or else the family's. With `int8` the
    UNet's weights are held in eight bits a value, a quarter of fp32: not exact, and slower. With
    `offload` networks are on `device` only while they compute; of a CPU it is nothing. `engine`
    computes the UNet, with the same numbers to rounding: "compiled" by torch.compile, on CUDA also
    recorded; "graphs" recorded on CUDA; "openvino" on a CPU. Raises
    `PipelineError` for a device, dtype or engine that cannot be had, `AttentionUnavailable` for a
    backend that cannot run there, and what `open_model` and `build` raise.
    """
    place = resolve_device(device)
    if dtype != "auto":
        resolve_dtype(dtype, place)  # raises for a wrong name before a model is opened
    path = Path(model) if isinstance(model, str | Path) else None
    opened = open_model(Path(model)) if isinstance(model, str | Path) else model
    precision = resolve_dtype(dtype, place, opened.unet.config)
    resolve_backend(attention, place, precision)
    offloading = Offload(device=place, active=offload and place.type != "cpu")
    check_engine(engine, device=place, offload=offloading.active)
    if engine == "openvino":
        check_openvino(device=place, dtype=precision, attention=attention, int8=int8)
    parts = build(opened, dtype=precision, int8=int8)
    if not offloading.active:
        for module in parts.networks:
            module.to(place)
    for network in (parts.unet, parts.vae):
        with offloading.using(network):  # a backend is asked whether it runs where the weights are
            network.set_attention_backend(attention)
        use_fast_paths(network)
    return Pipeline(
        parts=parts,
        name=name or (path.resolve().name if path else "model"),
        device=place,
        dtype=precision,
        attention=attention,
        batch_invariant=batch_invariant,
        int8=int8,
        offload=offloading.active,
        unet_engine=_engine(engine, parts.unet, place),
        defaults=defaults or (path and read_defaults(path)) or family_defaults(parts),
    )


def _engine(name: str, unet: Backbone, device: torch.device) -> Engine | None:
    """Return what computes a network that is on its device, None for itself."""
    match name:
        case "compiled" if device.type == "cpu":
            return CompiledUNet(unet)
        case "compiled" | "graphs":
            return GraphedUNet(unet, compiled=name == "compiled")
        case "openvino":  # its graph is made of plain layers
            use_fast_paths(unet, False)
            unet.set_attention_backend("sdpa")
            return OpenVINOUNet(unet)
    return None


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
