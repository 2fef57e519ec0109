"""LoRA in the real text towers: open_clip's attention reads its weights past any module."""

from itertools import permutations
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sd_adapters import (
    Lora,
    LoraConfig,
    keys_by_name,
    load_loras,
    paths_by_name,
    save_diffusers_loras,
)
from sd_textenc import TextTower, Tokenizer, train_tokenizer
from tests.textenc.towers import clip_config, open_clip_config, tower

PREFIX = "lora_te2_text_model"
ALL = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
LAYER = f"{PREFIX}_encoder_layers_1_self_attn"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a cat on a mat", "two black dogs"], context_length=12)


@pytest.fixture
def open_clip(tokenizer: Tokenizer) -> TextTower:
    return tower(open_clip_config(tokenizer), tokenizer)


def states(encoder: TextTower) -> Tensor:
    return encoder.encode(["a cat on a mat", "two black dogs"]).hidden_states


def learnt(encoder: TextTower, seed: int, **options: object) -> Lora:
    torch.manual_seed(seed)
    lora = Lora.create(encoder.model, LoraConfig(rank=2, alpha=3.0, targets=ALL, **options), PREFIX)
    with torch.no_grad():
        for parameter in lora.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return lora


def packed(encoder: TextTower) -> Tensor:
    return encoder.model.transformer.resblocks[1].attn.in_proj_weight


def test_open_clips_layers_have_the_names_that_all_files_use(
    tokenizer: Tokenizer, open_clip: TextTower
) -> None:
    peer = tower(clip_config(tokenizer), tokenizer).model
    names = paths_by_name(open_clip.model, PREFIX).keys()
    # It has a layer more.
    assert {name for name in names if "layers_3" not in name} == paths_by_name(peer, PREFIX).keys()
    keys = keys_by_name(open_clip.model, PREFIX)
    assert f"{LAYER}_q_proj" not in keys
    assert all(key in open_clip.model.state_dict() for key in keys.values())


@torch.no_grad()
def test_file_adds_to_the_rows_of_the_packed_weight(tmp_path: Path, open_clip: TextTower) -> None:
    before, weights = states(open_clip), packed(open_clip).clone()
    sides = {side: torch.randn(2, 2, 32) / 4 for side in ("q_proj", "k_proj", "v_proj", "out_proj")}
    tensors = {}
    for side, (down, up) in sides.items():
        tensors[f"{LAYER}_{side}.lora_down.weight"] = down.contiguous()
        tensors[f"{LAYER}_{side}.lora_up.weight"] = up.T.contiguous()
        tensors[f"{LAYER}_{side}.alpha"] = torch.tensor(1.0)
    save_file(tensors, tmp_path / "lora.safetensors")
    # What it is to be: written into the weights by hand.
    lora = load_loras(tmp_path / "lora.safetensors", {PREFIX: open_clip.model})[PREFIX]
    attention = open_clip.model.transformer.resblocks[1].attn
    out = attention.out_proj.weight.clone()
    additions = {side: 0.5 * 0.7 * up.T @ down for side, (down, up) in sides.items()}
    attention.in_proj_weight += torch.cat([additions[f"{each}_proj"] for each in "qkv"])
    attention.out_proj.weight += additions["out_proj"]
    expected = states(open_clip)
    attention.in_proj_weight.copy_(weights)
    attention.out_proj.weight.copy_(out)
    assert torch.equal(states(open_clip), before)
    assert not torch.allclose(expected, before, atol=1e-2)
    lora.strength = 0.7
    lora.inject(open_clip.model)
    assert torch.allclose(states(open_clip), expected, atol=1e-5)
    assert torch.equal(packed(open_clip), weights)
    lora.fuse()
    assert torch.allclose(states(open_clip), expected, atol=1e-5)
    lora.eject()
    assert torch.equal(states(open_clip), before)
    assert torch.equal(packed(open_clip), weights)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@torch.no_grad()
def test_several_of_all_kinds_add_up_and_eject_in_any_order(
    open_clip: TextTower, order: tuple[int, ...]
) -> None:
    before = states(open_clip)
    weights = {key: tensor.clone() for key, tensor in open_clip.state_dict().items()}
    loras = [
        learnt(open_clip, 1),
        learnt(open_clip, 2, dora=True),
        learnt(open_clip, 3, kind="loha"),
    ]
    expected = packed(open_clip).clone()
    for lora in loras:
        lora.strength = 0.5
        expected += torch.cat(
            [
                0.5 * lora[f"{LAYER}_{each}_proj"].addition(rows)
                for each, rows in zip("qkv", packed(open_clip).chunk(3), strict=True)
            ]
        )
        lora.inject(open_clip.model)
    seen = []
    handle = open_clip.model.transformer.resblocks[1].attn.register_forward_pre_hook(
        lambda attention, _: seen.append(attention.in_proj_weight.clone())
    )
    assert not torch.allclose(states(open_clip), before, atol=1e-2)
    handle.remove()
    assert torch.allclose(seen[0], expected, atol=1e-5)
    assert list(open_clip.state_dict()) == list(weights)
    assert all(torch.equal(open_clip.state_dict()[key], t) for key, t in weights.items())
    for index in order:
        loras[index].eject()
        states(open_clip)
    assert torch.equal(states(open_clip), before)
    assert all(torch.equal(open_clip.state_dict()[key], t) for key, t in weights.items())
    assert all(not module._forward_hooks for module in open_clip.modules())
    assert all(not module._forward_pre_hooks for module in open_clip.modules())


def test_weights_are_back_after_a_forward_pass_that_failed(open_clip: TextTower) -> None:
    weight = packed(open_clip)
    loras = [learnt(open_clip, seed) for seed in range(2)]
    for lora in loras:
        lora.inject(open_clip.model)
    attention = open_clip.model.transformer.resblocks[1].attn
    with pytest.raises((RuntimeError, AssertionError)):
        attention(*[torch.ones(2, 3, 7)] * 3)
    assert attention.in_proj_weight is weight


def test_adapter_learns_while_a_frozen_tower_does_not(open_clip: TextTower) -> None:
    open_clip.requires_grad_(False)
    lora = learnt(open_clip, 4)
    lora.inject(open_clip.model)
    states(open_clip).square().mean().backward()
    assert all(parameter.grad is None for parameter in open_clip.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in lora.parameters())


def test_diffusers_file_has_transformers_paths(tmp_path: Path, open_clip: TextTower) -> None:
    lora = learnt(open_clip, 5)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_diffusers_loras(path, [lora], {PREFIX: open_clip.model})
    key = "text_encoder_2.text_model.encoder.layers.1.self_attn.q_proj.lora_A.weight"
    assert key in load_file(path)
    loaded = load_loras(path, {PREFIX: open_clip.model})[PREFIX]
    assert loaded.keys() == lora.keys()
