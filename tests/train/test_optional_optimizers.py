"""Optimizers of libraries that may not be there: schedule-free's own, and a fake of 8 bits."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy import Recorder, ToyTask, assert_same_checkpoint, config

from sd_checkpoint import Checkpoint
from sd_train import TrainError, export, train
from sd_train.learners import Learners

SETTINGS = {"optimizer": "schedulefree", "lr_schedule": "constant"}


@pytest.mark.parametrize("stop_at", [3, 4])
def test_a_resumed_schedule_free_run_equals_a_straight_one_bit_for_bit(
    tmp_path: Path, stop_at: int
) -> None:
    settings = config(**SETTINGS)
    straight = train(ToyTask(), settings, tmp_path / "straight")
    train(ToyTask(), settings, tmp_path / "resumed", Recorder(stop_at))
    resumed = train(ToyTask(), settings, tmp_path / "resumed", resume=True)
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)


def test_validation_sees_schedule_frees_averages_and_training_nothing_of_it(tmp_path: Path) -> None:
    without = train(ToyTask(), config(**SETTINGS, validate_every=0), tmp_path / "without")
    with_it = train(ToyTask(), config(**SETTINGS, validate_every=1), tmp_path / "with")
    assert_same_checkpoint(without.checkpoint, with_it.checkpoint)
    weights = Checkpoint.open(with_it.checkpoint / "weights.safetensors")
    averages = Checkpoint.open(with_it.checkpoint / "ema.safetensors")
    z = Checkpoint.open(with_it.checkpoint / "optimizer.safetensors")["net.0.weight/z"]
    wanted = weights["net.0.weight"].lerp(z, 1 - 1 / 0.9)
    assert not torch.equal(weights["net.0.weight"], wanted)
    for path in ("with/model/net.safetensors", "out/net.safetensors"):
        if path.startswith("out"):
            export(ToyTask(), config(**SETTINGS), tmp_path / "with", tmp_path / "out")
        exported = Checkpoint.open(tmp_path / path)["0.weight"]
        assert torch.equal(exported, averages["net.0.weight"])
        torch.testing.assert_close(exported, wanted)


def test_what_is_not_installed_is_refused_with_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    with pytest.raises(TrainError, match=r'pip install "sd-train\[schedulefree\]"'):
        train(ToyTask(), config(**SETTINGS), tmp_path)


def test_eight_bits_are_refused_on_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="'adamw8bit' needs a CUDA device, not 'cpu'; use"):
        train(ToyTask(), config(optimizer="adamw8bit"), tmp_path)


def test_schedule_free_wants_no_schedule() -> None:
    with pytest.raises(ValueError, match="lr_schedule is 'cosine'; set it to 'constant'"):
        config(optimizer="schedulefree")


class EightBits(torch.optim.Optimizer):
    """As bitsandbytes keeps it: bytes, their scales and a step that is a plain number."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 1.0})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            state = self.state.setdefault(p, {})
            state["step"] = state.get("step", 0) + 1
            state["state1"] = torch.randint_like(p, 256, dtype=torch.uint8)
            state["absmax1"] = torch.rand(3)


def test_states_of_bytes_and_plain_numbers_come_back_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sd_train.optim.adamw_8bit", lambda groups, _config: EightBits(groups))
    net = nn.Conv2d(3, 4, 3, bias=False).to(memory_format=torch.channels_last)
    before, after = (Learners({"net": net}, config(optimizer="adamw8bit")) for _ in range(2))
    before.optimizer.step()
    before.optimizer.step()
    after.load_optimizer(before.optimizer_tensors())
    (saved,), (found,) = before.optimizer.state.values(), after.optimizer.state.values()
    assert found["step"] == 2
    assert isinstance(found["step"], int)
    assert torch.equal(found["absmax1"], saved["absmax1"])
    # torch's own loading casts states to the weight's type; the library's does not.
    assert torch.equal(found["state1"].byte(), saved["state1"])
    assert found["state1"].stride() == net.weight.stride()
