"""The checkpoint of the best validation is kept, and known again after any stop."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from toy import Recorder, ToyTask, assert_same_checkpoint, config

from sd_checkpoint import load_json
from sd_train import TrainError, Validation, export, train
from sd_train import trainer as trainer_module
from sd_train.best import Best, judged
from sd_train.state import best_checkpoint, checkpoint_folder, list_checkpoints, step_of

TURNING = {3: 0.5, 6: 0.7, 8: 0.6}
FALLING = {3: 0.5, 6: 0.4, 8: 0.3}


class Measured(ToyTask):
    """Its validations find what is written down for their step."""

    def __init__(self, heard: Recorder, values: Mapping[int, float], start: int = 0) -> None:
        super().__init__()
        self.heard, self.values, self.start = heard, values, start

    def validate(self) -> Validation:
        step = self.heard.steps[-1].step if self.heard.steps else self.start
        return Validation(scalars={"loss": self.values[step]})


def learn(
    folder: Path,
    values: Mapping[int, float],
    *,
    stop_at: int = 0,
    resume: bool = False,
    **more: object,
) -> Recorder:
    heard = Recorder(stop_at)
    start = step_of(list_checkpoints(folder)[-1]) if resume else 0
    task = Measured(heard, values, start)
    train(task, config(keep_last=1, **more), folder, heard, resume=resume)
    return heard


def steps(folder: Path) -> list[int]:
    return [step_of(one) for one in list_checkpoints(folder)]


def test_the_best_stays_beside_the_last_and_a_turn_is_told_each_time(tmp_path: Path) -> None:
    heard = learn(tmp_path, TURNING)
    assert steps(tmp_path) == [3, 8]
    noted = {"measure": "loss", "step": 3, "value": 0.5}
    assert load_json(tmp_path / "best.json") == noted
    told = "the best was 0.5 at step 3,"
    assert [line for line in heard.messages if "turned" in line] == [
        f"step 6: loss has turned up to 0.7; {told} 1 validation ago",
        f"step 8: loss has turned up to 0.6; {told} 2 validations ago",
    ]
    assert heard.result is not None
    assert heard.result.best == best_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 3)


def test_the_last_step_may_be_the_best_and_the_old_one_goes(tmp_path: Path) -> None:
    heard = learn(tmp_path, FALLING)
    assert steps(tmp_path) == [8]
    assert best_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 8)
    again = learn(tmp_path, FALLING, resume=True)
    assert best_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 8)
    assert not any("turned" in line for line in heard.messages + again.messages)


@pytest.mark.parametrize("values", [TURNING, FALLING])
@pytest.mark.parametrize("stop_at", [2, 3, 5, 6, 7])
def test_a_stopped_and_resumed_run_knows_the_best_as_a_straight_one(
    tmp_path: Path, values: Mapping[int, float], stop_at: int
) -> None:
    straight, run = tmp_path / "straight", tmp_path / "run"
    learn(straight, values)
    learn(run, values, stop_at=stop_at)
    learn(run, values, resume=True)
    assert steps(run) == steps(straight)
    assert (run / "best.json").read_text() == (straight / "best.json").read_text()
    for one in steps(run):
        assert_same_checkpoint(checkpoint_folder(straight, one), checkpoint_folder(run, one))


def test_what_ends_between_a_checkpoint_and_the_note_of_it_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path, best: Best | None) -> None:
        if best is not None:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer_module, "write_best", fail)
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path, TURNING)
    monkeypatch.undo()
    assert steps(tmp_path) == [3]
    with pytest.raises(TrainError, match="has no best checkpoint yet"):
        best_checkpoint(tmp_path)
    learn(tmp_path, TURNING, resume=True)
    assert steps(tmp_path) == [3, 8]
    assert best_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 3)


def test_a_new_run_in_a_cleared_folder_begins_without_a_best(tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text('{"measure": "loss", "step": 8, "value": 0.0}')
    learn(tmp_path, TURNING)
    assert best_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 3)


def test_the_best_can_be_exported_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    learn(tmp_path, TURNING)
    task = ToyTask()
    assert export(task, config(), tmp_path, tmp_path / "out", best=True) == checkpoint_folder(
        tmp_path, 3
    )
    (checkpoint_folder(tmp_path, 3) / "ema.safetensors").write_bytes(b"")
    with pytest.raises(TrainError, match=r"is damaged: ema\.safetensors has another size"):
        best_checkpoint(tmp_path)


def test_the_highest_may_be_the_best_or_none_be_kept(tmp_path: Path) -> None:
    heard = learn(tmp_path / "highest", TURNING, best_by="loss", best_is="highest")
    assert best_checkpoint(tmp_path / "highest") == checkpoint_folder(tmp_path / "highest", 6)
    assert any("loss has turned down to 0.6" in line for line in heard.messages)
    learn(tmp_path / "none", TURNING, best_by="")
    assert steps(tmp_path / "none") == [8]
    assert not (tmp_path / "none/best.json").exists()


def test_a_measure_that_is_not_there_is_told_and_one_that_is_no_number_is_no_best() -> None:
    best, line = judged(None, {"l1": 2.0, "psnr": 9.0}, 5, config(best_by="fid"))
    assert best is None
    assert line == "trainer.best_by = 'fid' is not measured; a validation tells l1, psnr"
    best, _ = judged(None, {"l1": 2.0}, 5, config())
    assert best == Best(measure="l1", step=5, value=2.0)
    best, line = judged(best, {"l1": float("nan")}, 6, config())
    assert best == Best(measure="l1", step=5, value=2.0, since=1)
    assert "turned up to nan" in line
    assert judged(None, {"loss": float("inf")}, 6, config()) == (None, "")
    other = judged(best, {"l1": 3.0, "loss": 4.0}, 7, config())[0]
    assert other == Best(measure="loss", step=7, value=4.0)


def test_a_task_that_counts_is_told_the_step_of_what_is_exported(tmp_path: Path) -> None:
    recorder = Recorder()
    tasks = Measured(recorder, TURNING), ToyTask(), ToyTask()
    for task in tasks:
        task.num_steps = 0  # type: ignore[attr-defined]
    train(tasks[0], config(), tmp_path / "run", recorder)
    export(tasks[1], config(), tmp_path / "run", tmp_path / "latest")
    export(tasks[2], config(), tmp_path / "run", tmp_path / "best", best=True)
    assert [task.num_steps for task in tasks] == [8, 8, 3]  # type: ignore[attr-defined]
