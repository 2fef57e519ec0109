"""From drawn scenes to a picture of a model that was trained on them, by commands alone."""

import json
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from sdcli.main import run

VAE = """
[data]
folder = "{data}"
size = 32
holdout = 2
[vae]
preset = "scenes"
fields = {{ block_out_channels = [16, 16, 16], latent_channels = 4, norm_num_groups = 8 }}
[trainer]
steps = 3
batch_size = 4
tensorboard = false
"""

UNET = """
vae = "{vae}"
[data]
folder = "{data}"
size = 32
holdout = 2
[text]
{text}
[unet]
preset = "scenes"
fields = {{ block_out_channels = [32, 32], attention_levels = [false, true], num_heads = 2 }}
[objective]
prediction = "v"
[samples]
count = 2
steps = 2
[trainer]
steps = 3
batch_size = 4
tensorboard = false
"""

TRAINED_ALONG = """
train = true
preset = "scenes"
fields = { hidden_size = 32, intermediate_size = 64, num_layers = 1, num_heads = 2 }
tokenizer = "captions"
context_length = 32
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole-way")
    data, vae = root / "data", root / "vae"
    assert run(["scenes", str(data), "--count", "12", "--size", "32", "--workers", "1"]) == 0
    (root / "vae.toml").write_text(VAE.format(data=data))
    assert run(["train-vae", str(root / "vae.toml"), "--run", str(vae)]) == 0
    (root / "unet.toml").write_text(UNET.format(data=data, vae=vae / "model", text=TRAINED_ALONG))
    assert run(["train", str(root / "unet.toml"), "--run", str(root / "unet")]) == 0
    return root / "unet" / "model"


def test_the_trained_model_draws(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "one.png"
    code = run(
        ["txt2img", "a cat on a mat", "--model", str(model), "--steps", "2", "--out", str(out)]
    )
    assert code == 0
    assert Image.open(out).size == (32, 32)


def test_diffusers_opens_the_trained_model_and_draws_the_same_picture(
    model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "one.png"
    prompt = "two black cats on a red mat"
    settings = ["--steps", "4", "--guidance", "3", "--seed", "5", "--device", "cpu"]
    run(["txt2img", prompt, "--model", str(model), "--out", str(out), *settings])
    peer = diffusers.StableDiffusionPipeline.from_pretrained(model)
    peer.set_progress_bar_config(disable=True)
    theirs = peer(
        prompt,
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=torch.Generator("cpu").manual_seed(5),
    ).images[0]
    difference = np.abs(np.asarray(Image.open(out)).astype(int) - np.asarray(theirs).astype(int))
    assert difference.max() <= 1  # one grey level: rounding


def test_what_the_runs_have_held_out_is_evaluated(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = model.parent
    assert run(["eval", str(run_folder), "--bands", "2", "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["subject"] == str(run_folder / "checkpoints" / "step-00000003")
    assert [band["num_looks"] for band in found["bands"]] == [2, 2]
    assert run(["eval", str(run_folder), "--best", "--bands", "1", "--device", "cpu"]) == 0
    assert "checkpoints" in capsys.readouterr().out
    vae = run_folder.parent / "vae"
    assert run(["eval", str(vae), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["validation"]["psnr"] > 0
    assert run(["eval", str(vae), "--measures", "loss"]) == 2
    assert "is of no run of train" in capsys.readouterr().err


def test_a_frozen_text_encoder_stays_as_it_was(model: Path, tmp_path: Path) -> None:
    text = f'folder = "{model}"'
    data = model.parents[1] / "data"
    vae = model.parents[1] / "vae" / "model"
    (tmp_path / "unet.toml").write_text(UNET.format(data=data, vae=vae, text=text))
    assert run(["train", str(tmp_path / "unet.toml"), "--run", str(tmp_path / "run")]) == 0
    frozen = tmp_path / "run" / "model" / "text_encoder" / "model.safetensors"
    assert frozen.read_bytes() == (model / "text_encoder" / "model.safetensors").read_bytes()
