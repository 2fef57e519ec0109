"""Adapters of peft and diffusers draw here what they draw there, and ours the other way round."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import lycoris.config
import lycoris.kohya
import numpy as np
import peft
import pytest
import torch

from sd_adapters import (
    Embedding,
    Lora,
    LoraConfig,
    load_loras,
    save_diffusers_loras,
    save_embedding,
    save_loras,
)
from sd_pipeline import AdapterUse, Parts, Pipeline, Txt2Img, adapter_models, load_pipeline
from sd_unet import AddedConditions
from tests.parity import peers

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj")
STEPS, GUIDANCE = 3, 5.0


@pytest.fixture(scope="module", params=["sd1", "sd2-v", "sdxl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    pipeline = peers.FAMILIES[request.param](root)
    peers.randomize(pipeline)
    pipeline.save_pretrained(root / "model")
    return root / "model"


def peer_of(folder: Path) -> Any:
    return diffusers.DiffusionPipeline.from_pretrained(folder)


def theirs(pipeline: Any) -> np.ndarray:
    return peers.draw(
        pipeline, size=(64, 64), seeds=[5], steps=STEPS, guidance=GUIDANCE, negative=peers.NEGATIVE
    )[0].astype(int)


def ours(pipeline: Pipeline, *uses: AdapterUse, prompt: str = peers.PROMPT) -> np.ndarray:
    request = Txt2Img(
        prompt=prompt, negative_prompt=peers.NEGATIVE, width=64, height=64, seed=5, num_steps=STEPS,
        guidance_scale=GUIDANCE, sampler="euler", adapters=uses,
    )  # fmt: skip
    return np.asarray(next(pipeline.txt2img(request)).image).astype(int)


def shake(parameters: Any, seed: int = 0, size: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)


def learnt(parts: Parts) -> list[Lora]:
    loras = []
    for prefix, model in adapter_models(parts).items():
        targets = ATTENTION if prefix == "lora_unet" else TEXT
        loras.append(Lora.create(model, LoraConfig(rank=3, alpha=6.0, targets=targets), prefix))
        shake(loras[-1].parameters())
    return loras


def save_kohya(path: Path, parts: Parts) -> None:
    save_loras(path, learnt(parts))


def save_peft(path: Path, parts: Parts) -> None:
    save_diffusers_loras(path, learnt(parts), adapter_models(parts))


@pytest.mark.parametrize("save", [save_kohya, save_peft])
def test_our_lora_files_draw_the_same_in_diffusers(
    folder: Path, tmp_path: Path, save: Callable[[Path, Parts], None]
) -> None:
    pipeline = load_pipeline(folder, device="cpu")
    path = tmp_path / "lora.safetensors"
    save(path, pipeline.parts)
    peer = peer_of(folder)
    plain = theirs(peer)
    peer.load_lora_weights(path)
    wanted = theirs(peer)
    assert np.abs(wanted - plain).mean() > 2, "it matters"
    drawn = ours(pipeline, AdapterUse(kind="lora", file=str(path)))
    assert np.abs(drawn - wanted).max() <= 1


def test_loras_of_peft_draw_the_same_here(folder: Path, tmp_path: Path) -> None:
    peer = peer_of(folder)
    texts = [name for name in ("text_encoder", "text_encoder_2") if getattr(peer, name, None)]
    layers: dict[str, Any] = {}
    for seed, name in enumerate(["unet", *texts]):
        part = getattr(peer, name)
        targets = list(ATTENTION if name == "unet" else TEXT)
        part.add_adapter(
            peft.LoraConfig(r=4, lora_alpha=4, target_modules=targets, init_lora_weights=False)
        )
        shake((p for key, p in part.named_parameters() if "lora_" in key), seed)
        state = peft.get_peft_model_state_dict(part)
        layers[f"{name}_lora_layers"] = state
    type(peer).save_lora_weights(tmp_path, **layers)
    wanted = theirs(peer)
    use = AdapterUse(kind="lora", file=str(tmp_path / "pytorch_lora_weights.safetensors"))
    pipeline = load_pipeline(folder, device="cpu")
    assert np.abs(ours(pipeline) - wanted).mean() > 2, "it matters"
    assert np.abs(ours(pipeline, use) - wanted).max() <= 1


@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
def test_whole_networks_of_lycoris_draw_the_same_here(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    # As it comes it finds the layers of the timestep twice, and gives up.
    full = lycoris.config.PRESET["full"]
    modules = [each for each in full["unet_target_module"] if each != "TimestepEmbedding"]
    monkeypatch.setitem(lycoris.config.PRESET, "full", {**full, "unet_target_module": modules})
    peer, path = peer_of(folder), tmp_path / "network.safetensors"
    texts = peer.text_encoder
    if hasattr(peer, "text_encoder_2"):
        texts = [peer.text_encoder, peer.text_encoder_2]
    network = lycoris.kohya.create_network(
        1.0, 4, 2.0, peer.vae, texts, peer.unet, algo=algorithm, preset="full", conv_dim=3,
        conv_alpha=1.0, bypass_mode=False,
    )  # fmt: skip
    network.apply_to(texts, peer.unet, True, True)
    shake(network.parameters(), size=0.3 if algorithm == "loha" else 0.15)
    network.save_weights(str(path), torch.float32, {})
    wanted = theirs(peer)
    pipeline = load_pipeline(folder, device="cpu")
    use = AdapterUse(kind="lora", file=str(path))
    assert np.abs(ours(pipeline) - wanted).mean() > 2, "it matters"
    assert np.abs(ours(pipeline, use) - wanted).max() <= 1


def test_our_embedding_draws_the_same_in_diffusers(folder: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(folder, device="cpu")
    widths = [tower.config.hidden_size for tower in pipeline.parts.towers]
    generator = torch.Generator().manual_seed(8)
    vectors = tuple(torch.randn(2, width, generator=generator) for width in widths)
    path = tmp_path / "xyrex.safetensors"
    save_embedding(path, Embedding(name="xyrex", vectors=vectors), "diffusers")
    peer = peer_of(folder)
    if len(widths) == 1:
        peer.load_textual_inversion(path, token="xyrex")
    else:
        for number, name in enumerate(("", "_2")):
            part, words = getattr(peer, f"text_encoder{name}"), getattr(peer, f"tokenizer{name}")
            peer.load_textual_inversion(
                vectors[number], token="xyrex", text_encoder=part, tokenizer=words
            )
    prompt = "a xyrex in the snow"
    old, peers.PROMPT = peers.PROMPT, prompt
    try:
        wanted = theirs(peer)
    finally:
        peers.PROMPT = old
    use = AdapterUse(kind="embedding", file=str(path))
    assert np.abs(ours(pipeline, prompt=prompt) - wanted).mean() > 2, "it matters"
    assert np.abs(ours(pipeline, use, prompt=prompt) - wanted).max() <= 1


@pytest.mark.parametrize("kind", ["LoRA", "DoRA", "LoHa", "LoKr"])
@torch.no_grad()
def test_every_kind_that_peft_trains_computes_the_same_here(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    targets = list(ATTENTION)
    config: peft.PeftConfig
    if kind in ("LoRA", "DoRA"):
        config = peft.LoraConfig(
            r=4, lora_alpha=2, target_modules=targets, use_dora=kind == "DoRA",
            init_lora_weights=False,
        )  # fmt: skip
    elif kind == "LoHa":
        config = peft.LoHaConfig(r=4, alpha=2, target_modules=targets, init_weights=False)
    else:
        config = peft.LoKrConfig(r=4, alpha=2, target_modules=targets, init_weights=False)
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    adapted = peft.get_peft_model(unet, config)
    for mark, size in (("lora_", 0.1), ("hada_", 0.5)):
        shake((p for key, p in adapted.named_parameters() if mark in key), size=size)
    adapted.save_pretrained(tmp_path)
    pipeline = load_pipeline(folder, device="cpu")
    own = pipeline.parts.unet
    latents, context = torch.randn(2, 4, 8, 8), torch.randn(2, 7, unet.config.cross_attention_dim)
    timesteps = torch.tensor([3.0, 700.0])
    added, told = None, {}
    if unet.config.addition_embed_type:
        pooled, sizes = torch.randn(2, peers.WIDTH_2), torch.full((2, 6), 64.0)
        added = AddedConditions(pooled=pooled, sizes=sizes)
        told = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
    wanted = adapted(latents, timesteps, context, **told).sample
    plain = own(latents, timesteps, context, added)
    lora = load_loras(tmp_path / "adapter_model.safetensors", {"lora_unet": own})["lora_unet"]
    lora.inject(own)
    drawn = own(latents, timesteps, context, added)
    assert float((wanted - plain).abs().max()) > 0.01, "it matters"
    assert float((drawn - wanted).abs().max()) < 1e-4
