"""Building the encoder that a config asks for."""

from sd_textenc.clip import CLIPTextEncoder
from sd_textenc.config import CLIPTextConfig, OpenCLIPTextConfig
from sd_textenc.openclip import OpenCLIPTextEncoder
from sd_textenc.tokenizer import Tokenizer
from sd_textenc.tower import TextTower


def build_text_encoder(
    config: CLIPTextConfig,
    tokenizer: Tokenizer,
    clip_skip: int = 0,
    *,
    penultimate: bool = False,
) -> TextTower:
    """Build the encoder of a config, random weights in it: open_clip's for OpenCLIPTextConfig.

    `text_encoder_config` and `ldm_config` choose the type. Raises what the encoder raises.
    """
    if isinstance(config, OpenCLIPTextConfig):
        return OpenCLIPTextEncoder(config, tokenizer, clip_skip, penultimate=penultimate)
    return CLIPTextEncoder(config, tokenizer, clip_skip, penultimate=penultimate)
