"""Large pictures through the autoencoder, exactly, in bands of rows and little memory."""

from sd_vae.tiling.budget import MemoryBudget
from sd_vae.tiling.pictures import Band, decode_in_bands, decoded_bands, encode_in_bands

__all__ = ["Band", "MemoryBudget", "decode_in_bands", "decoded_bands", "encode_in_bands"]
