"""A model whose denoiser is a transformer, through everything that a UNet goes through."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sd_adapters import Lora, LoraConfig
from sd_pipeline import (
    Parts,
    Pipeline,
    Txt2Img,
    inspect_model,
    load_model,
    load_pipeline,
    open_model,
    save_model,
    write_single_file,
)
from sd_sampler import GuidanceOptions
from sd_unet import DiT, DiTConfig
from tests.tiny_model import tiny_parts

CONFIG = DiTConfig(sample_size=8, channels=32, num_layers=3, num_heads=2, cross_attention_dim=32)


@pytest.fixture(scope="module")
def parts() -> Parts:
    torch.manual_seed(1)
    dit = DiT(CONFIG)
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.normal_(std=0.1)
    return replace(tiny_parts(), unet=dit.eval())


@pytest.fixture(scope="module")
def folder(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("dit") / "model"
    save_model(place, parts, dtype=torch.float32)
    return place


def draw(pipeline: Pipeline, **settings: object) -> np.ndarray:
    request = Txt2Img(prompt="a cat on a mat", num_steps=3, seed=5, **settings)
    return np.asarray(next(iter(pipeline.txt2img(request))).image).astype(int)


def test_a_folder_brings_it_back_with_every_weight(parts: Parts, folder: Path) -> None:
    again = load_model(folder).unet
    assert isinstance(again, DiT)
    assert again.config == CONFIG
    for name, weight in parts.unet.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    index = json.loads((folder / "model_index.json").read_text())
    assert index["unet"] == ["sd_unet", "DiT"]


def test_a_single_file_draws_what_the_folder_does(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "dit.safetensors"
    write_single_file(path, open_model(folder))
    expected = draw(load_pipeline(folder, device="cpu"))
    assert np.array_equal(draw(load_pipeline(path, device="cpu")), expected)
    assert expected.std() > 1
    assert inspect_model(path).missing == ()


def test_pictures_of_sizes_that_are_no_whole_patches_are_drawn(folder: Path) -> None:
    pipeline = load_pipeline(folder, device="cpu")
    assert draw(pipeline, width=72, height=40).shape == (40, 72, 3)


def test_its_attention_is_perturbed(folder: Path) -> None:
    pipeline = load_pipeline(folder, device="cpu")
    guided = draw(pipeline, guidance=GuidanceOptions(pag_scale=3.0))
    assert not np.array_equal(guided, draw(pipeline))


def test_a_lora_changes_it_and_leaves_no_trace(folder: Path) -> None:
    pipeline = load_pipeline(folder, device="cpu")
    before = draw(pipeline)
    targets = ("attn1.to_q", "attn2.to_v", "ff.net.2", "modulation")
    lora = Lora.create(pipeline.parts.unet, LoraConfig(rank=2, alpha=2.0, targets=targets))
    with torch.no_grad():
        for parameter in lora.parameters():
            parameter.normal_(std=0.3)
    lora.inject(pipeline.parts.unet)
    assert not np.array_equal(draw(pipeline), before)
    lora.eject()
    assert np.array_equal(draw(pipeline), before)
