"""The KL autoencoder of latent diffusion and its training losses."""

from sd_vae.autoencoder import AutoencoderKL, Decoder, Encoder
from sd_vae.config import VAEConfig, VAEError, scenes, sd15, sd21, sdxl
from sd_vae.keymap import folder_key_map, ldm_key_map
from sd_vae.ldm_file import config_from_ldm, without_training
from sd_vae.losses import VAELoss, VAELossConfig, VAELossTerms
from sd_vae.posterior import DiagonalGaussian

__all__ = [
    "AutoencoderKL",
    "Decoder",
    "DiagonalGaussian",
    "Encoder",
    "VAEConfig",
    "VAEError",
    "VAELoss",
    "VAELossConfig",
    "VAELossTerms",
    "config_from_ldm",
    "folder_key_map",
    "ldm_key_map",
    "scenes",
    "sd15",
    "sd21",
    "sdxl",
    "without_training",
]
