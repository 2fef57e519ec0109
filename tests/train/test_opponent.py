"""A toy task with an opponent: the core holds for both sides what it holds for one."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy import Recorder, ToyTask, assert_same_checkpoint, config

from sd_checkpoint import Checkpoint
from sd_train import Batch, TrainerConfig, TrainError, train
from sd_train.rehearsal import rehearse
from sd_train.reporter import SilentReporter
from sd_train.state import TrainState
from sd_train.stream import BatchStream
from sd_train.trainer import Trainer


class Judge:
    """Learns from step `start` on to tell the task's pictures from true ones."""

    def __init__(self, start: int, factor: float, clip: float = 1.0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 1, 3))
        self.config = config(learning_rate=3e-3, betas=(0.5, 0.9), clip_grad_norm=clip)
        self.start, self.factor, self.active = start, factor, False
        self.seen: tuple[Tensor, Tensor] | None = None

    def modules(self) -> Mapping[str, nn.Module]:
        return {"judge": self.net}

    def takes_part(self, step: int) -> bool:
        self.active = step >= self.start
        return self.active

    def loss(self) -> tuple[Tensor, Mapping[str, Tensor]]:
        assert self.seen is not None
        images, made = self.seen
        loss = (self.net(made) - self.net(images)).mean() * self.factor
        return loss, {"judged": loss.detach()}


class OpposedTask(ToyTask):
    """With a `weight` it learns to please the judge."""

    def __init__(
        self, start: int = 0, *, weight: float = 0.1, factor: float = 1.0, clip: float = 1.0
    ) -> None:
        super().__init__()
        self.opponent = Judge(start, factor, clip)
        self.weight = weight

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        images = batch["images"]
        made = self.net(images + torch.randn(images.shape, generator=generator))
        loss = (made - images).square().mean()
        if self.opponent.active:
            self.opponent.seen = images, made.detach()
            if self.weight:
                self.opponent.net.requires_grad_(False)
                loss = loss - self.weight * self.opponent.net(made).mean()
                self.opponent.net.requires_grad_(True)
        return loss, {"error": loss.detach()}


def tensors(checkpoint: Path, name: str) -> Checkpoint:
    return Checkpoint.open(checkpoint / f"{name}.safetensors")


def differing(left: Checkpoint, right: Checkpoint) -> set[str]:
    return {key for key in left.keys() & right.keys() if not torch.equal(left[key], right[key])}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("stop_at", [1, 2, 5])
def test_a_stopped_and_resumed_run_equals_a_straight_one_for_both_sides(
    tmp_path: Path, precision: str, stop_at: int
) -> None:
    settings = config(precision=precision)
    straight = train(OpposedTask(2), settings, tmp_path / "straight")
    train(OpposedTask(2), settings, tmp_path / "resumed", Recorder(stop_at))
    resumed = train(OpposedTask(2), settings, tmp_path / "resumed", resume=True)
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)
    assert "judge.0.weight" in tensors(straight.checkpoint, "weights")
    assert "judge.0.weight/exp_avg" in tensors(straight.checkpoint, "optimizer")
    assert not [key for key in tensors(straight.checkpoint, "ema") if key.startswith("judge")]


def test_before_its_first_step_the_run_is_one_without_it(tmp_path: Path) -> None:
    opposed = train(OpposedTask(5), config(), tmp_path / "opposed", Recorder(5))
    alone = train(ToyTask(), config(), tmp_path / "alone", Recorder(5))
    for name in ("weights", "ema", "optimizer"):
        left, right = tensors(opposed.checkpoint, name), tensors(alone.checkpoint, name)
        assert {key for key in left if not key.startswith("judge.")} == right.keys()
        assert not differing(left, right), name
    assert not [key for key in tensors(opposed.checkpoint, "optimizer") if key[:5] == "judge"]
    start = {
        f"judge.{key}": value for key, value in OpposedTask().opponent.net.state_dict().items()
    }
    weights = tensors(opposed.checkpoint, "weights")
    assert all(torch.equal(weights[key], value) for key, value in start.items())


def test_from_then_on_both_sides_learn_and_each_feels_the_other(tmp_path: Path) -> None:
    with_it = train(OpposedTask(5), config(), tmp_path / "with", Recorder(6))
    without = train(OpposedTask(6), config(), tmp_path / "without", Recorder(6))
    differ = differing(
        tensors(with_it.checkpoint, "weights"), tensors(without.checkpoint, "weights")
    )
    assert {key.split(".")[0] for key in differ} == {"net", "judge"}


def test_the_gradients_of_one_side_are_not_clipped_by_those_of_the_other(tmp_path: Path) -> None:
    task = OpposedTask(weight=0, factor=1e4)
    opposed = train(task, config(), tmp_path / "opposed")
    alone = train(ToyTask(), config(), tmp_path / "alone")
    left, right = (tensors(run.checkpoint, "weights") for run in (opposed, alone))
    assert not differing(left, right)


def test_gradients_of_the_opponent_that_are_not_finite_stop_it_alone(tmp_path: Path) -> None:
    recorder = Recorder()
    task = OpposedTask(weight=0, factor=float("nan"))
    opposed = train(task, config(), tmp_path / "opposed", recorder)
    alone = train(ToyTask(), config(), tmp_path / "alone")
    left, right = (tensors(run.checkpoint, "weights") for run in (opposed, alone))
    assert not differing(left, right)
    assert all(left[key].isfinite().all() for key in left)
    assert any(
        line.startswith("step 1: loss or gradients of the opponent not finite, weights kept")
        for line in recorder.messages
    )
    with pytest.raises(
        TrainError, match=r"of the opponent were not finite .* 0\.003\) or use fp32"
    ):
        train(OpposedTask(weight=0, factor=float("nan")), config(steps=30), tmp_path / "long")


def test_the_schedule_is_the_runs_and_the_rate_the_opponents_own(tmp_path: Path) -> None:
    settings: TrainerConfig = config(warmup_steps=4, lr_schedule="constant")
    task = OpposedTask()
    state = TrainState.of(task, settings)
    stream = BatchStream(task.source, batch_size=4, seed=0, position=0, num_workers=0)
    Trainer(task, settings, tmp_path, SilentReporter(), state).step(stream)
    stream.close()
    assert state.opposing is not None
    rates = [each.optimizer.param_groups[0]["lr"] for each in state.everybody]
    assert rates == pytest.approx([1e-2 / 4, 3e-3 / 4])


def test_a_rehearsal_counts_the_opponent_though_it_begins_late(tmp_path: Path) -> None:
    task = OpposedTask(5)
    cost = rehearse(task, config(), tmp_path)
    both = (*task.net.parameters(), *task.opponent.net.parameters())
    assert cost.num_parameters == sum(p.numel() for p in both)
    assert task.opponent.active
