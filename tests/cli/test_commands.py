import json
import signal
from pathlib import Path

import pytest
import typer

from sd_train import TrainResult
from sdcli.main import program, run
from sdcli.training import show_result


def test_every_command_explains_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    for command in program().registered_commands:
        assert run([command.name, "--help"]) == 0
        assert command.name in capsys.readouterr().out


def test_the_help_names_every_command_and_one_command_line_reads_its_own_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["--help"]) == 0
    told = capsys.readouterr().out
    everything = program()
    names = [one.name for one in everything.registered_commands]
    names += [one.name for one in everything.registered_groups]
    assert len(names) == 28
    for name in names:
        assert f"  {name} " in told
        alone = program(name)
        assert len(alone.registered_commands) + len(alone.registered_groups) == 1
    for nothing, told in ([], "\n  txt2img "), (["lora"], "\n  merge "):
        assert run(nothing) == 2
        assert told in capsys.readouterr().err
    assert run(["txt2img-"]) == 2
    assert "No such command 'txt2img-'. Did you mean 'txt2img'" in capsys.readouterr().err


def test_scenes_draws_a_captioned_folder_and_goes_on_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    assert run(["scenes", str(folder), "--count", "3", "--size", "32", "--workers", "1"]) == 0
    assert run(["scenes", str(folder), "--count", "5", "--size", "32", "--workers", "1"]) == 0
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 5
    assert all((folder / row["file_name"]).is_file() and row["text"] for row in rows)


def test_scenes_draws_views_of_one_particular_dog(tmp_path: Path) -> None:
    assert run(["scenes", str(tmp_path / "rex"), "--subject", "rex", "--count", "2"]) == 0
    rows = (tmp_path / "rex" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(row)["text"].startswith("a dog on ") for row in rows] == [True, True]


def test_scenes_refuses_a_folder_of_another_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("not scenes")
    assert run(["scenes", str(tmp_path), "--count", "1"]) == 2
    assert "choose another folder" in capsys.readouterr().err


def test_models_lists_the_embedded_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 0
    assert "scenes" in capsys.readouterr().out


RUN_FILE = """
[data]
folder = "{data}"
size = 32
holdout = 2

[vae]
preset = "scenes"
fields = {{ block_out_channels = [16, 16], latent_channels = 2, norm_num_groups = 8 }}

[trainer]
steps = 2
batch_size = 2
save_every = 1
validate_every = 0
tensorboard = false
"""


@pytest.fixture
def vae_run_file(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    run(["scenes", str(data), "--count", "8", "--size", "32", "--workers", "1"])
    path = tmp_path / "vae.toml"
    path.write_text(RUN_FILE.format(data=data))
    return path


def test_train_vae_follows_the_file_and_flags_override_it(
    vae_run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    flags = ["--steps", "3", "--set", "loss.kl_weight=0.5", "--device", "cpu"]
    assert run(["train-vae", str(vae_run_file), "--run", str(folder), *flags]) == 0
    assert "finished at step 3" in capsys.readouterr().out
    resolved = (folder / "config.toml").read_text()
    assert "steps = 3" in resolved
    assert "kl_weight = 0.5" in resolved
    assert (folder / "model" / "config.json").is_file()

    assert run(["train-vae", "--run", str(folder), "--resume", "--steps", "4"]) == 0
    assert "finished at step 4" in capsys.readouterr().out


def test_train_vae_takes_the_learned_parts_of_its_loss_by_flags(
    vae_run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    flags = ["--adversarial", "0.3", "--adversarial-start", "1", "--device", "cpu"]
    flags += ["--kind", "vq"]
    flags += ["--set", "adversarial.num_filters=4"]
    assert run(["train-vae", str(vae_run_file), "--run", str(folder), *flags]) == 0
    resolved = (folder / "config.toml").read_text()
    assert "[adversarial]" in resolved
    assert "start_step = 1" in resolved
    assert 'kind = "vq"' in resolved
    assert "num_embeddings = 8192" in resolved
    capsys.readouterr()
    nowhere = str(tmp_path / "lpips.pth")
    flags = ["--run", str(tmp_path / "other"), "--perceptual", nowhere]
    assert run(["train-vae", str(vae_run_file), *flags]) == 2
    assert f"perceptual.weights = '{nowhere}' is no file" in capsys.readouterr().err


def test_export_writes_the_latest_checkpoint_as_a_model(
    vae_run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = tmp_path / "run", tmp_path / "model"
    assert run(["train-vae", str(vae_run_file), "--run", str(folder), "--device", "cpu"]) == 0
    capsys.readouterr()
    assert run(["export", str(folder), str(model), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "model": str(model), "checkpoint": str(folder / "checkpoints" / "step-00000002")
    }  # fmt: skip
    names = [path.name for path in (folder / "model").iterdir()]
    assert names
    for name in names:
        assert (model / name).read_bytes() == (folder / "model" / name).read_bytes()
    assert run(["export", str(tmp_path), str(model)]) == 2
    assert "holds no run: it has no config.toml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no run file given"),
        (["missing.toml"], "missing.toml does not exist"),
        (["{file}", "--set", "trainer.stepz=3"], "stepz"),
        (["{file}", "--set", "nonsense"], "is not section.name=value"),
        (["{file}", "--steps", "0"], "steps"),
        (["{file}", "--precision", "fp8"], "precision"),
        (["{file}", "--parallel", "mpi"], "parallel"),
        (["{file}", "--data", "nowhere"], "nowhere"),
        (["--resume"], "does not exist"),
    ],
)
def test_bad_training_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    words: str,
    vae_run_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    arguments = [argument.format(file=vae_run_file) for argument in arguments]
    assert run(["train-vae", *arguments, "--run", "run"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert words in told[-1]
    assert not any("Traceback" in line for line in told)


def test_a_dry_run_tells_what_the_run_needs_and_trains_nothing(
    vae_run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert run(["train-vae", str(vae_run_file), "--run", str(folder), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seconds_per_step"] > 0
    assert found["disk"] < found["free_disk"]
    assert not folder.exists()


def test_a_run_that_was_terminated_exits_as_the_shell_expects() -> None:
    result = TrainResult(status="stopped", step=1, checkpoint=Path("c"), signal=signal.SIGTERM)
    with pytest.raises(typer.Exit) as ended:
        show_result(result, None, as_json=False)
    assert ended.value.exit_code == 143
