"""Pictures and previews through a tiny autoencoder that somebody names."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sd_checkpoint import save_json, save_safetensors
from sd_pipeline import Pipeline, Txt2Img, load_pipeline, to_images
from sd_vae import TinyDecoder, TinyDecoderConfig
from sdcli.main import run

Draw = Callable[..., tuple[int, Path, str]]


def write(path: Path, config: TinyDecoderConfig, beginning: str = "") -> Path:
    torch.manual_seed(0)
    tensors = {
        beginning + key.removeprefix("layers."): tensor
        for key, tensor in TinyDecoder(config).state_dict().items()
    }
    save_safetensors(path, tensors)
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    return write(folder / "taesd_decoder.safetensors", TinyDecoderConfig(channels=8))


@pytest.fixture
def draw(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Draw:
    def drawn(*arguments: object) -> tuple[int, Path, str]:
        out = tmp_path / "one.png"
        given = ("txt2img", "a cat", "--model", tiny_model, "--out", out, "--steps", 2, "--seed", 1)
        code = run([str(argument) for argument in (*given, *arguments)])
        return code, out, capsys.readouterr().err

    return drawn


def test_it_draws_what_its_decoder_makes_of_the_same_latents(tiny_model: Path, tiny: Path) -> None:
    pipeline = load_pipeline(tiny_model, device="cpu")
    small = pipeline.with_tiny_vae(tiny)
    latents = torch.randn(3, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    assert small.tiny_vae is not None
    with torch.no_grad():
        wanted = to_images(small.tiny_vae.decoder(latents))
    found = small.decode(latents)
    assert [image.tobytes() for image in found] == [image.tobytes() for image in wanted]
    assert [image.size for image in small.previewer()(latents)] == [(64, 48)] * 3
    assert pipeline.decode(latents)[0].tobytes() != found[0].tobytes()
    assert [image.size for image in pipeline.previewer()(latents)] == [(8, 6)] * 3


def test_a_seamless_picture_is_so_there_too(tiny_model: Path, tiny: Path) -> None:
    pipeline: Pipeline = load_pipeline(tiny_model, device="cpu").with_tiny_vae(tiny)
    plain, joined = (
        np.asarray(
            next(pipeline.txt2img(Txt2Img(prompt="a cat", num_steps=1, seamless=axes))).image
        )
        for axes in ("none", "both")
    )
    assert not np.array_equal(plain, joined)
    decoder = pipeline.tiny_vae.decoder  # type: ignore[union-attr]
    assert decoder.layers[0].padding == (1, 1)


def test_the_command_says_what_it_trades_and_replay_does_the_same(
    draw: Draw, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Path(shutil.copy(tiny, tmp_path / "mine.safetensors"))
    code, out, told = draw("--tiny-vae", mine, "--preview", 1)
    assert code == 0
    assert f"--tiny-vae: {mine} draws in place of the model's decoder" in told
    record = json.loads(Image.open(out).text["sd-record"])
    assert record["tiny_vae"] == str(mine)
    assert len(record["tiny_vae_hash"]) == 64
    # What the last step aims at is what is drawn, and the preview is as large.
    with Image.open(tmp_path / "one.preview.png") as preview, Image.open(out) as picture:
        assert np.array_equal(np.asarray(preview), np.asarray(picture))
    assert run(["replay", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: identical\n"
    mine.rename(tmp_path / "moved.safetensors")
    assert run(["replay", str(out)]) == 2
    assert "there is no" in capsys.readouterr().err
    assert run(["replay", str(out), "--tiny-vae", str(tmp_path / "moved.safetensors")]) == 0
    assert "identical" in capsys.readouterr().out


def test_folders_and_both_layouts_are_opened(tiny_model: Path, tiny: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(tiny_model, device="cpu")
    latents = torch.randn(1, 4, 4, 4)
    wanted = pipeline.with_tiny_vae(tiny).decode(latents)[0].tobytes()
    folder = tmp_path / "diffusers"
    folder.mkdir()
    name = folder / "diffusion_pytorch_model.safetensors"
    write(name, TinyDecoderConfig(channels=8), "decoder.layers.")
    for place in (tiny.parent, name, folder):
        assert pipeline.with_tiny_vae(place).decode(latents)[0].tobytes() == wanted


def test_what_cannot_be_it_is_one_line(draw: Draw, tiny: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "sd3.safetensors", TinyDecoderConfig(channels=8, latent_channels=16))
    half = write(tmp_path / "half.safetensors", TinyDecoderConfig(channels=8, num_blocks=(1, 1)))
    strange = tmp_path / "strange.safetensors"
    save_safetensors(strange, {"conv.weight": torch.zeros(1)})
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(tiny.read_bytes()[:100])
    folder = tmp_path / "config"
    folder.mkdir()
    save_json(folder / "config.json", {"_class_name": "AutoencoderTiny", "act_fn": "gelu"})
    for path, words in (
        (tmp_path / "nothing", "which is not downloaded"),
        (other, "decodes 16 channels to 3 at 8 times the size, and this model wants 4 to 3 at 8"),
        (half, "decodes 4 channels to 3 at 2 times the size"),
        (strange, "no keys of a tiny autoencoder's decoder (conv.weight)"),
        (broken, "broken.safetensors"),
        (folder, "has act_fn 'gelu'; a tiny autoencoder is built here with 'relu' alone"),
        (tmp_path, "has no diffusion_pytorch_model.safetensors"),
    ):
        code, out, told = draw("--tiny-vae", path)
        assert code == 2
        assert words in told
        assert told.count("\n") == 1
        assert not out.exists()
