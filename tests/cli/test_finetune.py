"""The four finetuners as a user meets them."""

import json
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdcli.main import run

QUICK = (
    "--steps", "2", "--batch-size", "1", "--device", "cpu", "--set", "samples.count=0",
    "--set", "trainer.tensorboard=false",
)  # fmt: skip
COMMANDS = {
    "lora": ("lora", "train", "--rank", "2", "--targets", "attn-kv", "--prior-weight", "0"),
    "textual-inversion": ("textual-inversion", "--vectors", "2"),
    "hypernetwork": ("hypernetwork", "--layers", "1,1", "--num-class-images", "1"),
    "dreambooth": ("dreambooth", "--num-class-images", "1", "--contact-sheet", "1"),
}


def sdcli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cat"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(3):
        pixels = random.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("method", COMMANDS)
def test_each_command_tells_how_to_draw_with_its_result_and_that_works(
    tiny_model: Path, cats: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    code, printed, _ = sdcli(
        capsys, *COMMANDS[method], "--images", cats, "--model", tiny_model, "--out", out, *QUICK
    )
    assert code == 0
    lines = printed.splitlines()
    assert lines[0].startswith(f"finished at step 2: {out / 'model'}")
    assert ("contact sheet: " in printed) == (method == "dreambooth")
    command = shlex.split(lines[1].removeprefix("use it: "))
    assert command[:2] == ["sdcli", "txt2img"]
    code, _, told = sdcli(
        capsys, *command[1:], "--steps", "1", "--device", "cpu", "--out", tmp_path / "one.png"
    )
    assert code == 0, told
    assert Image.open(tmp_path / "one.png").size == (64, 64)


def test_a_run_is_named_by_its_pictures_and_keeps_its_settings(
    tiny_model: Path,
    cats: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "run.toml"
    file.write_text("identifier = 'ohwx'\n[lora]\nrank = 3\nalpha = 1.5\n")
    code, printed, _ = sdcli(
        capsys, "dreambooth", file, "--lora", "--rank", "2", "--images", cats, "--model",
        tiny_model, "--num-class-images", "1", "--contact-sheet", "0", "--json", *QUICK,
    )  # fmt: skip
    assert code == 0
    said = json.loads(printed)
    assert (said["status"], said["step"]) == ("finished", 2)
    assert said["model"] == "runs/dreambooth-cat/model/cat.safetensors"
    kept = tomllib.loads((tmp_path / "runs/dreambooth-cat/config.toml").read_text())
    assert (kept["lora"]["rank"], kept["lora"]["alpha"]) == (2, 1.5)
    assert kept["instance_prompt"] == "a ohwx cat"


def test_a_run_goes_on_with_more_steps_and_can_be_exported(
    tiny_model: Path, cats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train = ("lora", "train", "--out", out, "--set", "trainer.lr_schedule=constant")
    assert sdcli(capsys, *train, "--images", cats, "--model", tiny_model, *QUICK)[0] == 0
    code, printed, _ = sdcli(capsys, *train, "--resume", "--steps", "3")
    assert code == 0
    assert printed.startswith("finished at step 3")
    assert sdcli(capsys, "export", out, tmp_path / "exported")[0] == 0
    assert (tmp_path / "exported/cat.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lora", "train"], "name its folder with --out, or the pictures with --images"),
        (["lora", "train", "--out", "x"], "no pictures given: name their folder with --images"),
        (["lora", "train", "--images", "nowhere"], "'nowhere' is not a folder"),
        (["dreambooth", "--rank", "3", "--images", "x"], "--rank is of a LoRA; add --lora"),
        (["hypernetwork", "--layers", "1,b", "--images", "x"], "no list of numbers"),
        (["textual-inversion", "--resume", "--out", "nothing"], "does not exist"),
        (["lora", "train", "--images", "CATS", "--kind", "lorra"], "lora.kind = 'lorra'"),
        (["lora", "train", "--images", "CATS", "--targets", "to_z"], "path ending in: to_z"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(
    tiny_model: Path,
    cats: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(cats) if one == "CATS" else one for one in arguments]
    code, _, told = sdcli(capsys, *given, "--model", tiny_model)
    assert code == 2
    assert words in told.splitlines()[-1]
