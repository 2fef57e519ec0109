"""The autoencoder learns to give pictures back (Rombach et al. 2022, arXiv:2112.10752, 3.1)."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_pipeline import load_vae, save_vae
from sd_train.config import VAETrainConfig
from sd_train.data import CropSource, PictureFolder, check_sizes, describe
from sd_train.images import grid, to_float, to_uint8
from sd_train.precision import EXPORT_DTYPES, memory_format, resolve_device
from sd_train.reporter import Reporter, SilentReporter
from sd_train.seeds import derive_seed
from sd_train.settings import build_network_config, field_values
from sd_train.task import Batch, Validation
from sd_vae import AutoencoderKL, VAEConfig, VAELoss, VAELossConfig, scenes, sd15

PRESETS = {"sd15": sd15, "scenes": scenes}
_NUM_SHOWN = 8
_NUM_MEASURED = 512


class VAETask:
    """Trains an autoencoder on random squares; validates on whole held-out pictures."""

    def __init__(self, vae: AutoencoderKL, folder: PictureFolder, config: VAETrainConfig) -> None:
        self.vae = vae
        self.folder = folder
        self.config = config
        self.source = CropSource(folder)
        self.criterion = VAELoss(VAELossConfig(**config.loss.model_dump()))
        self.device = next(vae.parameters()).device
        self.layout = memory_format(config.trainer.channels_last)

    def modules(self) -> Mapping[str, nn.Module]:
        """Name what learns: the autoencoder, or what stands behind the latents alone."""
        if self.config.decoder_only:
            return {"decoder": self.vae.decoder, "post_quant_conv": self.vae.post_quant_conv}
        return {"vae": self.vae}

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruct a batch through a sampled latent."""
        images = to_float(batch["images"], self.layout)
        with torch.set_grad_enabled(not self.config.decoder_only):
            posterior = self.vae.encode(images)
        latents, num_values = posterior.sample(generator=generator), images[0].numel()
        if self.config.equivariance:
            coin = torch.rand((), generator=generator, device=generator.device)
            if float(coin) < self.config.equivariance:
                images, latents = _halved(images, latents)
        terms = self.criterion(images, self.vae.decode(latents), posterior, num_values=num_values)
        scalars = {self.config.loss.reconstruction: terms.reconstruction, "kl": terms.kl}
        return terms.total, scalars | {"gradient": terms.gradient, "detail": terms.detail}

    def validate(self) -> Validation:
        """Compare held-out pictures with their reconstructions from the mean latent."""
        sums = dict.fromkeys(("l1", "gradient", "detail", "kl", "psnr"), 0.0)
        shown: list[Tensor] = []
        measured = VAELoss(VAELossConfig(gradient_weight=1.0, detail_weight=1.0))
        statistics = LatentStatistics()
        for images in self._batches(self.folder.held_out):
            posterior = self.vae.encode(images)
            recon = self.vae.decode(posterior.mode()).float()
            terms = measured(images, recon, posterior)
            sums["l1"] += float((recon - images).abs().mean()) * len(images)
            sums["gradient"] += float(terms.gradient) * len(images)
            sums["detail"] += float(terms.detail) * len(images)
            sums["kl"] += float(posterior.kl().sum())
            sums["psnr"] += float(psnr(images, recon).sum())
            statistics.add(posterior.mean, posterior.std)
            if not shown:
                shown = [to_uint8(images[:_NUM_SHOWN]), to_uint8(recon[:_NUM_SHOWN])]
        count = len(self.folder.held_out)
        scalars = {name: value / max(1, count) for name, value in sums.items()}
        scalars |= {"latent_mean": statistics.mean, "latent_std": statistics.std}
        pictures = {"reconstruction": grid(torch.cat(shown), len(shown[0]))} if shown else {}
        return Validation(scalars=scalars if count else {}, images=pictures)

    def export(self, folder: Path) -> None:
        """Write the autoencoder's folder, its scaling factor 1 / std of the latents of the data.

        A decoder learnt alone keeps the factor, for denoisers of these latents rely on it.
        """
        if self.config.decoder_only:
            save_vae(folder, self.vae, dtype=EXPORT_DTYPES[self.config.export_dtype])
            return
        statistics = LatentStatistics()
        stride = max(1, len(self.folder.training) // _NUM_MEASURED)
        for images in self._batches(self.folder.training[::stride]):
            posterior = self.vae.encode(images)
            statistics.add(posterior.mean, posterior.std)
        plain = self.vae.config
        try:
            self.vae.config = dataclasses.replace(plain, scaling_factor=1 / statistics.std)
            save_vae(folder, self.vae, dtype=EXPORT_DTYPES[self.config.export_dtype])
        finally:
            self.vae.config = plain

    def _batches(self, indices: list[int]) -> Iterator[Tensor]:
        size = self.config.trainer.batch_size
        for start in range(0, len(indices), size):
            images = self.folder.pictures(indices[start : start + size])
            yield to_float(images.to(self.device), self.layout)


def _halved(images: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return both at half their size, each pixel the mean of four."""
    return F.avg_pool2d(images, 2), F.avg_pool2d(latents, 2)


class LatentStatistics:
    """Mean and standard deviation of sampled latents, from the posteriors' means and stds."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def add(self, mean: Tensor, std: Tensor) -> None:
        """Take in a batch of posteriors: E[z] = mean, E[z^2] = mean^2 + std^2."""
        self._count += mean.numel()
        self._sum += float(mean.double().sum())
        self._squares += float((mean.double().square() + std.double().square()).sum())

    @property
    def mean(self) -> float:
        """The mean over everything taken in."""
        return self._sum / self._count

    @property
    def std(self) -> float:
        """The standard deviation over everything taken in."""
        return float(max(1e-12, self._squares / self._count - self.mean**2) ** 0.5)


def psnr(images: Tensor, recon: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio (B,) in dB of pictures in [-1, 1]."""
    error = (recon.clamp(-1, 1) - images).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error)


def build_vae_task(config: VAETrainConfig, reporter: Reporter | None = None) -> VAETask:
    """Read the data and make the autoencoder, new or from `init_from`, on its device."""
    reporter = reporter or SilentReporter()
    device = resolve_device(config.trainer.device)
    if config.init_from:
        vae = load_vae(Path(config.init_from)).requires_grad_(True)
    else:
        fields = {"sample_size": config.data.size, **config.vae.fields}
        network = build_network_config(VAEConfig, PRESETS, config.vae.preset, fields, at="vae")
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(config.trainer.seed, "init", 0))
            vae = AutoencoderKL(network)
    vae.to(device).to(memory_format=memory_format(config.trainer.channels_last))
    vae.set_attention_backend(config.attention)
    check_sizes(config.data, vae.config.downsampling)
    folder = PictureFolder(config.data)
    for line in describe(folder):
        reporter.message(line)
    spelled_out = config.vae.model_copy(update={"fields": field_values(vae.config)})
    return VAETask(vae, folder, config.model_copy(update={"vae": spelled_out}))
