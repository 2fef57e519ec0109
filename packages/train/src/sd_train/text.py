"""The text side of a denoiser run: build the encoder, tokenize captions, cache frozen states."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sd_pipeline import load_text_encoder, load_tokenizer
from sd_textenc import (
    CLIPTextConfig,
    CLIPTextEncoder,
    Conditioning,
    DualTextEncoder,
    TextTower,
    Tokenizer,
    clip_tokenizer,
    scenes,
    train_tokenizer,
    vit_l14,
)
from sd_train.config import TextSettings
from sd_train.errors import TrainError
from sd_train.seeds import derive_seed
from sd_train.settings import build_network_config, field_values

_CHUNK = 64
_CAPTION_SHOWN = 160
TOKEN_IDS = ("token_ids", "token_ids_2")
"""What the ids of one and of two text encoders are called in a batch."""


def build_tokenizer(settings: TextSettings, captions: Sequence[str]) -> Tokenizer:
    """Make the tokenizer that the settings name: "captions", "clip" or a tokenizer folder."""
    if settings.tokenizer == "captions":
        return train_tokenizer(captions, context_length=settings.context_length)
    if settings.tokenizer == "clip":
        return clip_tokenizer()
    folder = Path(settings.tokenizer)
    if not folder.is_dir():
        raise TrainError(
            f"text.tokenizer = {settings.tokenizer!r} is not a folder; use captions, clip or a "
            "tokenizer folder"
        )
    return load_tokenizer(folder)


def build_text_encoder(
    settings: TextSettings, captions: Sequence[str], seed: int
) -> tuple[TextTower, TextSettings]:
    """Load or make the text encoder, on the CPU in fp32; return it with the resolved settings."""
    if settings.folder:
        encoder: TextTower = load_text_encoder(Path(settings.folder))
    else:
        tokenizer = build_tokenizer(settings, captions)
        presets: dict[str, Callable[[], CLIPTextConfig]] = {
            "scenes": partial(scenes, tokenizer.vocab_size),
            "vit_l14": vit_l14,
        }
        config = build_network_config(
            CLIPTextConfig, presets, settings.preset, settings.fields, at="text"
        )
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "init", 1))
            made = CLIPTextEncoder(config, tokenizer)
            _spread_words(made)
            encoder = made
        settings = settings.model_copy(update={"fields": field_values(config)})
    encoder.requires_grad_(settings.train).train(settings.train)
    return encoder, settings


def _spread_words(encoder: CLIPTextEncoder) -> None:
    """Draw a new encoder's embeddings at the scale of the layers' outputs.

    At CLIP's own 0.02 what the layers add, much the same for every word, drowns the words, and a
    denoiser's weak signal does not bring them apart again: after 1,500 steps the states of "red"
    and "blue" stood 0.8 apart at a norm of 13.8, and things and colours were not yet drawn.
    """
    embeddings = encoder.body.embeddings
    torch.nn.init.normal_(embeddings.token_embedding.weight, std=1.0)
    torch.nn.init.normal_(embeddings.position_embedding.weight, std=0.3)


def tokenize(
    encoder: TextTower | DualTextEncoder, captions: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return ids (N, T) by their names in a batch, and a line for captions that do not fit."""
    tower = encoder.first if isinstance(encoder, DualTextEncoder) else encoder
    cut = [caption for caption in captions if tower.check(caption).dropped]
    lines = []
    if cut:
        lines.append(
            f"{len(cut)} captions are longer than {tower.tokenizer.context_length} tokens and are "
            f"cut, the first: {cut[0][:_CAPTION_SHOWN]!r}"
        )
    if isinstance(encoder, DualTextEncoder):
        return dict(zip(TOKEN_IDS, encoder.tokenize(captions), strict=True)), lines
    return {TOKEN_IDS[0]: tower.tokenizer(captions)}, lines


def encode_ids(encoder: TextTower | DualTextEncoder, ids: Mapping[str, Tensor]) -> Conditioning:
    """Encode ids (B, T) that have their names in a batch."""
    if isinstance(encoder, DualTextEncoder):
        return encoder.encode_tokens(*(ids[name] for name in TOKEN_IDS))
    return encoder.encode_tokens(ids[TOKEN_IDS[0]])


def encode_all(
    encoder: TextTower | DualTextEncoder, ids: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the states of ids (N, T) as fp16 on the CPU, by their names in a batch.

    `hidden_states` (N, T, D) and, of two encoders, `pooled` (N, P).
    """
    parts = zip(*(torch.split(values, _CHUNK) for values in ids.values()), strict=True)
    with torch.no_grad():
        chunks = [encode_ids(encoder, dict(zip(ids, part, strict=True))) for part in parts]
    states = {"hidden_states": [chunk.hidden_states for chunk in chunks]}
    if isinstance(encoder, DualTextEncoder):
        states["pooled"] = [chunk.pooled for chunk in chunks if chunk.pooled is not None]
    return {
        name: torch.cat([each.to("cpu", torch.float16) for each in found])
        for name, found in states.items()
    }
