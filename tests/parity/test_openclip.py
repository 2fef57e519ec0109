"""OpenCLIP towers, and SDXL's two, against transformers, open_clip and diffusers: 1e-5 in fp32."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sd_checkpoint import load_into, save_safetensors
from sd_textenc import (
    CLIPTextEncoder,
    DualTextEncoder,
    OpenCLIPTextEncoder,
    TextTower,
    Tokenizer,
    build_text_encoder,
    clip_tokenizer,
    ldm_config,
    ldm_tensors,
)
from sd_textenc.clip import Library
from tests.textenc.prompts import thousand_prompts
from tests.textenc.towers import clip_config, open_clip_config, shaken, tower

PROMPTS = ["a photo of a cat", "", "wow!!! it's a 猫", "cat " * 100]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return clip_tokenizer("!")


@pytest.fixture(scope="module")
def first_tokenizer() -> Tokenizer:
    return clip_tokenizer()


def save(encoder: TextTower, folder: Path) -> Path:
    save_safetensors(folder / "model.safetensors", encoder.file_state_dict())
    (folder / "config.json").write_text(json.dumps(encoder.config.to_diffusers()))
    return folder


def opened(encoder: TextTower, folder: Path) -> Any:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    projected = encoder.config.projection_dim is not None
    peer, info = (CLIPTextModelWithProjection if projected else CLIPTextModel).from_pretrained(
        save(encoder, folder), output_loading_info=True
    )
    assert not any(info.values())
    return peer.eval()


def peer_tokenizer(tokenizer: Tokenizer, folder: Path) -> Any:
    from transformers import CLIPTokenizer

    folder.mkdir()
    for name, text in tokenizer.files().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return CLIPTokenizer.from_pretrained(folder)


def difference(ours: Tensor | None, theirs: Tensor) -> float:
    assert ours is not None
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


@torch.no_grad()
def test_sd2_states_equal_transformers_for_a_thousand_prompts(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    ours = tower(open_clip_config(tokenizer), tokenizer)
    peer = opened(ours, tmp_path)
    for token_ids in tokenizer(thousand_prompts()).split(250):
        conditioning, expected = ours.encode_tokens(token_ids), peer(token_ids)
        assert difference(conditioning.hidden_states, expected.last_hidden_state) < 1e-5
        assert difference(conditioning.pooled, expected.pooler_output) < 1e-5


@torch.no_grad()
def test_sdxl_states_and_pooled_equal_transformers_for_a_thousand_prompts(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    ours = tower(open_clip_config(tokenizer, 24), tokenizer, penultimate=True)
    peer = opened(ours, tmp_path)
    for token_ids in tokenizer(thousand_prompts()).split(250):
        conditioning = ours.encode_tokens(token_ids)
        expected = peer(token_ids, output_hidden_states=True)
        assert difference(conditioning.hidden_states, expected.hidden_states[-2]) < 1e-5
        assert difference(conditioning.pooled, expected.text_embeds) < 1e-5


@pytest.mark.parametrize("library", ["own", "transformers"])
@pytest.mark.parametrize("hidden_act", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("clip_skip", [0, 2])
@torch.no_grad()
def test_either_library_gives_equal_numbers_for_one_folder(
    tokenizer: Tokenizer, clip_skip: int, hidden_act: str, library: Library
) -> None:
    config = replace(open_clip_config(tokenizer, 24), hidden_act=hidden_act, layer_norm_eps=1e-3)
    ours = tower(config, tokenizer, clip_skip)
    other = CLIPTextEncoder(config, tokenizer, clip_skip, library=library).eval()
    load_into(other.model, other.model_state_dict(ours.file_state_dict()), what="test")
    a, b = ours.encode(PROMPTS), other.encode(PROMPTS)
    assert isinstance(ours, OpenCLIPTextEncoder)
    assert b.pooled is not None
    assert difference(a.hidden_states, b.hidden_states) < 1e-5
    assert difference(a.pooled, b.pooled) < 1e-5


def whole_open_clip(tokenizer: Tokenizer) -> Any:
    """Return open_clip's own two-sided model, whose text side has four layers."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    torch.manual_seed(0)
    text = CLIPTextCfg(vocab_size=tokenizer.vocab_size, width=64, heads=1, layers=4)
    vision = CLIPVisionCfg(layers=1, width=64, image_size=32, patch_size=16)
    peer = CLIP(embed_dim=48, vision_cfg=vision, text_cfg=text)
    del peer.visual
    return shaken(peer)


def from_single_file(peer: Any, tokenizer: Tokenizer, *, projected: bool) -> TextTower:
    """Open the peer's weights the way a single file holds them, with `model.` before each."""
    file = {f"model.{name}": tensor for name, tensor in peer.state_dict().items()}
    assert "model.logit_scale" in file
    shapes = {name: tuple(tensor.shape) for name, tensor in file.items()}
    config = ldm_config(shapes, projected=projected)
    with torch.device("meta"):
        encoder = build_text_encoder(config, tokenizer, penultimate=projected)
    load_into(encoder.model, encoder.model_state_dict(ldm_tensors(config, file)), what="test")
    return encoder.eval()


