import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sd_checkpoint import save_safetensors
from sd_pipeline import load_vae, to_images, to_pixels
from sdcli.main import run
from tests.pipeline.worst_pictures import bombs


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return tmp_path / "in.png"


def test_img2img_draws_from_a_picture(tiny_model: Path, tmp_path: Path, image: Path) -> None:
    out = tmp_path / "out.png"
    arguments = ["--model", str(tiny_model), "--out", str(out), "--steps", "4", "--seed", "1"]
    assert run(["img2img", str(image), "two black dogs", *arguments, "--strength", "0.5"]) == 0
    assert Image.open(out).size == (64, 40)
    assert "Denoising strength: 0.5" in Image.open(out).text["parameters"]


@pytest.fixture
def depth(tmp_path: Path) -> Path:
    levels = np.tile(np.arange(32, dtype=np.uint16), (20, 1))  # too little for eight bits
    Image.fromarray(levels).save(tmp_path / "depth.png")
    return tmp_path / "depth.png"


def test_img2img_edits_by_an_instruction(tiny_pix2pix: Path, tmp_path: Path, image: Path) -> None:
    out = tmp_path / "out.png"
    arguments = ["--model", str(tiny_pix2pix), "--out", str(out), "--steps", "2", "--seed", "1"]
    assert run(["img2img", str(image), "a black dog", *arguments]) == 0
    usual = Image.open(out)
    assert usual.size == (64, 40)
    assert "Image CFG scale: 1.5" in usual.text["parameters"]
    assert run(["img2img", str(image), "a black dog", *arguments, "--image-guidance", "3"]) == 0
    assert "Image CFG scale: 3," in Image.open(out).text["parameters"]
    assert not np.array_equal(np.asarray(usual), np.asarray(Image.open(out)))


def test_img2img_draws_by_depth(tiny_depth: Path, tmp_path: Path, image: Path, depth: Path) -> None:
    out = tmp_path / "out.png"
    arguments = ["--model", str(tiny_depth), "--out", str(out), "--steps", "2", "--seed", "1"]
    assert run(["img2img", str(image), "a dog", *arguments, "--depth", str(depth)]) == 0
    assert "Denoising strength: 0.75" in Image.open(out).text["parameters"]


