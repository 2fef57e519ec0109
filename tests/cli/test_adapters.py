"""Adapters on the command line: by file, and by name in the prompt."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sd_adapters import Embedding, Lora, LoraConfig, save_embedding, save_loras
from sd_pipeline import load_unet, read_metadata
from sdcli.main import run

Draw = Callable[..., tuple[int, Path, str]]


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    torch.manual_seed(0)
    lora = Lora.create(load_unet(tiny_model / "unet"), LoraConfig(rank=2, targets=("to_k",)))
    with torch.no_grad():
        for parameter in lora.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    (folder / "styles").mkdir()
    save_loras(folder / "styles" / "ink.safetensors", [lora])
    (folder / "embeddings").mkdir()
    rex = Embedding(name="rex", vectors=(torch.randn(2, 32),))
    save_embedding(folder / "embeddings" / "rex.pt", rex)
    return folder


@pytest.fixture
def draw(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def drawn(prompt: str, *arguments: object) -> tuple[int, Path, str]:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        code, _, told = outcome(
            capsys, "txt2img", prompt, "--model", tiny_model, "--out", out, "--steps", "1",
            "--seed", "1", *arguments,
        )  # fmt: skip
        return code, out, told

    return drawn


def pixels(path: Path) -> str | None:
    return read_metadata(path).pixels


def test_a_file_and_a_tag_are_the_same(draw: Draw, folder: Path) -> None:
    file = folder / "styles" / "ink.safetensors"
    _, plain, _ = draw("a cat")
    _, by_file, _ = draw("a cat", "--lora", f"{file}:0.5")
    _, by_tag, _ = draw("a cat<lora:ink:0.5>", "--adapters", folder)
    _, below, _ = draw("a cat<lora:styles/ink:0.5:0.5>", "--adapters", folder)
    assert pixels(by_file) == pixels(by_tag) == pixels(below) != pixels(plain)
    record = read_metadata(by_tag).record
    assert record is not None
    assert record.prompt == "a cat"
    assert [use.strength for use in record.adapters] == [0.5]


def test_an_embedding_counts_where_a_prompt_has_its_name(draw: Draw, folder: Path) -> None:
    code, known, told = draw("a rex on a mat", "--adapters", folder)
    assert (code, "does not know" in told) == (0, False)
    _, unknown, told = draw("a rex on a mat")
    assert "does not know 'rex'" in told
    assert pixels(known) != pixels(unknown)
    _, named, _ = draw("a rex on a mat", "--embedding", folder / "embeddings" / "rex.pt")
    assert pixels(named) == pixels(known)
    _, other, _ = draw("a cat", "--adapters", folder)
    record = read_metadata(other).record
    assert record is not None
    assert record.adapters == ()


def test_each_prompt_of_a_file_has_its_own_adapters(
    tiny_model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "prompts.txt"
    lines.write_text("a cat<lora:ink>\na cat\na cat<lora:ink:0>\n")
    outcome(
        capsys, "txt2img", "--prompts", lines, "--model", tiny_model, "--out", tmp_path / "out",
        "--steps", "1", "--seed", "1", "--adapters", folder,
    )  # fmt: skip
    first, second, third = (pixels(path) for path in sorted((tmp_path / "out").iterdir()))
    assert first != second == third


def test_replay_finds_the_adapter_and_draws_the_same(
    draw: Draw, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes((folder / "styles" / "ink.safetensors").read_bytes())
    _, picture, _ = draw("a cat", "--lora", moved)
    assert "identical" in outcome(capsys, "replay", picture)[1]
    (tmp_path / "adapters").mkdir()
    moved.rename(tmp_path / "adapters" / "moved.safetensors")
    code, _, told = outcome(capsys, "replay", picture)
    assert (code, "there is no file" in told) == (2, True)
    assert (
        "identical"
        in outcome(capsys, "replay", picture, "--adapters", moved.parent / "adapters")[1]
    )


@pytest.mark.parametrize(
    ("prompt", "arguments", "words"),
    [
        ("a cat<lora:nobody>", [], "no such file"),
        ("a cat<lora:ink:x>", [], "strength 'x'"),
        ("a cat", ["--lora", "a:1:2:3"], "at most 2 numbers"),
        ("a cat", ["--lora", "nowhere.safetensors"], "there is no file"),
        ("a cat", ["--negative", "<lora:ink:1>"], "negative prompt"),
    ],
)
def test_what_is_wrong_is_one_line(
    draw: Draw, folder: Path, prompt: str, arguments: list[str], words: str
) -> None:
    code, out, told = draw(prompt, "--adapters", folder, *arguments)
    assert (code, told.count("\n"), out.exists()) == (2, 1, False)
    assert words in told
