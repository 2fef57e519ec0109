"""`sdcli mix` writes the model between two others."""

import json
from pathlib import Path

import pytest

from sd_checkpoint import Checkpoint
from sdcli.main import run

UNET = Path("unet/diffusion_pytorch_model.safetensors")


def test_a_model_mixed_with_itself_is_that_model(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mixed"
    arguments = ["mix", str(tiny_model), str(tiny_model), str(out), "--dtype", "fp32"]
    assert run([*arguments, "--share", "0.3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["share"] == 0.3
    before, after = Checkpoint.open(tiny_model / UNET), Checkpoint.open(out / UNET)
    assert set(before) == set(after)
    assert all((before[name].float() == after[name]).all() for name in before)
    assert run(arguments) == 2
    assert "exists; name another place" in capsys.readouterr().err


def test_a_share_that_is_none_and_a_type_that_is_none_are_one_line(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["--share", "2"], ["--dtype", "fp8"], ["--only", "clip"]):
        arguments = ["mix", str(tiny_model), str(tiny_model), str(tmp_path / "mixed"), *wrong]
        assert run(arguments) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "mixed").exists()
