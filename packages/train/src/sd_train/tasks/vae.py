"""The autoencoder learns to give pictures back (Rombach et al. 2022, arXiv:2112.10752, 3.1)."""

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_pipeline import load_vae, save_vae
from sd_train.config import VAETrainConfig
from sd_train.data import CropSource, PictureFolder, check_least_size, check_sizes, describe
from sd_train.errors import TrainError
from sd_train.fidelity import psnr, ssim
from sd_train.images import grid, to_float, to_uint8
from sd_train.perceptual_files import load_perceptual
from sd_train.precision import EXPORT_DTYPES, memory_format, resolve_device
from sd_train.reporter import Reporter, SilentReporter
from sd_train.seeds import derive_seed
from sd_train.settings import build_network_config, field_values
from sd_train.task import Batch, Validation
from sd_train.tasks.vae_opponent import VAEOpponent, build_opponent
from sd_vae import (
    LPIPS,
    AutoencoderKL,
    CodebookUsage,
    Quantized,
    VAEConfig,
    VAELoss,
    VAELossConfig,
    VQConfig,
    VQModel,
    build_autoencoder,
    scenes,
    sd15,
    with_codebook,
)

PRESETS = {"sd15": sd15, "scenes": scenes}
VQ_PRESETS = {"sd15": lambda: with_codebook(sd15()), "scenes": lambda: with_codebook(scenes())}
_NUM_SHOWN = 8
_NUM_MEASURED = 512


class VAETask:
    """Trains an autoencoder on random squares; validates on whole held-out pictures."""

    def __init__(
        self,
        vae: AutoencoderKL,
        folder: PictureFolder,
        config: VAETrainConfig,
        perceptual: LPIPS | None = None,
        opponent: VAEOpponent | None = None,
    ) -> None:
        self.vae = vae
        self.folder = folder
        self.config = config
        self.source = CropSource(folder)
        self.perceptual = perceptual
        self.opponent = opponent
        self.device = next(vae.parameters()).device
        self.criterion = VAELoss(
            VAELossConfig(**config.loss.model_dump()),
            perceptual=perceptual,
            adversarial=None if opponent is None else opponent.of_decoder,
        ).to(self.device)
        self.layout = memory_format(config.trainer.channels_last)

    def modules(self) -> Mapping[str, nn.Module]:
        """Name what learns: the autoencoder or what stands behind the latents alone, and logvar."""
        learning: dict[str, nn.Module] = {"vae": self.vae}
        if self.config.decoder_only:
            learning = {"decoder": self.vae.decoder, "post_quant_conv": self.vae.post_quant_conv}
        if self.criterion.likelihood is not None:
            learning["likelihood"] = self.criterion.likelihood
        return learning

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
        recon, quantized = self._decode(latents)
        terms = self.criterion(images, recon, posterior, num_values=num_values, quantized=quantized)
        scalars = {self.config.loss.reconstruction: terms.reconstruction, "kl": terms.kl}
        scalars |= {"gradient": terms.gradient, "detail": terms.detail}
        if quantized is not None:
            scalars["codebook"] = terms.codebook
        if self.perceptual is not None:
            scalars["perceptual"] = terms.perceptual
        if self.opponent is not None:
            scalars["adversarial"] = terms.adversarial
        if self.criterion.likelihood is not None:
            scalars["logvar"] = self.criterion.likelihood.logvar
        return terms.total, {name: value.detach() for name, value in scalars.items()}

    def validate(self) -> Validation:
        """Compare held-out pictures with their reconstructions from the mean latent."""
        sums = dict.fromkeys(("l1", "gradient", "detail", "kl", "psnr", "ssim"), 0.0)
        shown: list[Tensor] = []
        measured = VAELoss(VAELossConfig(gradient_weight=1.0, detail_weight=1.0))
        statistics = LatentStatistics()
        codebook = self.vae.quantize if isinstance(self.vae, VQModel) else None
        usage = CodebookUsage(codebook.embedding.num_embeddings) if codebook else None
        for images in self._batches(self.folder.held_out):
            posterior = self.vae.encode(images)
            recon = self.vae.decode(posterior.mode()).float()
            if codebook is not None and usage is not None:
                usage.add(codebook(posterior.mode()).indices)
            terms = measured(images, recon, posterior)
            sums["l1"] += float((recon - images).abs().mean()) * len(images)
            sums["gradient"] += float(terms.gradient) * len(images)
            sums["detail"] += float(terms.detail) * len(images)
            sums["kl"] += float(posterior.kl().sum())
            sums["psnr"] += float(psnr(images, recon).sum())
            sums["ssim"] += float(ssim(images, recon).sum())
            if self.perceptual is not None:
                distances = self.perceptual(images, recon)
                sums["perceptual"] = sums.get("perceptual", 0.0) + float(distances.sum())
            statistics.add(posterior.mean, posterior.std)
            if not shown:
                shown = [to_uint8(images[:_NUM_SHOWN]), to_uint8(recon[:_NUM_SHOWN])]
        count = len(self.folder.held_out)
        if not count:
            return Validation()
        scalars = {name: value / count for name, value in sums.items()}
        scalars |= {"latent_mean": statistics.mean, "latent_std": statistics.std}
        if usage is not None:
            scalars |= {"codebook_share": usage.share, "codebook_perplexity": usage.perplexity}
        pictures = {"reconstruction": grid(torch.cat(shown), len(shown[0]))}
        return Validation(scalars=scalars, images=pictures)

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

    def _decode(self, latents: Tensor) -> tuple[Tensor, Quantized | None]:
        """Decode latents; where there is a codebook, return what is to be learnt of it too."""
        if not isinstance(self.vae, VQModel):
            return self.vae.decode(latents), None
        with torch.set_grad_enabled(not self.config.decoder_only):
            quantized = self.vae.quantize(latents)
        return self.vae.decode_codes(quantized.codes), quantized

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


