"""Adapters change what a pipeline draws, for the pictures that ask for them and for no others."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sd_adapters import (
    AdapterError,
    Embedding,
    Hypernetwork,
    HypernetworkConfig,
    Lora,
    LoraConfig,
    save_embedding,
    save_hypernetwork,
    save_loras,
)
from sd_pipeline import AdapterUse, Pipeline, PipelineError, Txt2Img, adapter_models, load_pipeline

PROMPT = "a cat on a mat"


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


def shaken(module: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)


@pytest.fixture(scope="module")
def files(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    models = adapter_models(pipeline.parts)
    for seed, name in enumerate(("one", "two")):
        loras = []
        for prefix, targets in (
            ("lora_unet", ("to_k", "to_v")),
            ("lora_te_text_model", ("q_proj",)),
        ):
            config = LoraConfig(rank=2, alpha=2.0, targets=targets)
            loras.append(Lora.create(models[prefix], config, prefix))
            shaken(loras[-1], seed)
        save_loras(folder / f"{name}.safetensors", loras)
    network = Hypernetwork.create(pipeline.parts.unet, HypernetworkConfig(), widths=[32])
    shaken(network)
    save_hypernetwork(folder / "hyper.pt", network)
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    save_embedding(folder / "rex.pt", Embedding(name="rex", vectors=(vectors,)))
    wide = Embedding(name="wide", vectors=(torch.randn(1, 768),))
    save_embedding(folder / "wide.pt", wide)
    return folder


def lora(files: Path, name: str = "one", **strengths: object) -> AdapterUse:
    return AdapterUse(kind="lora", file=str(files / f"{name}.safetensors"), **strengths)


def hyper(files: Path, strength: float = 1.0) -> AdapterUse:
    return AdapterUse(kind="hypernetwork", file=str(files / "hyper.pt"), strength=strength)


def rex(files: Path) -> AdapterUse:
    return AdapterUse(kind="embedding", file=str(files / "rex.pt"))


def drawn(pipeline: Pipeline, *uses: AdapterUse, prompt: str = PROMPT) -> np.ndarray:
    (picture,) = pipeline.txt2img(Txt2Img(prompt=prompt, num_steps=2, adapters=uses))
    return np.asarray(picture.image).astype(int)


def test_every_kind_changes_the_picture_and_is_gone_afterwards(
    pipeline: Pipeline, files: Path
) -> None:
    before = drawn(pipeline)
    weights = {key: value.clone() for key, value in pipeline.parts.unet.state_dict().items()}
    for use in (lora(files), hyper(files)):
        assert not np.array_equal(drawn(pipeline, use), before)
    assert not np.array_equal(drawn(pipeline, rex(files), prompt="a rex"), drawn(pipeline))
    assert np.array_equal(drawn(pipeline), before)
    after = pipeline.parts.unet.state_dict()
    assert all(torch.equal(after[key], value) for key, value in weights.items())
    assert pipeline.check_prompt("rex").unknown == ("rex",)
    assert pipeline.check_prompt("rex", [rex(files)]).unknown == ()


def test_strengths_count(pipeline: Pipeline, files: Path) -> None:
    plain, full = drawn(pipeline), drawn(pipeline, lora(files))
    assert np.array_equal(drawn(pipeline, lora(files, strength=0.0)), plain)
    assert np.array_equal(drawn(pipeline, hyper(files, 0.0)), plain)
    half = drawn(pipeline, lora(files, strength=0.5))
    assert 0 < np.abs(half - plain).mean() < np.abs(full - plain).mean()
    unet_alone = drawn(pipeline, lora(files, text_strength=0.0))
    text_alone = drawn(pipeline, lora(files, strength=0.0, text_strength=1.0))
    assert len({picture.tobytes() for picture in (plain, full, unet_alone, text_alone)}) == 4


def test_blocks_have_strengths_of_their_own(pipeline: Pipeline, files: Path) -> None:
    off = {"down_blocks": 0.0, "mid_block": 0.0, "up_blocks": 0.0}
    nothing = lora(files, text_strength=0.0, blocks=off)
    assert np.array_equal(drawn(pipeline, nothing), drawn(pipeline))
    some = lora(files, text_strength=0.0, blocks=off | {"up_blocks": 1.0})
    assert not np.array_equal(drawn(pipeline, some), drawn(pipeline))
    with pytest.raises(AdapterError, match="no block 'attic'"):
        drawn(pipeline, lora(files, blocks={"attic": 1.0}))
    assert np.array_equal(drawn(pipeline, nothing), drawn(pipeline)), "nothing stayed attached"


def test_several_at_once_and_fused_are_the_same_to_rounding(
    pipeline: Pipeline, files: Path
) -> None:
    uses = (lora(files, strength=0.7), lora(files, "two"), hyper(files), rex(files))
    attached = drawn(pipeline, *uses, prompt="a rex on a mat")
    assert not np.array_equal(attached, drawn(pipeline, *uses[:1], prompt="a rex on a mat"))
    fusing = replace(pipeline, fuse=True)
    before = {key: value.clone() for key, value in pipeline.parts.unet.state_dict().items()}
    assert np.abs(drawn(fusing, *uses, prompt="a rex on a mat") - attached).max() <= 1
    after = pipeline.parts.unet.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_the_record_tells_the_file_its_hash_and_the_strengths(
    pipeline: Pipeline, files: Path
) -> None:
    use = lora(files, strength=0.5, text_strength=0.25, blocks={"mid_block": 2.0})
    request = Txt2Img(prompt=PROMPT, num_steps=1, adapters=(use, rex(files)))
    record = pipeline.resolve(request)
    assert record.adapters[0].sha256 is not None
    assert len(record.adapters[0].sha256) == 64
    assert "<lora:one:0.25:0.5:mid_block=2>" in record.parameters()
    assert type(record).from_values(json.loads(record.json())) == record


def test_what_cannot_be_attached_is_told_and_leaves_nothing(
    pipeline: Pipeline, files: Path
) -> None:
    plain = drawn(pipeline)
    with pytest.raises(PipelineError, match="there is no file"):
        drawn(pipeline, AdapterUse(kind="lora", file="nowhere.safetensors"))
    with pytest.raises(PipelineError, match="named twice"):
        drawn(pipeline, lora(files), lora(files, strength=0.5))
    with pytest.raises(AdapterError):
        drawn(pipeline, lora(files), AdapterUse(kind="embedding", file=str(files / "wide.pt")))
    assert np.array_equal(drawn(pipeline), plain)
    with pytest.raises(PipelineError, match="from -100 to 100"):
        lora(files, strength=float("nan"))
