"""Building a denoiser run: load what is frozen, make what is new, fill the caches."""

from pathlib import Path

import torch
from torch import Tensor

from sd_ops import use_fast_paths
from sd_pipeline import Classes, Parts, PipelineError, Scheduler, load_unet, load_vae
from sd_sampler import DiffusionConfig
from sd_textenc import TextTower
from sd_train.begun import differences
from sd_train.cache import Rows
from sd_train.config import DenoiserTrainConfig, ScheduleSettings
from sd_train.data import PictureFolder, check_sizes, describe
from sd_train.data_buckets import check_buckets
from sd_train.encoded import posteriors, run_cache, text_table
from sd_train.errors import TrainError
from sd_train.label_table import LabelTable
from sd_train.latents import DenoiserSource, smallest_step
from sd_train.precision import memory_format, resolve_device
from sd_train.reporter import Reporter, SilentReporter
from sd_train.seeds import derive_seed
from sd_train.settings import build_network_config, field_values
from sd_train.tasks.denoiser import DenoiserTask
from sd_train.text import build_text_encoder
from sd_unet import (
    Backbone,
    DiT,
    DiTConfig,
    UNetConfig,
    build_backbone,
    dit_scenes,
    dit_xl_2,
    scenes,
    sd15,
)
from sd_vae import AutoencoderKL

UNETS = {"sd15": sd15, "scenes": scenes}
TEXTLESS_UNETS = {
    "sd15": lambda: sd15().without_text(),
    "scenes": lambda: scenes().without_text(),
}
DITS = {"xl2": dit_xl_2, "scenes": dit_scenes}


def build_denoiser_task(
    config: DenoiserTrainConfig,
    cache_folder: Path | None = None,
    reporter: Reporter | None = None,
) -> DenoiserTask:
    """Read the data, load or make the networks on their device, and fill the caches.

    `cache_folder` keeps what frozen encoders say of the data; without it memory alone does.
    """
    reporter = reporter or SilentReporter()
    device = resolve_device(config.trainer.device)
    layout = memory_format(config.trainer.channels_last)
    vae = load_vae(Path(config.vae)).to(device).to(memory_format=layout)
    check_sizes(config.data, vae.config.downsampling)
    folder = PictureFolder(config.data)
    for line in describe(folder):
        reporter.message(line)
    _check_samples(config, folder.classes)
    encoder, text = None, config.text
    if text is not None:
        encoder, text = build_text_encoder(text, folder.captions, config.trainer.seed)
    unet = _unet(config, vae, encoder, folder.classes)
    resolved_unet = config.unet.model_copy(update={"fields": field_values(unet.config)})
    config = config.model_copy(update={"text": text, "unet": resolved_unet})
    if folder.classes is not None:  # by name, so that their numbers stay when pictures change
        data = config.data.model_copy(update={"classes": folder.classes.names})
        config = config.model_copy(update={"data": data})
    check_buckets(folder.sizes, config.data, smallest_step(unet, vae))
    unet.to(device).to(memory_format=layout)
    unet.set_attention_backend(config.attention)
    vae.set_attention_backend(config.attention)
    unet.gradient_checkpointing = config.gradient_checkpointing
    use_fast_paths(unet)
    use_fast_paths(vae)
    parts = Parts(
        unet=unet,
        vae=vae,
        text_encoder=None if encoder is None else encoder.to(device),
        scheduler=_scheduler(config.schedule, config.objective.prediction),
        classes=folder.classes,
    )
    if config.init_from and (line := differences(config.init_from, parts.scheduler.diffusion)):
        reporter.message(line)
    cache = run_cache(cache_folder, config.data, reporter)
    table = None
    if encoder is not None and text is not None:
        texts = folder.in_orders(folder.captions, config.trainer.seed)
        table = text_table(encoder, texts, cache, reporter, live=text.train)
    latents: dict[str, Tensor | Rows] = {}
    if config.cache_latents:
        latents = posteriors(vae, folder, config.trainer.precision, cache, reporter)
    source = DenoiserSource(folder, latents, table, labels=label_table(folder))
    return DenoiserTask(parts, source, config)


def label_table(folder: PictureFolder) -> LabelTable | None:
    """Return the classes of a folder's pictures, None where they have none."""
    if folder.classes is None:
        return None
    labels = torch.tensor(folder.labels, dtype=torch.long)
    return LabelTable(labels=labels, null=folder.classes.null, dropout=folder.config.label_dropout)


def _check_samples(config: DenoiserTrainConfig, classes: Classes | None) -> None:
    """Refuse prompts that are no classes before the run where nothing else is heard."""
    if config.text is not None or classes is None:
        return
    try:
        for prompt in config.samples.prompts:
            classes.number(prompt)
    except PipelineError as error:
        raise TrainError(f"samples.prompts: {error}") from error


def _unet(
    config: DenoiserTrainConfig,
    vae: AutoencoderKL,
    encoder: TextTower | None,
    classes: Classes | None,
) -> Backbone:
    joints: dict[str, int | None] = {
        "in_channels": vae.config.latent_channels,
        "out_channels": vae.config.latent_channels,
        "cross_attention_dim": None if encoder is None else encoder.config.hidden_size,
        "num_class_embeds": None if classes is None else classes.null + 1,
    }
    if config.init_from:
        unet = load_unet(Path(config.init_from)).requires_grad_(True)
        if isinstance(unet, DiT) != (config.arch == "dit"):
            raise TrainError(
                f"init_from = {config.init_from!r} holds a {type(unet).__name__}, but "
                f"arch = {config.arch!r}; make them one"
            )
    else:
        sample_size = (config.data.crop or config.data.size) // vae.config.downsampling
        fields = {"sample_size": sample_size, **joints, **config.unet.fields}
        network: UNetConfig | DiTConfig
        if config.arch == "dit":
            network = build_network_config(DiTConfig, DITS, config.unet.preset, fields, at="unet")
        else:
            presets = UNETS if encoder is not None else TEXTLESS_UNETS
            network = build_network_config(
                UNetConfig, presets, config.unet.preset, fields, at="unet"
            )
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(config.trainer.seed, "init", 0))
            unet = build_backbone(network)
    for name, wanted in joints.items():
        if getattr(unet.config, name) != wanted:
            raise TrainError(
                f"the UNet's {name} is {getattr(unet.config, name)}, but the autoencoder, text "
                f"encoder and classes of this run need {wanted}; take networks that belong together"
            )
    return unet


def _scheduler(settings: ScheduleSettings, prediction: str) -> Scheduler:
    diffusion = DiffusionConfig(
        schedule=settings.name,
        num_timesteps=settings.num_timesteps,
        beta_start=settings.beta_start,
        beta_end=settings.beta_end,
        zero_terminal_snr=settings.zero_terminal_snr,
        prediction=prediction,
    )
    return Scheduler(diffusion=diffusion)
