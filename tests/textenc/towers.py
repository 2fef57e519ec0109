"""Text towers of a few layers whose every weight is random, norms and biases too."""

from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from sd_textenc import CLIPTextConfig, OpenCLIPTextConfig, TextTower, Tokenizer, build_text_encoder

ConfigT = TypeVar("ConfigT", bound=CLIPTextConfig)
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def shaken(module: ModuleT) -> ModuleT:
    """Move every weight, for a bias of zero and a norm of one hide what is done with them."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return module.eval()


def open_clip_config(tokenizer: Tokenizer, projection_dim: int | None = None) -> OpenCLIPTextConfig:
    return OpenCLIPTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=100,
        num_layers=4,
        num_heads=2,
        max_positions=tokenizer.context_length,
        projection_dim=projection_dim,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def clip_config(tokenizer: Tokenizer, projection_dim: int | None = None) -> CLIPTextConfig:
    sizes = open_clip_config(tokenizer, projection_dim)
    fields = {name: getattr(sizes, name) for name in CLIPTextConfig.__dataclass_fields__}
    return replace(CLIPTextConfig(**fields), hidden_act="quick_gelu", num_layers=3)


def tower(
    config: CLIPTextConfig, tokenizer: Tokenizer, clip_skip: int = 0, *, penultimate: bool = False
) -> TextTower:
    torch.manual_seed(0)
    return shaken(build_text_encoder(config, tokenizer, clip_skip, penultimate=penultimate))
