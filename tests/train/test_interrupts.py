"""Signals at every moment of a run: none is lost, and none leaves a thing half done."""

import signal
from pathlib import Path

import pytest
from toy import Recorder, ToyTask, assert_same_checkpoint, config

from sd_train import StepInfo, Validation, train
from sd_train.interrupts import StopRequest, signals_remembered, stop_on_signals
from sd_train.state import list_checkpoints


class Watched(ToyTask):
    """Is asked to stop by a signal within the validation of a step."""

    def __init__(self, number: int, validation: int) -> None:
        super().__init__()
        self.number, self.validation = number, validation
        self.finished = 0

    def validate(self) -> Validation:
        if len(self.modes) + 1 == self.validation:
            signal.raise_signal(self.number)
        found = super().validate()
        self.finished += 1
        return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_validation_is_broken_off_and_made_up_for(tmp_path: Path, number: int) -> None:
    settings = config(best_by="mean", best_is="highest", keep_last=9)
    straight = train(ToyTask(), settings, tmp_path / "straight")
    task = Watched(number, 2)
    stopped = train(task, settings, tmp_path / "run")
    assert (stopped.status, stopped.step, stopped.signal) == ("stopped", 6, number)
    assert task.finished == 1, "the second came to no end"
    ended = train(ToyTask(), settings, tmp_path / "run", resume=True)
    assert_same_checkpoint(straight.checkpoint, ended.checkpoint)
    runs = [tmp_path / "straight", tmp_path / "run"]
    best, again = [(run / "best.json").read_text() for run in runs]
    assert best == again
    samples, ours = [sorted(path.name for path in (run / "samples").iterdir()) for run in runs]
    assert samples == ours
    assert len(samples) == 3


def test_the_last_validation_is_broken_off_too(tmp_path: Path) -> None:
    stopped = train(Watched(signal.SIGTERM, 3), config(), tmp_path)
    assert (stopped.status, stopped.step, stopped.model) == ("stopped", 8, None)
    ended = train(ToyTask(), config(), tmp_path, resume=True)
    assert ended.status == "finished"
    assert ended.model is not None
    assert ended.model.is_dir()


def test_sigterm_twice_still_saves(tmp_path: Path) -> None:
    class Twice(Recorder):
        def step(self, info: StepInfo) -> None:
            super().step(info)
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    stopped = train(ToyTask(), config(), tmp_path, Twice())
    assert (stopped.signal, stopped.step) == (signal.SIGTERM, 1)
    assert list_checkpoints(tmp_path) == [stopped.checkpoint]


def test_a_second_ctrl_c_ends_at_once_unless_it_is_the_firsts_echo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr("sd_train.interrupts.time.monotonic", lambda: clock[0])
    request = StopRequest()
    request(signal.SIGINT, None)
    clock[0] += 0.1
    request(signal.SIGINT, None)
    clock[0] += 3.0
    request(signal.SIGTERM, None)
    with pytest.raises(KeyboardInterrupt):
        request(signal.SIGINT, None)
    assert request.signal == signal.SIGINT


def test_a_signal_whose_exception_was_swallowed_is_still_heard() -> None:
    raising = signal.default_int_handler
    before = signal.signal(signal.SIGINT, raising)
    try:
        with signals_remembered():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            with stop_on_signals() as request:
                assert request.signal == signal.SIGINT
        assert signal.getsignal(signal.SIGINT) is raising
    finally:
        signal.signal(signal.SIGINT, before)
