"""What every finetuner begins with: a model on its device, and pictures with their latents."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from sd_ops import use_fast_paths
from sd_pipeline import Defaults, Parts, Pipeline, build, locate, open_model, read_defaults
from sd_train.buckets import place
from sd_train.cache import Rows
from sd_train.data import PictureFolder, check_sizes, describe
from sd_train.data_buckets import check_buckets
from sd_train.encoded import posteriors, run_cache, text_table
from sd_train.errors import TrainError
from sd_train.finetune_config import FinetuneConfig
from sd_train.latents import DenoiserSource, smallest_step
from sd_train.precision import EXPORT_DTYPES, autocast, memory_format, resolve_device
from sd_train.reporter import Reporter

ConfigT = TypeVar("ConfigT", bound=FinetuneConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class Base(Generic[ConfigT]):
    """A model, nothing of which learns yet, with the settings and the folder of a run.

    `path` is where the model lies.
    """

    config: ConfigT
    parts: Parts
    path: Path
    run_folder: Path
    reporter: Reporter

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.parts.unet.conv_in.weight.device

    def with_config(self, config: ConfigT) -> "Base[ConfigT]":
        """Return it with settings of which more is decided."""
        return replace(self, config=config)

    def source(
        self, folder: PictureFolder, texts: Sequence[Sequence[str]], *, live: bool = False
    ) -> DenoiserSource:
        """Prepare pictures with their texts, any of one picture's for it.

        `live` text is encoded at every step, as it must be where the text's side learns. Latents
        are made once, unless pictures are mirrored at random.
        """
        cache = run_cache(self.run_folder / "cache", folder.config, self.reporter)
        parts = self.parts
        check_buckets(folder.sizes, folder.config, smallest_step(parts.unet, parts.vae))
        latents: dict[str, Tensor | Rows] = {}
        if not folder.config.flip:
            precision = self.config.trainer.precision
            # SDXL's autoencoder overflows in fp16.
            safe = "fp32" if parts.vae.config.force_upcast and precision == "fp16" else precision
            latents = posteriors(parts.vae, folder, safe, cache, self.reporter)
        table = text_table(
            parts.text,
            texts,
            cache,
            self.reporter,
            live=live,
            zeros_for_empty=parts.zeros_for_empty,
        )
        sizes = told_sizes(folder) if parts.unet.config.takes_sizes else None
        return DenoiserSource(folder, latents, table, sizes)

    def drawing(self) -> AbstractContextManager[object]:
        """Open the context to draw in: half precision where whole weights lie in fp32.

        The others are in the precision in which they draw already.
        """
        whole = self.parts.unet.conv_in.weight.dtype == torch.float32
        if whole and not self.parts.vae.config.force_upcast:
            return autocast(self.config.trainer.precision, self.device)
        return torch.autocast(self.device.type, enabled=False)

    def pipeline(self) -> Pipeline:
        """Return what draws with the networks as they are."""
        defaults = Defaults(guidance_scale=self.parts.family.guidance_scale)
        return Pipeline(
            parts=self.parts,
            name=self.config.model,
            device=self.device,
            dtype=self.parts.unet.conv_in.weight.dtype,
            attention=self.config.attention,
            defaults=read_defaults(self.path) or defaults,
        )


def open_base(
    config: ConfigT, run_folder: Path, reporter: Reporter, *, whole: Collection[str] = ()
) -> Base[ConfigT]:
    """Load a model to be finetuned, frozen, on its device.

    In half precision what stays frozen is kept in it, which saves memory; on a CPU in bfloat16
    alone, for it is slow in float16. The networks named in `whole` ("unet", "text_encoder"), of
    which all learns, stay fp32. Raises TrainError for a model that text alone does not tell what to
    draw, and what `open_model` raises.
    """
    device = resolve_device(config.trainer.device)
    path = locate(config.model)
    parts = build(open_model(path))
    if parts.task != "txt2img" or parts.family.name == "sdxl-refiner":
        what = "a refiner" if parts.family.name == "sdxl-refiner" else f"for {parts.task}"
        raise TrainError(f"model = {config.model!r} is {what}; name a text-to-image model")
    if parts.text_encoder is None:
        raise TrainError(
            f"model = {config.model!r} is told classes and hears no text; name a text-to-image "
            "model, or let this one learn on by train with init_from"
        )
    half = EXPORT_DTYPES[config.trainer.precision]
    if device.type == "cpu" and half == torch.float16:
        half = torch.float32
    layout = memory_format(config.trainer.channels_last)
    for name, module in (("unet", parts.unet), ("text_encoder", parts.text)):
        module.to(device, torch.float32 if name in whole else half)
    parts.vae.to(device)
    for network in (parts.unet, parts.vae):
        network.to(memory_format=layout)
        network.set_attention_backend(config.attention)
        use_fast_paths(network)
    parts.unet.gradient_checkpointing = config.gradient_checkpointing
    check_sizes(config.data, parts.vae.config.downsampling)
    return Base(config=config, parts=parts, path=path, run_folder=run_folder, reporter=reporter)


def open_pictures(config: FinetuneConfig, reporter: Reporter) -> PictureFolder:
    """Read the pictures of a run and tell of them."""
    folder = PictureFolder(config.data)
    for line in describe(folder):
        reporter.message(line)
    if not folder.held_out:
        reporter.message(
            "no picture is held out, so no loss will say when to stop: look at the samples, or set "
            "data.holdout = 1"
        )
    return folder


def told_sizes(folder: PictureFolder) -> Tensor:
    """Return what SDXL is told of each picture (N, 6): its size, the window's corner and size.

    Podell et al., arXiv:2307.01952, section 2.2; height before width, top before left.
    """
    rows = []
    for picture, (width, height) in zip(folder.report.used, folder.sizes, strict=True):
        window = place(picture.width, picture.height, (width, height))
        rows.append((picture.height, picture.width, window.top, window.left, height, width))
    return torch.tensor(rows, dtype=torch.float32)
