import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import Recorder, ToyTask, assert_same_checkpoint, config

from sd_checkpoint import Checkpoint
from sd_train import Batch, TrainError, export, train
from sd_train.state import checkpoint_folder, list_checkpoints


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stop_at", [3, 4])
def test_a_stopped_and_resumed_run_equals_a_straight_one_bit_for_bit(
    tmp_path: Path, precision: str, stop_at: int, optimizer: str
) -> None:
    settings = config(precision=precision, optimizer=optimizer)
    straight = train(ToyTask(), settings, tmp_path / "straight")
    stopped = train(ToyTask(), settings, tmp_path / "resumed", Recorder(stop_at))
    assert (stopped.status, stopped.step, stopped.model) == ("stopped", stop_at, None)
    resumed = train(ToyTask(), settings, tmp_path / "resumed", resume=True)
    assert (resumed.status, resumed.step) == ("finished", 8)
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)


def test_sigterm_stops_after_the_step_and_the_old_handlers_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    result = train(ToyTask(), config(), tmp_path, Recorder(5, signal.SIGTERM))
    assert (result.status, result.step) == ("stopped", 5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_reading_ahead_with_threads_changes_nothing(tmp_path: Path) -> None:
    plain = train(ToyTask(), config(), tmp_path / "plain")
    threaded = train(ToyTask(), config(num_workers=2), tmp_path / "threaded")
    assert_same_checkpoint(plain.checkpoint, threaded.checkpoint)


def test_validation_leaves_training_alone_and_sees_averaged_weights(tmp_path: Path) -> None:
    without = train(ToyTask(), config(validate_every=0), tmp_path / "without")
    task = ToyTask()
    with_it = train(task, config(validate_every=1), tmp_path / "with")
    assert_same_checkpoint(without.checkpoint, with_it.checkpoint)
    assert task.modes == [False] * 8
    exported = Checkpoint.open(tmp_path / "with/model/net.safetensors")
    averages = Checkpoint.open(with_it.checkpoint / "ema.safetensors")
    weights = Checkpoint.open(with_it.checkpoint / "weights.safetensors")
    assert torch.equal(exported["0.weight"], averages["net.0.weight"])
    assert not torch.equal(exported["0.weight"], weights["net.0.weight"])


def test_accumulated_batches_give_the_gradient_of_the_large_batch(tmp_path: Path) -> None:
    large = train(ToyTask(random=False), config(batch_size=8, accumulate=1), tmp_path / "large")
    small = train(ToyTask(random=False), config(batch_size=2, accumulate=4), tmp_path / "small")
    ours = Checkpoint.open(large.checkpoint / "weights.safetensors")
    theirs = Checkpoint.open(small.checkpoint / "weights.safetensors")
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-3, atol=1e-5)


def test_a_step_with_a_gradient_that_is_not_finite_keeps_weights_and_averages(
    tmp_path: Path,
) -> None:
    settings = config(steps=1, accumulate=1, warmup_steps=0)
    recorder = Recorder()
    start = {name: p.detach().clone() for name, p in ToyTask().net.named_parameters()}
    result = train(ToyTask(poison=[0]), settings, tmp_path, recorder)
    averages = Checkpoint.open(result.checkpoint / "ema.safetensors")
    assert all(torch.equal(averages[f"net.{name}"], value) for name, value in start.items())
    assert any("not finite" in line for line in recorder.messages)


def test_a_diverged_run_ends_with_an_error_that_says_what_to_change(tmp_path: Path) -> None:
    task = ToyTask(poison=range(100))
    with pytest.raises(TrainError, match=r"lower trainer\.learning_rate"):
        train(task, config(steps=50, accumulate=1), tmp_path)


def test_a_loss_that_is_not_finite_is_not_learnt_though_its_gradients_are(tmp_path: Path) -> None:
    class Endless(ToyTask):
        def loss(
            self, batch: Batch, generator: torch.Generator
        ) -> tuple[Tensor, dict[str, Tensor]]:
            return super().loss(batch, generator)[0] + torch.inf, {}

    recorder = Recorder()
    result = train(Endless(), config(steps=1, warmup_steps=0), tmp_path, recorder)
    weights = Checkpoint.open(result.checkpoint / "weights.safetensors")
    assert torch.equal(weights["net.0.weight"], ToyTask().net.state_dict()["0.weight"])
    assert any("1 in a row" in line for line in recorder.messages)