def build_vae_task(config: VAETrainConfig, reporter: Reporter | None = None) -> VAETask:
    """Read the data and make the autoencoder, new or from `init_from`, on its device."""
    reporter = reporter or SilentReporter()
    device = resolve_device(config.trainer.device)
    vae = _autoencoder(config)
    vae.to(device).to(memory_format=memory_format(config.trainer.channels_last))
    vae.set_attention_backend(config.attention)
    check_sizes(config.data, vae.config.downsampling)
    folder = PictureFolder(config.data)
    for line in describe(folder):
        reporter.message(line)
    perceptual = None
    if config.perceptual is not None:
        halved = bool(config.equivariance)
        check_least_size(config.data, LPIPS.least_size, "[perceptual]", halved=halved)
        perceptual = load_perceptual(config.perceptual, reporter).to(device)
    spelled_out = config.vae.model_copy(update={"fields": field_values(vae.config)})
    config = config.model_copy(update={"vae": spelled_out})
    return VAETask(vae, folder, config, perceptual, build_opponent(config, vae))


def _autoencoder(config: VAETrainConfig) -> AutoencoderKL:
    """Load the autoencoder to go on from, or make a new one."""
    if config.init_from:
        vae = load_vae(Path(config.init_from)).requires_grad_(True)
        kind = "vq" if isinstance(vae, VQModel) else "kl"
        if kind != config.kind:
            raise TrainError(
                f"kind = {config.kind!r}, but init_from = {config.init_from!r} holds one of kind "
                f"{kind!r}; set kind = {kind!r}, or name another folder"
            )
        return vae
    fields = {"sample_size": config.data.size, **config.vae.fields}
    build = partial(build_network_config, preset=config.vae.preset, fields=fields, at="vae")
    network = build(VQConfig, VQ_PRESETS) if config.kind == "vq" else build(VAEConfig, PRESETS)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.trainer.seed, "init", 0))
        return build_autoencoder(network)
