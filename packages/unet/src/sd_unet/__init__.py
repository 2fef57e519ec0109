"""The text-conditioned latent UNet of Stable Diffusion."""

from sd_unet.config import UNetConfig, scenes, sd15
from sd_unet.errors import UNetConfigError
from sd_unet.keymap import ldm_key_map
from sd_unet.timestep import sinusoidal_embedding
from sd_unet.unet import UNet

__all__ = [
    "UNet",
    "UNetConfig",
    "UNetConfigError",
    "ldm_key_map",
    "scenes",
    "sd15",
    "sinusoidal_embedding",
]
