from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdcli.main import run


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
    ],
)
def test_bad_input_is_one_line(
    image: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert run([str(image) if a == "IMAGE" else a for a in arguments]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
