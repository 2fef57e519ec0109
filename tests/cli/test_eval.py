"""`sdcli eval` as it is called."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdcli.main import run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("real"), np.random.default_rng(0)
    for name in ("a cat", "a mat", "two dogs"):
        pixels = random.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def test_a_models_losses_are_told_and_are_the_same_again(
    tiny_model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["eval", str(tiny_model), "--data", str(data), "--bands", "2", "--device", "cpu"]
    assert run([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loss"] > 0
    assert [band["num_looks"] for band in found["bands"]] == [3, 3]
    assert found["fid"] is found["clip"] is None
    assert run(command) == 0
    out = capsys.readouterr().out
    assert f"loss {found['loss']:.5f} (uniform weighting)" in out
    assert f"  timesteps 0 to 499: {found['bands'][0]['loss']:.5f}" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no real pictures given: name a folder of captioned ones with --data"),
        (["--data", "DATA", "--measures", "clip"], "the CLIP score needs a CLIP"),
        (["--data", "DATA", "--measures", "loss,fud"], "measure 'fud' is not known"),
        (["--data", "DATA", "--best"], "--best is of a run"),
        (["--data", "DATA", "--pictures", "DATA"], "not both"),
        (["--data", "DATA", "--clip", "DATA"], "holds no CLIP"),
        (["--data", "DATA", "--features", "none.pt"], "'none.pt' is no file"),
        (["--data", "DATA", "--steps", "0"], "eval: steps = 0"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tiny_model: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    given = [str(data) if option == "DATA" else option for option in options]
    assert run(["eval", str(tiny_model), *given, "--device", "cpu"]) == 2
    complaint = [line for line in capsys.readouterr().err.splitlines() if "sdcli:" in line]
    assert len(complaint) == 1
    assert words in complaint[0]