@pytest.mark.parametrize(
    ("model", "arguments", "says"),
    [
        ("tiny_model", ["--image-guidance", "1.5"], "leave out --image-guidance"),
        ("tiny_model", ["--depth", "DEPTH"], "leave out --depth"),
        ("tiny_depth", [], "give img2img a map as --depth"),
        ("tiny_depth", ["--depth", "IMAGE"], "in.png: the depth map is in colour"),
        ("tiny_pix2pix", ["--strength", "0.5"], "a strength (0.5) says nothing to it"),
        ("tiny_pix2pix", ["--image-guidance", "-1"], "image guidance is -1.0"),
        ("tiny_pix2pix", ["--apg"], "leave out adaptive projected guidance (--apg)"),
    ],
)
def test_a_setting_that_the_model_would_not_heed_is_one_line(
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    image: Path,
    depth: Path,
    model: str,
    arguments: list[str],
    says: str,
) -> None:
    named = {"IMAGE": str(image), "DEPTH": str(depth)}
    given = ["--model", str(request.getfixturevalue(model)), "--out", str(tmp_path / "out.png")]
    asked = [named.get(one, one) for one in arguments]
    assert run(["img2img", str(image), "a cat", *given, "--steps", "2", *asked]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


def test_inpaint_leaves_what_is_outside_the_mask(
    tiny_model: Path, tmp_path: Path, image: Path
) -> None:
    mask, out = Image.new("L", (64, 40)), tmp_path / "out.png"
    mask.paste(255, (32, 0, 64, 40))
    mask.save(tmp_path / "mask.png")
    arguments = ["--model", str(tiny_model), "--out", str(out), "--steps", "2", "--mask-blur", "0"]
    mask_arguments = ["--mask", str(tmp_path / "mask.png")]
    assert run(["inpaint", str(image), "two black dogs", *arguments, *mask_arguments]) == 0
    before, after = np.asarray(Image.open(image)), np.asarray(Image.open(out))
    assert np.array_equal(before[:, :32], after[:, :32])
    assert not np.array_equal(before[:, 32:], after[:, 32:])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["img2img", "absent.png", "a cat"], "absent.png does not exist"),
        (["img2img", "IMAGE", "a cat", "--strength", "2"], "strength is 2.0"),
        (["img2img", "IMAGE", "a cat", "--fit", "squeeze"], "fit is 'squeeze'"),
        (["inpaint", "IMAGE", "a cat"], "there is no mask"),
        (["outpaint", "IMAGE", "a cat"], "there is no room on any side"),
        (["outpaint", "IMAGE", "a cat", "--left", "-8"], "left is -8; it must be from 0"),
    ],
)
def test_bad_input_is_one_line(
    image: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert run([str(image) if a == "IMAGE" else a for a in arguments]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_a_bad_file_is_one_line_that_names_it(
    tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = image.read_bytes()
    contents = {
        "empty.png": (b"", "is empty (0 bytes)"),
        "page.jpg": (b"<!doctype html>", "is no picture that can be read"),
        "cut.png": (whole[: len(whole) // 2], "ends too early"),
        "bomb.png": (bombs()["bomb.png"], "which no setting allows; make it smaller"),
    }
    for name, (content, says) in contents.items():
        (tmp_path / name).write_bytes(content)
        for command in ("img2img", "inpaint"):
            assert run([command, str(tmp_path / name), "a cat"]) == 2
            told = capsys.readouterr().err
            assert told.startswith(f"sdcli: {tmp_path / name} ")
            assert says in told
            assert told.count("\n") == 1


def test_outpaint_leaves_the_picture_and_draws_beside_it(
    tiny_model: Path, tmp_path: Path, image: Path
) -> None:
    out = tmp_path / "out.png"
    arguments = ["--model", str(tiny_model), "--out", str(out), "--steps", "2", "--mask-blur", "0"]
    sides = ["--left", "16", "--bottom", "11"]
    assert run(["outpaint", str(image), "two black dogs", *arguments, *sides]) == 0
    before, after = np.asarray(Image.open(image)), np.asarray(Image.open(out))
    assert after.shape == (51, 80, 3)
    assert np.array_equal(after[:40, 16:], before)


def test_a_picture_goes_into_latents_and_back(
    tiny_model: Path, tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latents, out = tmp_path / "a.safetensors", tmp_path / "back.png"
    assert run(["encode", str(image), "--out", str(latents), "--model", str(tiny_model)]) == 0
    assert "(1, 4, 5, 8)" in capsys.readouterr().out
    assert run(["decode", str(latents), "--out", str(out), "--model", str(tiny_model)]) == 0
    vae = load_vae(tiny_model / "vae")
    with torch.inference_mode():
        expected = vae.decode(vae.encode(to_pixels(Image.open(image))).mode())
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(to_images(expected)[0]))


def test_latents_of_another_kind_are_refused(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tensors, says in (
        ({"latents": torch.zeros(1, 9, 8, 8)}, "shape (1, 9, 8, 8)"),
        ({"other": torch.zeros(1)}, "no tensor called latents"),
    ):
        save_safetensors(tmp_path / "a.safetensors", tensors)
        arguments = ["--out", str(tmp_path / "a.png"), "--model", str(tiny_model)]
        assert run(["decode", str(tmp_path / "a.safetensors"), *arguments]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def test_latents_become_the_format_that_the_file_is_called_by(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latents = tmp_path / "a.safetensors"
    save_safetensors(latents, {"latents": torch.zeros(1, 4, 4, 4)})
    given = [str(latents), "--model", str(tiny_model), "--out"]
    assert run(["decode", *given, str(tmp_path / "a.jpg")]) == 0
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"
    capsys.readouterr()
    for name in ("", "folder"):
        assert run(["decode", *given, str(tmp_path / name)]) == 2
        assert "is no picture's file; end it in .png" in capsys.readouterr().err
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("by", "stated", "strength"),
    [("pixel", "{}", 0.35), ("pixel", '{"upscale_strength": 0.4}', 0.4), ("latent", "{}", 0.55)],
)
def test_upscale_takes_the_strength_that_suits_the_model_and_what_is_enlarged(
    tiny_model: Path, tmp_path: Path, image: Path, by: str, stated: str, strength: float
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "sampling.json").write_text(stated)
    out = tmp_path / "out.png"
    given = ["--model", str(folder), "--out", str(out), "--steps", "3", "--by", by]
    assert run(["upscale", str(image), "a cat", *given, "--scale", "1.5"]) == 0
    assert f"Denoising strength: {strength}" in Image.open(out).text["parameters"]
