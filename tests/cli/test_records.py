"""`inspect` and `replay`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdcli.main import run


def draw(tiny_model: Path, out: Path, *arguments: str) -> Path:
    code = run(
        ["txt2img", "a [cat|dog] on a (mat:1.3)", "--model", str(tiny_model), "--out", str(out),
         "--steps", "3", "--seed", "5", *arguments]
    )  # fmt: skip
    assert code == 0
    return out


def test_inspect_prints_what_a_picture_says(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = draw(tiny_model, tmp_path / "one.png")
    capsys.readouterr()
    assert run(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "made by sdcli" in printed
    assert "prompt: a [cat|dog] on a (mat:1.3)" in printed
    assert run(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 5


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--sampler", "DPM++ 2M SDE", "--schedule", "exponential"],
        ["--guidance", "6", "--apg", "--guidance-interval", "0:0.7"],
        ["--prediction", "eps", "--width", "48", "--negative", "a dog"],
    ],
)
def test_a_picture_is_made_again_identically(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    path = draw(tiny_model, tmp_path / "one.png", *arguments)
    capsys.readouterr()
    assert run(["replay", str(path), "--out", str(tmp_path / "again.png")]) == 0
    assert capsys.readouterr().out == f"{path}: identical\n"
    assert np.array_equal(Image.open(path), Image.open(tmp_path / "again.png"))


def test_each_of_a_batch_is_made_again_identically(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tiny_model, tmp_path / "many", "--count", "3", "--batch", "2")
    capsys.readouterr()
    for path in sorted((tmp_path / "many").iterdir()):
        assert run(["replay", str(path)]) == 0
        assert "identical" in capsys.readouterr().out


def test_a_picture_from_a_picture_is_made_again_with_it(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    mask.save(tmp_path / "mask.png")
    out = tmp_path / "out.png"
    given = ["--model", str(tiny_model), "--out", str(out), "--steps", "4", "--strength", "0.5"]
    image, hole = str(tmp_path / "in.png"), ["--mask", str(tmp_path / "mask.png")]
    assert run(["inpaint", image, "a cat", *hole, *given]) == 0
    capsys.readouterr()
    assert run(["replay", str(out)]) == 2
    assert "give it as --image" in capsys.readouterr().err
    assert run(["replay", str(out), "--image", image]) == 2
    assert "give it as --mask" in capsys.readouterr().err
    assert run(["replay", str(out), "--image", image, *hole]) == 0
    assert "identical" in capsys.readouterr().out


def test_a_changed_file_is_told_with_the_number_of_its_pixels(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = draw(tiny_model, tmp_path / "one.png")
    image, info = Image.open(path), PngInfo()
    record = json.loads(image.text["sd-record"])
    record["versions"]["torch"] = "0.1"
    info.add_itxt("sd-record", json.dumps(record))
    image.load()
    r, g, b = image.getpixel((3, 3))
    image.putpixel((3, 3), (255 - r, g, b))
    image.save(path, pnginfo=info)
    capsys.readouterr()
    assert run(["replay", str(path)]) == 0
    printed = capsys.readouterr().out
    # The pixels that were written are the ones that are drawn again: the record says so.
    assert "identical" in printed
    record["pixels"] = "0" * 64
    info = PngInfo()
    info.add_itxt("sd-record", json.dumps(record))
    image.save(path, pnginfo=info)
    assert run(["replay", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "1 of 4096 pixels differ" in printed
    assert "it has been changed" in printed
    assert "torch: 0.1 then" in printed


def test_only_our_own_pictures_are_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = PngInfo()
    info.add_itxt("parameters", "a cat\nSteps: 2, Sampler: Euler, Seed: 1")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert run(["replay", str(tmp_path / "a.png")]) == 2
    assert "made by the web UI; only our own" in capsys.readouterr().err
