"""The autoencoders of latent diffusion and their training losses."""

from sd_vae.adversarial import AdversarialLoss, adaptive_weight
from sd_vae.autoencoder import AutoencoderKL, Decoder, Encoder
from sd_vae.config import VAEConfig, VAEError, scenes, sd15, sd21, sdxl
from sd_vae.discriminator import Discriminator, DiscriminatorConfig
from sd_vae.keymap import folder_key_map, ldm_key_map
from sd_vae.ldm_file import config_from_ldm, without_training
from sd_vae.losses import VAELoss, VAELossConfig, VAELossTerms
from sd_vae.perceptual import LPIPS, perceptual_weights
from sd_vae.posterior import DiagonalGaussian, PointMass
from sd_vae.quantizer import CodebookUsage, Quantized, VectorQuantizer
from sd_vae.tiling import (
    Band,
    MemoryBudget,
    decode_in_bands,
    decoded_bands,
    encode_in_bands,
)
from sd_vae.tiny import TinyDecoder, TinyDecoderConfig, tiny_config, tiny_names
from sd_vae.vq_config import VQConfig, config_from_diffusers, with_codebook
from sd_vae.vq_model import VQModel, build_autoencoder

__all__ = [
    "LPIPS",
    "AdversarialLoss",
    "AutoencoderKL",
    "Band",
    "CodebookUsage",
    "Decoder",
    "DiagonalGaussian",
    "Discriminator",
    "DiscriminatorConfig",
    "Encoder",
    "MemoryBudget",
    "PointMass",
    "Quantized",
    "TinyDecoder",
    "TinyDecoderConfig",
    "VAEConfig",
    "VAEError",
    "VAELoss",
    "VAELossConfig",
    "VAELossTerms",
    "VQConfig",
    "VQModel",
    "VectorQuantizer",
    "adaptive_weight",
    "build_autoencoder",
    "config_from_diffusers",
    "config_from_ldm",
    "decode_in_bands",
    "decoded_bands",
    "encode_in_bands",
    "folder_key_map",
    "ldm_key_map",
    "perceptual_weights",
    "scenes",
    "sd15",
    "sd21",
    "sdxl",
    "tiny_config",
    "tiny_names",
    "with_codebook",
    "without_training",
]
