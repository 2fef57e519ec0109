"""Tiny models and pictures to finetune on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sd_pipeline import Parts, save_image_encoder, save_model, save_text_encoder
from sd_textenc import CLIPImageConfig, CLIPImageEncoder, DualTextEncoder, Tokenizer
from sd_train.finetune_config import (
    DreamBoothConfig,
    FinetuneConfig,
    HypernetworkTrainConfig,
    LoraTrainConfig,
    TextualInversionConfig,
)
from sd_unet import UNet, UNetConfig
from tests.textenc.towers import clip_config, open_clip_config, tower
from tests.tiny_model import tiny_parts

CAPTIONS = ("a cat on a mat", "a black cat under a tree", "a cat under a night sky")
TRAINER = {
    "steps": 4,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "validate_every": 0,
    "save_every": 0,
    "log_every": 1,
    "device": "cpu",
    "channels_last": False,
    "tensorboard": False,
}
KINDS: dict[str, type[FinetuneConfig]] = {
    "lora": LoraTrainConfig,
    "textual_inversion": TextualInversionConfig,
    "hypernetwork": HypernetworkTrainConfig,
    "dreambooth": DreamBoothConfig,
}
# What a tiny model takes to learn a little in a few steps, and nothing that only costs time.
QUICK: dict[str, dict[str, Any]] = {
    "lora": {},
    "textual_inversion": {"num_vectors": 2},
    "hypernetwork": {"hypernetwork": {"activation_func": "relu"}},
    "dreambooth": {"num_class_images": 2, "contact_sheet": 0, "export_dtype": "fp32"},
}


def write_pictures(folder: Path, captions: tuple[str, ...] = CAPTIONS) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    lines = []
    for i, caption in enumerate(captions):
        pixels = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((72, 64), Image.Resampling.BILINEAR).save(
            folder / f"{i}.png"
        )
        lines.append(json.dumps({"file_name": f"{i}.png", "text": caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def settings(
    method: str, model: Path, pictures: Path, trainer: dict[str, Any] | None = None, **more: Any
) -> Any:
    values: dict[str, Any] = {
        "model": str(model),
        "trainer": {**TRAINER, **(trainer or {})},
        "data": {"folder": str(pictures), "size": 64},
        "samples": {"count": 0},
        "captions": "subject",
    }
    return KINDS[method].model_validate({**values, **QUICK[method], **more})


def open_words() -> Tokenizer:
    """A tokenizer whose words no model knows, as those of real models: spelled where need be."""
    words = tiny_parts().towers[0].tokenizer
    return Tokenizer(words.vocab, words.merges, context_length=words.context_length)


def tiny_sd1(folder: Path) -> Path:
    words = open_words()
    parts = replace(tiny_parts(), text_encoder=tower(clip_config(words), words))
    save_model(folder, parts, dtype=torch.float32)
    return folder


def write_clip(folder: Path, projection_dim: int = 4) -> Path:
    words = tiny_parts().towers[0].tokenizer
    text = replace(clip_config(words), projection_dim=4)
    image = CLIPImageConfig(
        image_size=16,
        patch_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_layers=1,
        num_heads=2,
        projection_dim=projection_dim,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_text_encoder(folder, tower(text, words), dtype=torch.float32)
        save_image_encoder(folder, CLIPImageEncoder(image), dtype=torch.float32)
    return folder


def tiny_sdxl(folder: Path, words: Tokenizer | None = None) -> Path:
    tiny = tiny_parts()
    assert not isinstance(tiny.text_encoder, DualTextEncoder)
    words = words or tiny.text_encoder.tokenizer
    torch.manual_seed(0)
    unet = UNet(
        UNetConfig(
            sample_size=8,
            block_out_channels=(32, 64),
            attention_levels=(False, True),
            layers_per_block=1,
            cross_attention_dim=64,
            num_heads=4,
            addition_time_embed_dim=8,
            projection_input_dim=24 + 6 * 8,
        )
    )
    with torch.no_grad():
        for parameter in unet.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    encoder = DualTextEncoder(
        tower(clip_config(words), words, penultimate=True),
        tower(open_clip_config(words, 24), words, penultimate=True),
    )
    parts = Parts(
        unet=unet,
        vae=tiny.vae,
        text_encoder=encoder,
        scheduler=tiny.scheduler,
        zeros_for_empty=True,
    )
    save_model(folder, parts, dtype=torch.float32)
    return folder


def outputs(parts: Parts, prompt: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, parts.unet.config.in_channels, 8, 8, generator=generator)
    with torch.no_grad():
        states = parts.text_encoder.encode([prompt]).hidden_states
        return parts.unet(x, torch.tensor([500.0]), states)
