"""What the finetuners write loads back and gives what they gave."""

from pathlib import Path
from typing import Any

import pytest
import torch
from finetuning import (
    KINDS,
    outputs,
    settings,
)

from sd_adapters import TextualInversion, load_embedding, load_hypernetwork, load_loras
from sd_checkpoint import Checkpoint
from sd_ops import use_fast_paths
from sd_pipeline import load_model, sha256
from sd_pipeline.adapter_places import adapter_models
from sd_train import build_task, run, train

METHODS = tuple(KINDS)


@pytest.mark.parametrize(
    "lora",
    [
        {"layout": "kohya", "text": True, "targets": "all"},
        {"layout": "diffusers", "text": True},
        {"kind": "loha", "rank": 2, "targets": ("attn2.to_k", "attn2.to_v")},
    ],
)
def test_a_loras_file_loads_back_and_gives_equal_outputs(
    tiny_model: Path, cats: Path, tmp_path: Path, lora: dict[str, Any]
) -> None:
    config = settings("lora", tiny_model, cats, {"learning_rate": 0.02}, lora=lora, name="mog")
    task = build_task(config, tmp_path)
    result = train(task, config.trainer, tmp_path)
    path = result.model / "mog.safetensors"
    fresh = load_model(tiny_model)
    plain = outputs(fresh, "a cat on a mat")
    for prefix, each in load_loras(path, adapter_models(fresh)).items():
        each.inject(adapter_models(fresh)[prefix])
    ours = outputs(task.parts, "a cat on a mat")
    torch.testing.assert_close(outputs(fresh, "a cat on a mat"), ours, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours, plain, atol=1e-3)


def test_a_loras_header_says_how_it_came_about(
    tiny_model: Path, cats: Path, tmp_path: Path
) -> None:
    run(settings("lora", tiny_model, cats, lora={"rank": 3, "alpha": 6}), tmp_path)
    told = Checkpoint.open(tmp_path / "model/cat.safetensors").metadata
    weights = tiny_model / "unet/diffusion_pytorch_model.safetensors"
    expected = {
        "ss_sd_model_name": "tiny",
        "ss_new_sd_model_hash": sha256(weights),
        "ss_network_dim": "3",
        "ss_network_alpha": "6",
        "ss_steps": "4",
        "modelspec.trigger_phrase": "a sks cat",
    }
    assert expected.items() <= dict(told).items()


def test_a_hypernetworks_file_loads_back_and_gives_equal_outputs(
    tiny_model: Path, cats: Path, tmp_path: Path
) -> None:
    for suffix in ("pt", "safetensors"):
        config = settings("hypernetwork", tiny_model, cats, format=suffix)
        task = build_task(config, tmp_path / suffix)
        result = train(task, config.trainer, tmp_path / suffix)
        fresh = load_model(tiny_model)
        loaded = load_hypernetwork(result.model / f"cat.{suffix}")
        assert loaded.origin.step == 4
        loaded.inject(fresh.unet)
        task.hypernetwork.eval()
        ours = outputs(task.parts, "a cat on a mat")
        torch.testing.assert_close(outputs(fresh, "a cat on a mat"), ours)


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "webui"])
def test_an_embeddings_file_loads_back_and_gives_equal_states(
    tiny_model: Path, cats: Path, tmp_path: Path, layout: str
) -> None:
    config = settings("textual_inversion", tiny_model, cats, layout=layout, templates="captions")
    task = build_task(config, tmp_path)
    result = train(task, config.trainer, tmp_path)
    suffix = ".pt" if layout == "webui" else ".safetensors"
    embedding = load_embedding(result.model / f"my-cat{suffix}")
    assert embedding.name == "my-cat"
    assert embedding.origin.step == 4 or layout == "kohya"
    fresh = load_model(tiny_model)
    (tower,) = fresh.towers
    inversion = TextualInversion(embedding.vectors[0], tower.config.vocab_size)
    inversion.inject(tower)
    tower.tokenizer = tower.tokenizer.with_names({"my-cat": inversion.ids})
    prompt = "a my-cat on a mat"
    use_fast_paths(fresh.unet)  # as what learns does, whose sums are rounded otherwise
    assert torch.equal(outputs(fresh, prompt), outputs(task.parts, prompt))
    assert not torch.allclose(outputs(fresh, prompt), outputs(fresh, "a cat on a mat"))
