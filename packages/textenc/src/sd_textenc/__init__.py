"""CLIP text encoders and tokenizers that work offline."""

from sd_textenc.build import build_text_encoder
from sd_textenc.clip import CLIPTextEncoder
from sd_textenc.conditioning import Conditioning, TextEncoder
from sd_textenc.config import (
    CLIPTextConfig,
    OpenCLIPTextConfig,
    scenes,
    text_encoder_config,
    vit_bigg14,
    vit_h14,
    vit_l14,
)
from sd_textenc.dual import DualTextEncoder
from sd_textenc.errors import TextEncoderError
from sd_textenc.growing import with_words
from sd_textenc.image import CLIPImageConfig, CLIPImageEncoder, scenes_image, vit_l14_image
from sd_textenc.keys import file_key_map
from sd_textenc.ldm import ldm_config, ldm_key_map, ldm_passes_over, ldm_tensors
from sd_textenc.openclip import OpenCLIPTextEncoder
from sd_textenc.tokenizer import PromptReport, Tokenizer
from sd_textenc.tower import TextTower
from sd_textenc.vocabulary import clip_tokenizer, train_tokenizer
from sd_textenc.weighted import encode_weighted

__all__ = [
    "CLIPImageConfig",
    "CLIPImageEncoder",
    "CLIPTextConfig",
    "CLIPTextEncoder",
    "Conditioning",
    "DualTextEncoder",
    "OpenCLIPTextConfig",
    "OpenCLIPTextEncoder",
    "PromptReport",
    "TextEncoder",
    "TextEncoderError",
    "TextTower",
    "Tokenizer",
    "build_text_encoder",
    "clip_tokenizer",
    "encode_weighted",
    "file_key_map",
    "ldm_config",
    "ldm_key_map",
    "ldm_passes_over",
    "ldm_tensors",
    "scenes",
    "scenes_image",
    "text_encoder_config",
    "train_tokenizer",
    "vit_bigg14",
    "vit_h14",
    "vit_l14",
    "vit_l14_image",
    "with_words",
]
