"""Several processes train the run that one would."""

import json
import os
import signal
import time
from pathlib import Path
from random import Random

import pytest
import torch
from together import group, start, together
from toy import ToyTask, assert_same_checkpoint, config

from sd_checkpoint import Checkpoint, load_json
from sd_train import train
from sd_train.manifest import damage_of
from sd_train.state import checkpoint_folder, list_checkpoints


def scalars(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "scalars.jsonl").open()]
    return [
        {name: value for name, value in line.items() if name not in ("time", SPEED)}
        for line in lines
    ]


SPEED = "train/images_per_second"


def assert_alike(left: Path, right: Path) -> None:
    """Compare two runs to rounding: other orders of the same sums."""
    for ours, theirs in zip(scalars(left), scalars(right), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    last = [list_checkpoints(folder)[-1] for folder in (left, right)]
    for name in ("weights", "ema", "optimizer"):
        one, other = (Checkpoint.open(folder / f"{name}.safetensors") for folder in last)
        assert one.keys() == other.keys()
        for key in one:
            assert torch.allclose(one[key], other[key], atol=1e-5, rtol=1e-4), f"{name}: {key}"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    train(ToyTask(), config(log_every=1), folder)
    return folder


def test_two_processes_train_what_one_does(alone: Path, tmp_path: Path) -> None:
    ends = together(2, tmp_path, log_every=1)
    # The first alone talks.
    assert ends == [(0, "finished", 8, None, 8), (1, "finished", 8, None, 0)]
    assert_alike(alone, tmp_path)
    assert (tmp_path / "model/net.safetensors").is_file()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_stops_all_after_the_step_and_one_process_goes_on(
    alone: Path, tmp_path: Path, rank: int
) -> None:
    ends = together(2, tmp_path, stop_at={rank: 5}, log_every=1)
    stopped = ("stopped", 5, signal.SIGINT)
    assert [end[1:4] for end in ends] == [stopped, stopped]
    assert damage_of(checkpoint_folder(tmp_path, 5)) is None
    assert train(ToyTask(), config(log_every=1), tmp_path, resume=True).status == "finished"
    assert_alike(alone, tmp_path)


def test_two_that_were_stopped_go_on_as_two_that_were_not_bit_for_bit(tmp_path: Path) -> None:
    together(2, tmp_path / "straight")
    together(2, tmp_path / "run", stop_at={1: 3})
    together(2, tmp_path / "run")
    last = [checkpoint_folder(tmp_path / name, 8) for name in ("straight", "run")]
    assert_same_checkpoint(*last)


def test_two_processes_train_in_groups_what_one_does(tmp_path: Path) -> None:
    task = ToyTask()
    group(task)
    train(task, config(log_every=1), tmp_path / "alone")
    together(2, tmp_path / "two", log_every=1, grouped=True)
    assert_alike(tmp_path / "alone", tmp_path / "two")


def test_two_processes_keep_the_best_checkpoint_that_one_keeps(tmp_path: Path) -> None:
    settings = {"best_by": "mean", "keep_last": 1, "validate_every": 1}
    train(ToyTask(), config(**settings), tmp_path / "alone")
    together(2, tmp_path / "two", stop_at={0: 3}, **settings)
    together(2, tmp_path / "two", **settings)
    alone, two = (load_json(tmp_path / name / "best.json") for name in ("alone", "two"))
    assert two.pop("value") == pytest.approx(alone.pop("value"), abs=1e-5)
    assert two == alone
    kept = [[one.name for one in list_checkpoints(tmp_path / name)] for name in ("alone", "two")]
    assert kept[0] == kept[1]


def test_batches_that_cannot_be_shared_are_told_in_one_line(tmp_path: Path) -> None:
    ends = together(2, tmp_path, accumulate=3)
    for _, status, message in ends:
        assert status == "error"
        assert "trainer.accumulate = 3" in message
        assert "make it a multiple of 2" in message
    assert not list_checkpoints(tmp_path)


def test_two_that_are_killed_lose_no_step_that_was_saved(tmp_path: Path) -> None:
    settings = {"steps": 400, "save_every": 2, "validate_every": 0, "keep_last": 2}
    straight, folder, random, last = tmp_path / "straight", tmp_path / "run", Random(1), 0
    together(2, straight, **settings)
    for number in range(12):
        members, _ = start(2, folder, **settings)
        before = last
        until = time.monotonic() + 60
        while last <= before and time.monotonic() < until:  # to the next save, on any machine
            time.sleep(0.01)
            last = max((int(one.name[5:]) for one in list_checkpoints(folder)), default=0)
        time.sleep(random.uniform(0.0, 0.05))
        for process in members if number % 2 else reversed(members):
            process.kill()
        for process in members:
            process.join()
        found = list_checkpoints(folder)
        assert found, "a save was waited for"
        assert int(found[-1].name[5:]) >= last
        assert all(damage_of(one) is None for one in found)
        last = int(found[-1].name[5:])
    assert 0 < last < 400
    together(2, folder, **settings)
    assert_same_checkpoint(checkpoint_folder(straight, 400), checkpoint_folder(folder, 400))


def test_a_lone_process_that_torchrun_started_is_alone(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in told.items():
        monkeypatch.setitem(os.environ, name, value)
    train(ToyTask(), config(log_every=1), tmp_path)
    assert_alike(alone, tmp_path)
