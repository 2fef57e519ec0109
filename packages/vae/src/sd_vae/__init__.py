"""The KL autoencoder of latent diffusion and its training losses."""

from sd_vae.autoencoder import AutoencoderKL, Decoder, Encoder
from sd_vae.config import VAEConfig, VAEError, scenes, sd15, sd21, sdxl
from sd_vae.keymap import folder_key_map, ldm_key_map
from sd_vae.ldm_file import config_from_ldm, without_training
from sd_vae.losses import VAELoss, VAELossConfig, VAELossTerms
from sd_vae.posterior import DiagonalGaussian
from sd_vae.tiling import (
    Band,
    MemoryBudget,
    decode_in_bands,
    decoded_bands,
    encode_in_bands,
)

__all__ = [
    "AutoencoderKL",
    "Band",
    "Decoder",
    "DiagonalGaussian",
    "Encoder",
    "MemoryBudget",
    "VAEConfig",
    "VAEError",
    "VAELoss",
    "VAELossConfig",
    "VAELossTerms",
    "config_from_ldm",
    "decode_in_bands",
    "decoded_bands",
    "encode_in_bands",
    "folder_key_map",
    "ldm_key_map",
    "scenes",
    "sd15",
    "sd21",
    "sdxl",
    "without_training",
]
