"""Several processes train the run that one would."""

import os
import signal
from pathlib import Path
from random import Random

import pytest
from interrupted import ToyRun, kills
from together import assert_alike, group, together
from toy import ToyTask, assert_same_checkpoint, config

from sd_checkpoint import load_json
from sd_train import train
from sd_train.manifest import damage_of
from sd_train.state import checkpoint_folder, list_checkpoints


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


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_that_are_killed_lose_no_step_that_was_saved(tmp_path: Path, parallel: str) -> None:
    straight, run = (
        ToyRun(folder=tmp_path / name, steps=150, processes=2, parallel=parallel)
        for name in ("straight", "run")
    )
    straight.finish()
    done = list(kills(run, 8, Random(1), in_save=3))
    assert not [fault for each in done for fault in each.faults(run)]
    assert sum(each.in_save for each in done) >= 3
    assert any(each.others_ended is not None for each in done), "of some only one was killed"
    run.finish()
    assert not run.half_saved
    assert_same_checkpoint(straight.last, run.last)


def test_a_lone_process_that_torchrun_started_is_alone(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in told.items():
        monkeypatch.setitem(os.environ, name, value)
    train(ToyTask(), config(log_every=1), tmp_path)
    assert_alike(alone, tmp_path)
