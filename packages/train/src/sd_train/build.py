"""Building a denoiser run: load what is frozen, make what is new, fill the caches."""

from pathlib import Path

import torch
from torch import Tensor

from sd_pipeline import Parts, Scheduler, load_unet, load_vae
from sd_sampler import DiffusionConfig
from sd_textenc import TextTower
from sd_train.config import DenoiserTrainConfig, ScheduleSettings
from sd_train.data import PictureFolder, check_sizes, describe
from sd_train.data_buckets import check_buckets
from sd_train.encoded import posteriors, text_table
from sd_train.errors import TrainError
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
    encoder, text = build_text_encoder(config.text, folder.captions, config.trainer.seed)
    unet = _unet(config, vae, encoder)
    resolved_unet = config.unet.model_copy(update={"fields": field_values(unet.config)})
    config = config.model_copy(update={"text": text, "unet": resolved_unet})
    check_buckets(folder.sizes, config.data, smallest_step(unet, vae))
    unet.to(device).to(memory_format=layout)
    unet.set_attention_backend(config.attention)
    vae.set_attention_backend(config.attention)
    parts = Parts(
        unet=unet,
        vae=vae,
        text_encoder=encoder.to(device),
        scheduler=_scheduler(config.schedule, config.objective.prediction),
    )
    texts = [[caption] for caption in folder.captions]
    table = text_table(encoder, texts, cache_folder, reporter, live=config.text.train)
    latents: dict[str, Tensor] = {}
    if config.cache_latents:
        latents = posteriors(vae, folder, config.trainer.precision, cache_folder, reporter)
    return DenoiserTask(parts, DenoiserSource(folder, latents, table), config)


def _unet(config: DenoiserTrainConfig, vae: AutoencoderKL, encoder: TextTower) -> Backbone:
    joints = {
        "in_channels": vae.config.latent_channels,
        "out_channels": vae.config.latent_channels,
        "cross_attention_dim": encoder.config.hidden_size,
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
            network = build_network_config(UNetConfig, UNETS, config.unet.preset, fields, at="unet")
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(config.trainer.seed, "init", 0))
            unet = build_backbone(network)
    for name, wanted in joints.items():
        if getattr(unet.config, name) != wanted:
            raise TrainError(
                f"the UNet's {name} is {getattr(unet.config, name)}, but the autoencoder and text "
                f"encoder of this run need {wanted}; take networks that belong together"
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
