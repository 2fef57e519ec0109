"""Runs of `train` that begin with a model that is there."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toy import Recorder

from sd_pipeline import PipelineError, load_model, load_text_encoder, open_model, write_single_file
from sd_train import DenoiserTrainConfig, export_run, rehearse_run, run
from sd_train.build import build_denoiser_task
from sd_train.config import ObjectiveSettings
from sd_train.latents import encode_pictures
from tests.parity import peers


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny SD 1.x of the peer's, as a folder and as one file."""
    folder = tmp_path_factory.mktemp("sd1")
    peers.FAMILIES["sd1"](folder).save_pretrained(folder / "model")
    write_single_file(folder / "a.safetensors", open_model(folder / "model"))
    return {"folder": folder / "model", "file": folder / "a.safetensors"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(6):
        values = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a photo of noise")
    return folder


def settings(model: Path, pictures: Path, **more: Any) -> DenoiserTrainConfig:
    trainer = {"steps": 3, "batch_size": 2, "learning_rate": 1e-3, "device": "cpu"}
    values: dict[str, Any] = {
        "vae": str(model),
        "init_from": str(model),
        "text": {"train": False, "folder": str(model)},
        "data": {"folder": str(pictures), "size": 64, "holdout": 2},
        "trainer": {**trainer, "save_every": 0, "tensorboard": False},
        "samples": {"count": 0},
        "export_dtype": "fp32",
    }
    return DenoiserTrainConfig.model_validate({**values, **more})


@pytest.mark.parametrize("begun", ["folder", "file", "unet", "parts", "alone"])
def test_what_a_run_changes_of_its_model_is_said(
    models: dict[str, Path], pictures: Path, tmp_path: Path, begun: str
) -> None:
    whole, parts, alone = models["folder"], tmp_path / "parts", tmp_path / "alone"
    for name in ("unet", "scheduler"):  # and nothing else of the model
        shutil.copytree(whole / name, parts / name)
    shutil.copy(whole / "model_index.json", parts)
    shutil.copytree(whole / "unet", alone / "unet")
    places = {"unet": whole, "parts": parts, "alone": alone}
    path = models[begun] if begun in models else places[begun] / "unet"
    same, other = Recorder(), Recorder()
    told = settings(models["folder"], pictures, init_from=str(path))
    build_denoiser_task(told, reporter=same)
    changed = told.model_copy(update={"objective": ObjectiveSettings(prediction="v")})
    build_denoiser_task(changed, reporter=other)
    assert not any("was taught with" in line for line in same.messages)
    lines = [line for line in other.messages if "was taught with" in line]
    assert len(lines) == (begun != "alone")
    assert all("objective.prediction = 'eps' (here 'v'): " in line for line in lines)


@pytest.mark.parametrize("layout", ["folder", "file"])
def test_every_part_of_a_run_comes_from_a_whole_model(
    models: dict[str, Path], pictures: Path, layout: str
) -> None:
    task = build_denoiser_task(settings(models[layout], pictures))
    expected = load_model(models["folder"])
    pairs = zip(
        (task.parts.unet, task.parts.vae, task.parts.text),
        (expected.unet, expected.vae, expected.text),
        strict=True,
    )
    for got, wanted in pairs:
        theirs = wanted.state_dict()
        assert got.state_dict().keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in got.state_dict().items())
    assert all(parameter.requires_grad for parameter in task.parts.unet.parameters())


def test_a_run_that_makes_activations_again_learns_the_same(
    models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    learnt = []
    for again in (False, True):
        config = settings(models["file"], pictures, gradient_checkpointing=again)
        assert build_denoiser_task(config).parts.unet.gradient_checkpointing == again
        result = run(config, tmp_path / str(again))
        assert result.model is not None
        learnt.append(load_model(result.model).unet.state_dict())
    first, second = learnt
    before = load_model(models["folder"]).unet.state_dict()
    assert not torch.equal(first["conv_in.weight"], before["conv_in.weight"])
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=1e-5, rtol=0)


def test_a_rehearsal_encodes_a_piece_and_tells_what_all_of_them_take(
    models: dict[str, Path], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sd_train.encoded.PIECE", 2)
    asked: list[int] = []

    def encoded(*arguments: Any) -> dict[str, torch.Tensor]:
        asked.append(len(arguments[-1]))
        return encode_pictures(*arguments)

    monkeypatch.setattr("sd_train.encoded.encode_pictures", encoded)
    config = settings(models["folder"], pictures)
    found = rehearse_run(config, tmp_path / "run")
    assert asked == [2], "two of the six pictures"
    assert found.encoding_seconds > 0
    assert any("encoding pictures and captions come first" in line for line in found.lines())
    assert not (tmp_path / "run").exists()
    result = run(config, tmp_path / "run")
    assert result.model is not None
    del asked[:]
    assert rehearse_run(config, tmp_path / "run").encoding_seconds == 0
    shutil.rmtree(tmp_path / "run/cache")
    export_run(config, tmp_path / "run", tmp_path / "exported")
    assert asked == [2], "an export wants no data"
    first, second = (load_model(each).unet for each in (result.model, tmp_path / "exported"))
    assert torch.equal(first.conv_in.weight, second.conv_in.weight)


def test_two_text_encoders_are_not_one(tmp_path: Path) -> None:
    peers.FAMILIES["sdxl"](tmp_path).save_pretrained(tmp_path / "model")
    path = tmp_path / "a.safetensors"
    write_single_file(path, open_model(tmp_path / "model"))
    with pytest.raises(PipelineError, match="has 2 text encoders, not one"):
        load_text_encoder(path)