def blocks(peer: Any, token_ids: Tensor, count: int) -> Tensor:
    """Run the peer's own first blocks, as LDM and generative-models do for all but the last."""
    x: Tensor = peer.token_embedding(token_ids) + peer.positional_embedding
    for block in peer.transformer.resblocks[:count]:
        x = block(x, attn_mask=peer.attn_mask)
    return x


@torch.no_grad()
def test_an_sd2_single_file_gives_open_clips_last_layer_but_one_under_the_norm(
    tokenizer: Tokenizer,
) -> None:
    peer = whole_open_clip(tokenizer)
    ours = from_single_file(peer, tokenizer, projected=False)
    assert ours.config.num_layers == 3
    expected = peer.ln_final(blocks(peer, tokenizer(PROMPTS), 3))
    assert difference(ours.encode(PROMPTS).hidden_states, expected) < 1e-5


@torch.no_grad()
def test_an_sdxl_single_file_gives_open_clips_bare_states_and_its_text_features(
    tokenizer: Tokenizer,
) -> None:
    peer = whole_open_clip(tokenizer)
    ours = from_single_file(peer, tokenizer, projected=True)
    token_ids = tokenizer(PROMPTS)
    conditioning = ours.encode(PROMPTS)
    assert difference(conditioning.hidden_states, blocks(peer, token_ids, 3)) < 1e-5
    assert difference(conditioning.pooled, peer.encode_text(token_ids)) < 1e-5


@pytest.mark.parametrize("clip_skip", [None, 1, 2])
@torch.no_grad()
def test_sd2_conditioning_equals_diffusers(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip_skip: int | None
) -> None:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

    # diffusers' clip_skip asks for the attribute that transformers 5 has dropped.
    monkeypatch.setattr(CLIPTextModel, "text_model", property(lambda self: self), raising=False)
    ours = tower(open_clip_config(tokenizer), tokenizer, clip_skip or 0)
    peer = StableDiffusionPipeline(
        vae=None,
        unet=None,
        scheduler=None,
        text_encoder=opened(ours, tmp_path),
        tokenizer=peer_tokenizer(tokenizer, tmp_path / "tokenizer"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    expected, _ = peer.encode_prompt(PROMPTS, "cpu", 1, False, clip_skip=clip_skip)
    assert difference(ours.encode(PROMPTS).hidden_states, expected) < 1e-5


def sdxl_peer(folder: Path, encoder_2: TextTower, encoder: TextTower | None = None) -> Any:
    from diffusers import StableDiffusionXLPipeline

    parts: dict[str, Any] = {"text_encoder": None, "tokenizer": None}
    for name, one in (("", encoder), ("_2", encoder_2)):
        if one is not None:
            at = folder / f"text_encoder{name}"
            at.mkdir()
            parts[f"text_encoder{name}"] = opened(one, at)
            parts[f"tokenizer{name}"] = peer_tokenizer(one.tokenizer, folder / f"tokenizer{name}")
    return StableDiffusionXLPipeline(vae=None, unet=None, scheduler=None, **parts)


@pytest.mark.parametrize("clip_skip", [None, 1])
@pytest.mark.parametrize("prompts_2", [None, ["a dog!", "two", "three", ""]])
@torch.no_grad()
def test_sdxl_base_conditioning_equals_diffusers(
    first_tokenizer: Tokenizer,
    tokenizer: Tokenizer,
    tmp_path: Path,
    clip_skip: int | None,
    prompts_2: list[str] | None,
) -> None:
    first = tower(clip_config(first_tokenizer), first_tokenizer, penultimate=True)
    second = tower(open_clip_config(tokenizer, 24), tokenizer, penultimate=True)
    ours = DualTextEncoder(first, second)
    ours.clip_skip = clip_skip or 0
    peer = sdxl_peer(tmp_path, second, first)
    expected, _, pooled, _ = peer.encode_prompt(
        PROMPTS, prompts_2, "cpu", 1, False, clip_skip=clip_skip
    )
    conditioning = ours.encode(PROMPTS, prompts_2)
    assert difference(conditioning.hidden_states, expected) < 1e-5
    assert difference(conditioning.pooled, pooled) < 1e-5


@torch.no_grad()
def test_the_refiners_conditioning_equals_diffusers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ours = tower(open_clip_config(tokenizer, 24), tokenizer, penultimate=True)
    peer = sdxl_peer(tmp_path, ours)
    expected, _, pooled, _ = peer.encode_prompt(PROMPTS, None, "cpu", 1, False)
    conditioning = ours.encode(PROMPTS)
    assert difference(conditioning.hidden_states, expected) < 1e-5
    assert difference(conditioning.pooled, pooled) < 1e-5


@torch.no_grad()
def test_an_empty_prompt_zeroed_is_diffusers_empty_negative_of_sdxl(
    first_tokenizer: Tokenizer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    first = tower(clip_config(first_tokenizer), first_tokenizer, penultimate=True)
    second = tower(open_clip_config(tokenizer, 24), tokenizer, penultimate=True)
    peer = sdxl_peer(tmp_path, second, first)
    _, negative, _, pooled = peer.encode_prompt(PROMPTS, None, "cpu", 1, True)
    ours = DualTextEncoder(first, second).encode([""] * len(PROMPTS)).zeroed()
    assert torch.equal(ours.hidden_states, negative)
    assert ours.pooled is not None
    assert torch.equal(ours.pooled, pooled)
