"""The one training loop: precision, accumulation, averaging, checkpoints, signals, logging."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from sd_train.best import judged, read_best, write_best
from sd_train.compiling import compile_blocks, uncompiled, with_room_for_variants
from sd_train.config import TrainerConfig
from sd_train.errors import TrainError
from sd_train.interrupts import BrokenOff, StopRequest, broken_off, stop_on_signals
from sd_train.learners import Learners
from sd_train.logs import RunLog
from sd_train.optim import lr_scale, set_learning_rate
from sd_train.pace import Pace
from sd_train.precision import autocast
from sd_train.processes import (
    agreed,
    count,
    is_first,
    joined,
    rank,
    start_alike,
    sum_gradients,
    sum_scalars,
    wait,
)
from sd_train.reporter import Reporter, SilentReporter, TrainResult, format_scalars
from sd_train.run_lock import only_trainer
from sd_train.seeds import derive_seed, generator_for
from sd_train.settings import save_config
from sd_train.sharding import clip_gradients, is_shared_out, total_norm, whole
from sd_train.state import (
    TrainState,
    checkpoint_folder,
    kept_best,
    list_checkpoints,
    newest_whole_checkpoint,
    remove_leftovers,
    remove_old_checkpoints,
)
from sd_train.stream import BatchStream
from sd_train.task import Task, Validation, opponent_of, tell_num_steps

MAX_SKIPPED_STEPS = 20


def train(
    task: Task,
    config: TrainerConfig,
    run_folder: Path,
    reporter: Reporter | None = None,
    *,
    resume: bool = False,
    settings: BaseModel | None = None,
) -> TrainResult:
    """Train until `config.steps`, or until SIGINT or SIGTERM asks to stop after the step.

    A stopped run has a checkpoint; with `resume` it goes on from the latest one, on CPU bit for bit
    as if it had never stopped, and from the beginning where it was killed before the first one. A
    finished run is exported to `run_folder/model`. A validation is broken off by a signal, and made
    up for when the run goes on. `settings` are kept in the run folder once it is known that they
    fit what is there.

    Several processes that torchrun has started share the batches of each step, of which
    `config.accumulate` must be a multiple of their number: the run is that of one process, but for
    rounding, and may go on with another number of them. The first one writes and talks; where
    `config.parallel` has weights shared out, each writes its part of them.

    A checkpoint that is damaged is passed over for an older one, and told. Raises TrainError where
    there is nothing to resume, something in the way, another process in the folder, or the loss
    diverges.
    """
    with joined():
        check_run_folder(run_folder, resume=resume)
        with only_trainer(run_folder), torch.random.fork_rng():
            if not is_first():
                reporter = None
            trainer = Trainer(task, config, run_folder, reporter or SilentReporter())
            return trainer.run(resume, settings)


def check_run_folder(run_folder: Path, *, resume: bool) -> None:
    """Raise TrainError when there is nothing to resume, or a new run would mix with an old one."""
    if resume:
        if not run_folder.is_dir():
            raise TrainError(f"there is no run {run_folder}; start it without resuming")
    elif list_checkpoints(run_folder):
        raise TrainError(
            f"{run_folder} already holds a run; resume it (--resume) or choose another"
        )


def _check_share(config: TrainerConfig) -> None:
    if config.accumulate % count():
        raise TrainError(
            f"trainer.accumulate = {config.accumulate} batches a step cannot be shared by "
            f"{count()} processes; make it a multiple of {count()}, and trainer.batch_size as much "
            "smaller"
        )


class Trainer:
    """One run of the loop over a task."""

    def __init__(
        self,
        task: Task,
        config: TrainerConfig,
        run_folder: Path,
        reporter: Reporter,
        state: TrainState | None = None,
    ) -> None:
        self.task = task
        self.config = config
        self.run_folder = run_folder
        self.reporter = reporter
        self.state = state or TrainState.of(task, config)
        self.opponent = opponent_of(task)
        self.saved: int | None = None
        self.pace = Pace(config, reporter)
        self.stop = StopRequest()
        self._owes_save = False

    def run(self, resume: bool, settings: BaseModel | None = None) -> TrainResult:
        """Run the loop to its end or to a stop request; keep the settings as `train` does."""
        self._begin(resume)
        if settings is not None and is_first():
            save_config(settings, self.run_folder / "config.toml")
        if self.config.compile:
            self.reporter.message(f"compiling {compile_blocks(self.task)} blocks, at first use")
        with with_room_for_variants(self.config.compile):
            return self._looped()

    def _looped(self) -> TrainResult:
        state, config = self.state, self.config
        log = None
        if is_first():
            log = RunLog(self.run_folder, step=state.step, tensorboard=config.tensorboard)
        stream = BatchStream(
            self.task.source,
            batch_size=config.batch_size,
            seed=config.seed,
            position=state.position + rank() * config.batch_size,
            num_workers=config.num_workers,
            num_parts=count(),
        )
        try:
            with stop_on_signals() as self.stop:
                self.reporter.started(state.step, config.steps)
                recent: list[Mapping[str, Tensor]] = []
                if state.owes_validation and self._takes_part():
                    self._validate(log)
                signal = self._agreed_signal()
                while state.step < config.steps and not signal:
                    recent.append(self.step(stream))
                    self._after_step(log, recent)
                    signal = self._agreed_signal()
                return self._end(log, signal)
        finally:
            stream.close()
            if log is not None:
                log.close()

    def _agreed_signal(self) -> int:
        """Return the signal by which any process was asked to stop, or 0."""
        return agreed(self.stop.signal or 0)

    def export(self, folder: Path) -> None:
        """Let the task write its model with averaged weights, which the first process does."""
        tell_num_steps(self.task, self.state.step)
        with self.evaluating(), whole(self.state.learners.modules):
            if is_first():
                self.task.export(folder)

    def _begin(self, resume: bool) -> None:
        _check_share(self.config)
        check_run_folder(self.run_folder, resume=resume)
        if resume and not list_checkpoints(self.run_folder):
            resume = False
            self.reporter.message(f"{self.run_folder} has no checkpoint yet: beginning anew")
        wait()  # none looks into the folder when the first begins to write
        if is_first():
            remove_leftovers(self.run_folder)
            if not resume:
                write_best(self.run_folder, None)
        if resume:
            checkpoint = newest_whole_checkpoint(self.run_folder, self.reporter.message)
            self.state.load(checkpoint)
            self.saved = self.state.step
            self.reporter.message(f"going on from {checkpoint}")
            self.state.owes_validation &= self._takes_part()
            self._recall_best()
        self.run_folder.mkdir(parents=True, exist_ok=True)
        for learners in self.state.everybody:
            modules = learners.modules.values()
            start_alike([one for one in modules if not is_shared_out(one)])
            for module in modules:
                module.train()

    def step(self, stream: BatchStream) -> Mapping[str, Tensor]:
        """Do one optimizer step; return detached scalars, means over the accumulated batches."""
        began = time.perf_counter()
        state, config = self.state, self.config
        opposing = state.opposing if self._is_opposed() else None
        totals: dict[str, Tensor] = {}
        for _ in range(config.accumulate // count()):
            torch.manual_seed(derive_seed(config.seed, "global", stream.position))
            generator = generator_for(config.seed, "loss", stream.position)
            batch = {k: v.to(state.device, non_blocking=True) for k, v in stream.take().items()}
            with autocast(config.precision, state.device):
                loss, scalars = self.task.loss(batch, generator)
            self._backward(loss, {"loss": loss, **scalars}, totals)
            if opposing is not None:
                assert self.opponent is not None
                with autocast(config.precision, state.device):
                    loss, scalars = self.opponent.loss()
                self._backward(loss, {"opponent_loss": loss, **scalars}, totals)
        state.position += config.batch_size * config.accumulate
        totals = sum_scalars(totals)
        rate = lr_scale(state.step, config)
        totals["grad_norm"] = self._update_weights(state.learners, rate, totals["loss"])
        if not state.learners.skipped:
            state.ema.update(state.step + 1)
        if opposing is not None:
            loss = totals["opponent_loss"]
            totals["opponent_grad_norm"] = self._update_weights(opposing, rate, loss)
        state.scaler.update()
        state.step += 1
        seconds = time.perf_counter() - began
        self.pace.tell(state.step, float(totals["loss"]), rate * config.learning_rate, seconds)
        return totals

    def _is_opposed(self) -> bool:
        return self.opponent is not None and self.opponent.takes_part(self.state.step)

    def _backward(
        self, loss: Tensor, scalars: Mapping[str, Tensor], totals: dict[str, Tensor]
    ) -> None:
        """Add a batch's share to the gradients, and that of its scalars to `totals`."""
        accumulate = self.config.accumulate
        self.state.scaler.scale(loss / accumulate).backward()  # type: ignore[no-untyped-call]
        for name, value in scalars.items():
            share = value.detach().float() / accumulate
            totals[name] = totals[name] + share if name in totals else share

    def _update_weights(self, learners: Learners, rate: float, loss: Tensor) -> Tensor:
        """Step the optimizer of some learners where loss and gradients are finite; clear these."""
        scaler, optimizer, config = self.state.scaler, learners.optimizer, learners.config
        sum_gradients(learners.whole)
        set_learning_rate(optimizer, rate)
        scaler.unscale_(optimizer)
        grads = [p.grad for p in learners.parameters if p.grad is not None]
        norm = total_norm(grads)
        if math.isfinite(norm.item()) and math.isfinite(loss.item()):
            if config.clip_grad_norm:
                clip_gradients(learners.parameters, config.clip_grad_norm, norm)
            scaler.step(optimizer)
            learners.skipped = 0
        else:
            self._skip(learners)
        optimizer.zero_grad(set_to_none=True)
        return norm

    def _skip(self, learners: Learners) -> None:
        learners.skipped += 1
        whose = " of the opponent" * (learners is self.state.opposing)
        step = self.state.step + 1
        self.reporter.message(
            f"step {step}: loss or gradients{whose} not finite, weights kept ({learners.skipped} "
            f"in a row, of at most {MAX_SKIPPED_STEPS})"
        )
        if learners.skipped >= MAX_SKIPPED_STEPS:
            name = "the opponent's " if whose else "trainer."
            raise TrainError(
                f"loss or gradients{whose} were not finite for {learners.skipped} steps, up to "
                f"{step}; the checkpoints are from before: lower {name}learning_rate (now "
                f"{learners.config.learning_rate}) or use fp32, and resume"
            )

    def _after_step(self, log: RunLog | None, recent: list[Mapping[str, Tensor]]) -> None:
        step, config = self.state.step, self.config
        if log is None:
            recent.clear()
        elif step % config.log_every == 0:
            means = {name: torch.stack([s[name] for s in recent]).mean() for name in recent[0]}
            means["learning_rate"] = torch.tensor(
                self.state.learners.optimizer.param_groups[0]["lr"]
            )
            means["images_per_second"] = torch.tensor(self.pace.images_per_second)
            log.scalars(step, {f"train/{name}": float(value) for name, value in means.items()})
            recent.clear()
        if not self._takes_part():
            return
        if step < config.steps and config.validate_every and step % config.validate_every == 0:
            self._validate(log)
        if step < config.steps and config.save_every and step % config.save_every == 0:
            self._owes_save = True
        # What nothing is learnt with is not to push the last good one out.
        if self._owes_save and not any(each.skipped for each in self.state.everybody):
            self._save()

    def _takes_part(self) -> bool:
        """Tell whether this process validates and saves: the first does, or all that have parts."""
        return is_first() or self.state.is_sharded

    def _end(self, log: RunLog | None, signal: int) -> TrainResult:
        step, model, best = self.state.step, self.run_folder / "model", None
        checkpoint = checkpoint_folder(self.run_folder, step)
        if self._takes_part():
            self._save()
            if step >= self.config.steps:
                self._validate(log)
        if step >= self.config.steps:
            signal = agreed((self.state.owes_validation and self.stop.signal) or 0)
        if signal:
            result = TrainResult(status="stopped", step=step, checkpoint=checkpoint, signal=signal)
        else:
            if self._takes_part():
                self.export(model)
            if log is not None:
                best = kept_best(self.run_folder, self.state.best)
            wait()  # what the first has made is there when any of them ends
            result = TrainResult(
                status="finished", step=step, checkpoint=checkpoint, best=best, model=model
            )
        self.reporter.finished(result)
        return result

    def _save(self) -> None:
        self._owes_save = False
        if self.saved == self.state.step:
            return  # replacing it would leave none for an instant
        self.state.save(checkpoint_folder(self.run_folder, self.state.step))
        self.saved = self.state.step
        if is_first():
            remove_old_checkpoints(self.run_folder, self.config.keep_last, self.state.best)

    def _recall_best(self) -> None:
        """Know the best again as it was at this step: what came after it comes again."""
        if not is_first():
            return
        told = read_best(self.run_folder)
        if told is not None and told.step == self.state.step:
            self.state.best = told  # the last validation of a run follows its last checkpoint
        there = kept_best(self.run_folder, self.state.best)
        write_best(self.run_folder, self.state.best if there else None)

    def _judge(self, validation: Validation) -> bool:
        """Tell whether this validation is the best so far; say it if it is worse."""
        state, before = self.state, self.state.best
        state.best, line = judged(before, validation.scalars, state.step, self.config)
        if line:
            self.reporter.message(line)
        return state.best is not None and state.best.step == state.step and state.best != before

    def _validate(self, log: RunLog | None) -> None:
        self.state.owes_validation = True
        try:
            with self.evaluating(), broken_off(self._computing(), self.stop):
                validation = self.task.validate()
        except BrokenOff:
            return
        self.state.owes_validation = False
        step, is_best = self.state.step, False
        if log is not None:
            log.scalars(step, {f"validation/{k}": v for k, v in validation.scalars.items()})
            log.images(step, validation.images)
            self.reporter.message(f"step {step}: {format_scalars(validation.scalars)}")
            is_best = self._judge(validation)
        if self.state.is_sharded:  # what the first finds best all save
            is_best = bool(agreed(int(is_best)))
        if is_best:
            self._save()  # its state says that it is the best, so whoever goes on from it knows
            if log is not None:
                write_best(self.run_folder, self.state.best)
                remove_old_checkpoints(self.run_folder, self.config.keep_last, self.state.best)

    def _computing(self) -> Sequence[nn.Module]:
        """Return the networks that a validation calls; none where all processes must call them."""
        if self.state.is_sharded:
            return ()
        return [*self.state.learners.modules.values(), *getattr(self.task, "networks", ())]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put averaged weights into the modules, without gradients and dropout."""
        modules, precision = self.state.learners.modules.values(), self.config.precision
        for module in modules:
            module.eval()
        try:
            with ExitStack() as stack:
                stack.enter_context(self.state.averaged())
                stack.enter_context(torch.no_grad())
                stack.enter_context(autocast(precision, self.state.device))
                if self.config.compile:
                    stack.enter_context(uncompiled())
                yield
        finally:
            for module in modules:
                module.train()
