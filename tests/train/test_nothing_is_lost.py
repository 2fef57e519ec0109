"""Killed processes, full disks, rotten files: no run loses what it had saved."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from interrupted import ToyRun, kill, kills
from together import PROCESSES
from toy import Recorder, ToyTask, assert_same_checkpoint, config

from sd_checkpoint import CheckpointError
from sd_train import TrainError, train
from sd_train.manifest import damage_of
from sd_train.rehearsal import rehearse
from sd_train.state import checkpoint_folder, latest_checkpoint

STEPS = 1500


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = ToyRun(folder=tmp_path_factory.mktemp("straight"), steps=STEPS)
    run.finish()
    return run.last


def test_a_hundred_kills_lose_no_step_that_was_saved(tmp_path: Path, straight: Path) -> None:
    run = ToyRun(folder=tmp_path / "run", steps=STEPS)
    done = list(kills(run, 100, Random(0), in_save=34))
    assert not [fault for each in done for fault in each.faults(run)]
    assert sum(each.in_save for each in done) >= 34, "a third of them died inside a save"
    run.finish()
    assert not run.half_saved, "and left nothing"
    assert_same_checkpoint(straight, run.last)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def say_nothing(path: Path) -> None:
    path.write_text('{"files": {}}')


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("weights.safetensors", flip, "other contents"),
        ("optimizer.safetensors", cut, "another size"),
        ("ema.safetensors", Path.unlink, "lacks ema"),
        ("manifest.json", cut, "cannot be read"),
        ("manifest.json", Path.unlink, "lacks manifest"),
        ("manifest.json", say_nothing, "lacks state"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_told(
    tmp_path: Path, name: str, spoil: Callable[[Path], None], words: str
) -> None:
    settings = config(keep_last=2)
    straight = train(ToyTask(), settings, tmp_path / "straight")
    train(ToyTask(), settings, tmp_path / "run", Recorder(6))
    spoil(checkpoint_folder(tmp_path / "run", 6) / name)
    told = Recorder()
    ended = train(ToyTask(), settings, tmp_path / "run", told, resume=True)
    assert any(words in message and "step-00000006" in message for message in told.messages)
    assert any("going on from" in message and "00000004" in message for message in told.messages)
    assert_same_checkpoint(straight.checkpoint, ended.checkpoint)


def test_a_run_of_which_nothing_is_whole_says_so(tmp_path: Path) -> None:
    train(ToyTask(), config(keep_last=1), tmp_path, Recorder(4))
    flip(latest_checkpoint(tmp_path) / "weights.safetensors")
    with pytest.raises(TrainError, match="every checkpoint"):
        train(ToyTask(), config(), tmp_path, resume=True)


def test_a_line_of_the_log_that_a_crash_has_spoilt_is_dropped(tmp_path: Path) -> None:
    train(ToyTask(), config(), tmp_path, Recorder(4))
    with (tmp_path / "scalars.jsonl").open("ab") as log:
        log.write(b"\x00\xff\x00\n[]\n")
    train(ToyTask(), config(), tmp_path, resume=True)
    lines = [json.loads(line) for line in (tmp_path / "scalars.jsonl").open()]
    assert [line["step"] for line in lines if "train/loss" in line] == [2, 4, 6, 8]


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stands(
    tmp_path: Path, straight: Path
) -> None:
    run = ToyRun(folder=tmp_path / "run", steps=STEPS)
    kill(run, 9, Random(0), in_save=True)
    before = latest_checkpoint(run.folder)
    size = (before / "optimizer.safetensors").stat().st_size
    with PROCESSES.Pool(1) as pool, pytest.raises(CheckpointError, match="cannot write"):
        pool.apply(run.go_on, kwds={"file_limit": size // 2})
    assert latest_checkpoint(run.folder) == before
    assert damage_of(before) is None
    run.finish()
    assert_same_checkpoint(straight, run.last)


def test_a_second_trainer_of_a_folder_is_refused(tmp_path: Path) -> None:
    hold = (
        "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); "
        "print(1); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-u", "-c", hold, str(tmp_path / ".lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout is not None
    other.stdout.readline()
    try:
        with pytest.raises(TrainError, match="another process trains"):
            train(ToyTask(), config(), tmp_path)
    finally:
        other.kill()
        other.wait()
    assert train(ToyTask(), config(), tmp_path).status == "finished", "the lock died with it"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_which_signal_stopped_it(tmp_path: Path, number: int) -> None:
    assert train(ToyTask(), config(), tmp_path, Recorder(3, number)).signal == number


def test_a_rehearsal_tells_time_memory_and_disk_and_writes_nothing(tmp_path: Path) -> None:
    found = rehearse(ToyTask(), config(steps=1000), tmp_path / "run")
    assert found.seconds == pytest.approx(1000 * found.seconds_per_step)
    assert 0 < found.peak_memory < found.memory
    saved = train(ToyTask(), config(), tmp_path / "other", Recorder(3)).checkpoint
    size = sum(path.stat().st_size for path in saved.iterdir())
    assert size / 4 < found.disk / 4 < size, "four checkpoints of which each has a header, too"
    assert found.warnings == ()
    assert any("0 h" in line for line in found.lines())
    assert list(tmp_path.iterdir()) == [tmp_path / "other"]


def test_a_rehearsal_warns_of_what_will_not_go_well(tmp_path: Path) -> None:
    found = rehearse(ToyTask(), config(), tmp_path)
    values = {name: getattr(found, name) for name in type(found).__dataclass_fields__}
    tight = type(found)(**values | {"peak_memory": found.memory, "disk": 2 * found.free_disk})
    memory, disk = tight.warnings
    assert "memory is tight" in memory
    assert "the disk is too small" in disk
    assert os.linesep not in "".join(tight.warnings)
