"""CLIP text encoders and tokenizers that work offline."""

from sd_textenc.clip import CLIPTextEncoder
from sd_textenc.conditioning import Conditioning, TextEncoder
from sd_textenc.config import CLIPTextConfig, scenes, vit_l14
from sd_textenc.errors import TextEncoderError
from sd_textenc.keys import file_key_map
from sd_textenc.tokenizer import PromptReport, Tokenizer
from sd_textenc.vocabulary import clip_tokenizer, train_tokenizer

__all__ = [
    "CLIPTextConfig",
    "CLIPTextEncoder",
    "Conditioning",
    "PromptReport",
    "TextEncoder",
    "TextEncoderError",
    "Tokenizer",
    "clip_tokenizer",
    "file_key_map",
    "scenes",
    "train_tokenizer",
    "vit_l14",
]
