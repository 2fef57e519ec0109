"""The autoencoder whose latents are of a codebook (Esser et al. 2021, arXiv:2012.09841)."""

import torch
from torch import Tensor

from sd_vae.autoencoder import AutoencoderKL
from sd_vae.config import VAEConfig
from sd_vae.posterior import DiagonalGaussian, PointMass
from sd_vae.quantizer import VectorQuantizer
from sd_vae.vq_config import VQConfig

__all__ = ["VQModel", "build_autoencoder"]


class VQModel(AutoencoderKL):
    """Encode pictures in [-1, 1] to latents, and decode the codes that are nearest to latents.

    It is used as an `AutoencoderKL`, of a posterior that is one point: as in latent diffusion
    (Rombach et al. 2022, arXiv:2112.10752, section 3.1) the diffusion model sees latents before
    they are quantised, and the codebook is the decoder's first layer. Keys are those of diffusers'
    VQModel.
    """

    num_moments = 1

    def __init__(self, config: VQConfig) -> None:
        super().__init__(config)
        self.quantize = VectorQuantizer(config.num_embeddings, config.latent_channels)

    def posterior(self, moments: Tensor) -> DiagonalGaussian:
        """Turn the encoder's output, z (B, C, h, w), into the point that it is."""
        return PointMass.at(moments)

    def decoder_input(self, z: Tensor) -> Tensor:
        """Return the codes nearest to z (B, C, h, w)."""
        codes: Tensor = self.quantize(z.to(self.quantize.embedding.weight.device)).codes
        return codes

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Map codes (B, C, h, w), which are taken as they are, to pictures (B, 3, f*h, f*w)."""
        out: Tensor = self.decoder(
            self.post_quant_conv(codes.to(self.post_quant_conv.weight.dtype))
        )
        return out

    @torch.no_grad()
    def encode_to_indices(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) in [-1, 1] to the numbers (B, H/f, W/f) of codes. Raises as `encode`."""
        indices: Tensor = self.quantize(self.encode(images).mode()).indices
        return indices


def build_autoencoder(config: VAEConfig) -> AutoencoderKL:
    """Make the autoencoder that `config` says, with a codebook or with a Gaussian."""
    return VQModel(config) if isinstance(config, VQConfig) else AutoencoderKL(config)
