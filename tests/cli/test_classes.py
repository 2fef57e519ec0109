"""Classes on the command line: drawn by name, counted in data, told of models."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sd_pipeline import read_metadata, save_model
from sd_pipeline.folder import save_vae
from sdcli.main import run
from tests.tiny_model import tiny_class_parts, tiny_parts, tiny_text_and_class_parts


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes") / "model"
    save_model(folder, tiny_class_parts(), dtype=torch.float32)
    return folder


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, " ".join(captured.err.split())


def drawn(capsys: pytest.CaptureFixture[str], *arguments: object) -> Path:
    code, printed, told = outcome(capsys, *arguments, "--steps", 2, "--seed", 3)
    assert code == 0, told
    assert "does not know" not in told
    return Path(printed.split()[0])


def test_a_class_is_drawn_by_name_by_number_and_by_option(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = (["kitten"], ["1"], ["--class", "cat"])
    files = [
        drawn(capsys, "txt2img", *way, "--model", model, "--out", tmp_path / f"{number}.png")
        for number, way in enumerate(ways)
    ]
    pixels = [Image.open(file).tobytes() for file in files]
    assert pixels[0] == pixels[1] == pixels[2]
    for file in files:
        assert read_metadata(file).record.class_name == "cat, kitten"
    code, printed, _ = outcome(capsys, "replay", files[1], "--model", model)
    assert (code, "identical" in printed) == (0, True)


def test_what_is_no_class_is_one_line_that_names_those_that_are(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = outcome(capsys, "txt2img", "dgo", "--model", model, "--out", tmp_path)
    assert code == 2
    assert "did you mean 'dog'? choose of 3, by name or by number from 0: dog, cat" in told
    assert not list(tmp_path.iterdir())


def test_a_text_takes_a_class_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tmp_path / "model", tiny_text_and_class_parts(), dtype=torch.float32)
    file = drawn(
        capsys, "txt2img", "a cat on a mat", "--class", "dog", "--model", tmp_path / "model",
        "--out", tmp_path / "a.png",
    )  # fmt: skip
    assert read_metadata(file).record.class_name == "dog"


def test_a_look_into_a_model_tells_its_classes(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed, _ = outcome(capsys, "models", "info", model)
    assert code == 0
    assert "classes     3: dog, cat, kitten, tree (oak)" in printed


def test_check_counts_the_pictures_of_each_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, colours in (("dog", ("red", "blue")), ("dgo", ("green",))):
        (tmp_path / name).mkdir()
        for colour in colours:
            Image.new("RGB", (64, 64), colour).save(tmp_path / name / f"{colour}.png")
    command = ("data", "check", tmp_path, "--size", 64, "--labels", "folders")
    code, printed, _ = outcome(capsys, *command)
    assert code == 0
    assert "classes: 2: dgo (1), dog (2)" in printed.splitlines()
    code, printed, _ = outcome(capsys, *command, "--classes", "dog, cat", "--json")
    said = json.loads(printed)
    assert said["summary"]["classes"] == {"dog": 2, "cat": 0}
    assert [row["label"] for row in said["used"]] == ["dog", "dog"]
    assert "did you mean 'dog'?" in said["dropped"][0]["reason"]


def test_scenes_of_one_kind_are_drawn_with_their_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(capsys, "scenes", tmp_path, "--count", 4, "--size", 16, "--labelled")[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert all(row["label"] in row["text"] for row in rows)
    code, printed, _ = outcome(capsys, "data", "check", tmp_path, "--size", 16, "--labels", "data")
    assert code == 0
    assert "classes: " in printed
    code, _, told = outcome(capsys, "scenes", tmp_path / "b", "--labelled", "--sided", 0.5)
    assert (code, "one kind of thing" in told) == (2, True)


RUN = """
[data]
size = 32
holdout = 1

[unet]
preset = "scenes"

[unet.fields]
block_out_channels = [8, 16]
attention_levels = [false, true]
num_heads = [1, 2]
norm_num_groups = 4

[samples]
count = 2
steps = 2

[trainer]
steps = 2
batch_size = 2
device = "cpu"
tensorboard = false
"""


def test_folders_become_a_model_that_draws_them_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_vae(tmp_path / "vae", tiny_parts().vae, dtype=torch.float32)
    for number, name in enumerate(("dog", "dog", "cat", "cat")):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        colour = (60 * number, 80, 200)
        Image.new("RGB", (32, 32), colour).save(tmp_path / "data" / name / f"{number}.png")
    (tmp_path / "run.toml").write_text(RUN)
    run_folder = tmp_path / "run"
    command = (
        "train", tmp_path / "run.toml", "--data", tmp_path / "data", "--labels", "folders",
        "--vae", tmp_path / "vae", "--run", run_folder,
    )  # fmt: skip
    code, printed, told = outcome(capsys, *command, "--dry-run")
    assert (code, "parameters learn" in printed) == (0, True), told
    code, _, told = outcome(capsys, *command)
    assert code == 0, told
    assert "classes: 2: cat (2), dog (2)" in told
    assert (run_folder / "samples").is_dir()
    exported = tmp_path / "exported"
    assert outcome(capsys, "export", run_folder, exported)[0] == 0
    for model in (run_folder / "model", exported):
        file = drawn(capsys, "txt2img", "dog", "--model", model, "--out", tmp_path / "pictures")
        assert read_metadata(file).record.class_name == "dog"
