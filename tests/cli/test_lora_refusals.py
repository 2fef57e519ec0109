"""`sdcli lora`: what is refused, in one line, with nothing written or replaced."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.loras import TO_DIFFUSERS, sdcli, write


def test_nothing_is_replaced_unless_told_and_a_source_never(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = write(tmp_path / "a.safetensors", 1), write(tmp_path / "b.safetensors", 2)
    before = out.read_bytes()
    cases: list[list[object]] = [
        ["convert", file, out, "--layout", "kohya"],
        ["merge", file, "--out", out],
        ["resize", file, "--out", out, "--rank", 1],
        ["extract", "one", "other", "--out", out, "--rank", 1],
    ]
    for arguments in cases:
        code, _, err = sdcli(capsys, "lora", *arguments)
        assert code == 2
        assert "exists; name another place or add --overwrite" in err
        assert out.read_bytes() == before
    code, _, err = sdcli(capsys, "lora", "resize", out, "--out", out, "--rank", 1, "--overwrite")
    assert code == 2
    assert "is a source itself" in err
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "gone.safetensors"], "gone.safetensors"),
        (["info", "model.safetensors"], "holds no LoRA"),
        (["convert", "a.safetensors", "out.safetensors", "--layout", "web"], "kohya or diffusers"),
        (["convert", "a.safetensors", "out.pt", "--layout", "kohya"], "is a .safetensors"),
        (
            [*("convert", "other.safetensors", "out.safetensors"), *TO_DIFFUSERS],
            "1 layers are not the model's; name one that the LoRA was made for: lora_unet_other",
        ),
        (["merge", "a.safetensors:nan", "--out", "out.safetensors"], "give a number, such as 0.8"),
        (
            ["merge", "a.safetensors", "--out", "out", "--into", "model", "--rank", "1"],
            "leave them out, or --into",
        ),
        (
            ["merge", "other.safetensors", "--out", "out", "--into", "model"],
            "are no LoRA's of the models given",
        ),
        (["resize", "a.safetensors", "--out", "out.safetensors"], "give a rank, or the share"),
        (["resize", "a.safetensors", "--out", "out.safetensors", "--energy", "2"], "energy 2"),
        (
            ["resize", "a.safetensors", "--out", "out.safetensors", "--rank", "1", "--dtype", "f"],
            "--dtype is 'f'; it must be keep, fp32, fp16, bf16",
        ),
        (["resize", "spoilt.safetensors", "--out", "out.safetensors", "--rank", "1"], "spoilt"),
        (
            ["extract", "model", "model", "--out", "out.safetensors", "--rank", "1"],
            "no linear or convolution of the two models differs",
        ),
        (
            ["extract", "a", "b", "--out", "c.safetensors", "--rank", "1", "--parts", "vae"],
            "--parts is 'vae'; it must be unet, text, or unet,text",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(tiny_model)
    write(tmp_path / "a.safetensors", 1)
    save_file({"conv.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    parts = {"lora_down.weight": torch.ones(1, 4), "lora_up.weight": torch.ones(4, 1)}
    for name, factor in (("other", 1.0), ("spoilt", torch.nan)):
        tensors = {f"lora_unet_{name}.{part}": factor * tensor for part, tensor in parts.items()}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    files = set(tmp_path.iterdir())
    code, out, err = sdcli(capsys, "lora", *arguments)
    assert code == 2
    assert not out
    assert words in err
    assert err.startswith("sdcli: ")
    assert len(err.strip().splitlines()) == 1
    assert set(tmp_path.iterdir()) == files


def test_numbers_too_large_for_a_type_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    parts = {"lora_down.weight": torch.ones(1, 4), "lora_up.weight": 1e6 * torch.ones(4, 1)}
    save_file({f"lora_unet_a.{part}": tensor for part, tensor in parts.items()}, file)
    flags = ["--layout", "kohya", "--dtype", "fp16"]
    code, _, err = sdcli(capsys, "lora", "convert", file, out, *flags)
    assert code == 2
    assert "numbers up to 1e+06, too large for torch.float16" in err
    assert not out.exists()


@pytest.mark.parametrize("command", ["info", "convert", "merge", "extract", "resize"])
def test_every_command_explains_every_flag(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code, out, _ = sdcli(capsys, "lora", command, "--help")
    assert code == 0
    assert "--json" in out
    assert ("--overwrite" in out) == (command != "info")