def test_steps_that_are_not_applied_push_no_checkpoint_out(tmp_path: Path) -> None:
    task = ToyTask(poison=range(4, 100))
    with pytest.raises(TrainError, match="the checkpoints are from before"):
        train(task, config(steps=50, accumulate=1, save_every=1), tmp_path)
    assert list_checkpoints(tmp_path) == [checkpoint_folder(tmp_path, step) for step in (3, 4)]


def test_a_save_that_was_put_off_comes_with_the_next_step_that_is_applied(tmp_path: Path) -> None:
    settings = config(steps=7, accumulate=1, save_every=3, keep_last=9, validate_every=0)
    train(ToyTask(poison=[2, 3]), settings, tmp_path)
    assert list_checkpoints(tmp_path) == [checkpoint_folder(tmp_path, step) for step in (5, 6, 7)]


def test_fp16_scales_the_loss_and_keeps_the_scale_across_a_resume(tmp_path: Path) -> None:
    settings = config(precision="fp16")
    straight = train(ToyTask(), settings, tmp_path / "straight")
    train(ToyTask(), settings, tmp_path / "resumed", Recorder(3))
    resumed = train(ToyTask(), settings, tmp_path / "resumed", resume=True)
    assert '"scale"' in (resumed.checkpoint / "state.json").read_text()
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)


def test_only_the_last_checkpoints_stay_and_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    train(ToyTask(), config(save_every=1, keep_last=3), tmp_path)
    assert list_checkpoints(tmp_path) == [checkpoint_folder(tmp_path, step) for step in (6, 7, 8)]


def test_a_running_runs_latest_checkpoint_can_be_exported(tmp_path: Path) -> None:
    settings = config()
    train(ToyTask(), settings, tmp_path / "run", Recorder(5))
    checkpoint = export(ToyTask(), settings, tmp_path / "run", tmp_path / "out")
    exported = Checkpoint.open(tmp_path / "out/net.safetensors")
    averages = Checkpoint.open(checkpoint / "ema.safetensors")
    assert torch.equal(exported["3.bias"], averages["net.3.bias"])


def test_a_folder_that_holds_a_run_is_not_trained_over(tmp_path: Path) -> None:
    train(ToyTask(), config(), tmp_path)
    with pytest.raises(TrainError, match="already holds a run"):
        train(ToyTask(), config(), tmp_path)


def test_resuming_needs_a_run_and_the_same_seed(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="there is no run"):
        train(ToyTask(), config(), tmp_path / "nothing", resume=True)
    assert not (tmp_path / "nothing").exists()
    train(ToyTask(), config(), tmp_path / "run", Recorder(2))
    with pytest.raises(TrainError, match=r"trainer\.seed = 7"):
        train(ToyTask(), config(seed=7), tmp_path / "run", resume=True)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints/.tmp-0123abcd-step-00000002").mkdir(parents=True)
    told = Recorder()
    resumed = train(ToyTask(), config(), tmp_path / "run", told, resume=True)
    assert any("no checkpoint yet" in line for line in told.messages)
    straight = train(ToyTask(), config(), tmp_path / "straight")
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)


def test_another_optimizer_is_refused_and_the_settings_stay_as_they_were(tmp_path: Path) -> None:
    settings = config()
    train(ToyTask(), settings, tmp_path, Recorder(2), settings=settings)
    kept = (tmp_path / "config.toml").read_text()
    other = config(optimizer="adafactor")
    with pytest.raises(TrainError, match=r"'adafactor', but .* was trained with 'adamw'"):
        train(ToyTask(), other, tmp_path, resume=True, settings=other)
    assert (tmp_path / "config.toml").read_text() == kept


def test_rates_may_differ_between_modules_but_must_name_one(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="names 'nett', which does not learn"):
        train(ToyTask(), config(learning_rate_scales={"nett": 0.1}), tmp_path)


def test_the_reporter_hears_every_step_with_time_left(tmp_path: Path) -> None:
    recorder = Recorder()
    result = train(ToyTask(), config(), tmp_path, recorder)
    assert [info.step for info in recorder.steps] == list(range(1, 9))
    assert recorder.steps[-1].seconds_left == 0
    assert all(info.images_per_second > 0 for info in recorder.steps)
    assert recorder.result == result


def test_tensorboard_receives_losses_and_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(ToyTask(), config(tensorboard=True), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4, 6, 8]
    assert [event.step for event in events.Images("validation/first")] == [3, 6, 8]
    assert (tmp_path / "samples/step-00000006-first.png").is_file()
