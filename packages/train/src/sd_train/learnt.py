"""What a run has learnt, its averaged weights, while it goes on or after."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sd_train.config import TrainerConfig
from sd_train.reporter import Reporter, SilentReporter
from sd_train.state import TrainState, best_checkpoint, newest_whole_checkpoint, step_of
from sd_train.task import Task, tell_num_steps
from sd_train.trainer import Trainer


@contextmanager
def as_learnt(
    task: Task, config: TrainerConfig, run_folder: Path, reporter: Reporter, *, best: bool = False
) -> Iterator[Path]:
    """Put the averaged weights of a run's latest whole checkpoint into the task's modules.

    Yield that checkpoint; with `best` it is the best one. Gradients and dropout are off.
    """
    state = TrainState.of(task, config)
    if best:
        checkpoint = best_checkpoint(run_folder)
    else:
        checkpoint = newest_whole_checkpoint(run_folder, reporter.message)
    state.load(checkpoint)
    with Trainer(task, config, run_folder, reporter, state).evaluating():
        yield checkpoint


def export(
    task: Task,
    config: TrainerConfig,
    run_folder: Path,
    folder: Path,
    reporter: Reporter | None = None,
    *,
    best: bool = False,
) -> Path:
    """Export the averaged weights of a run's latest whole checkpoint, or of its best; return it."""
    with as_learnt(task, config, run_folder, reporter or SilentReporter(), best=best) as checkpoint:
        tell_num_steps(task, step_of(checkpoint))
        task.export(folder)
    return checkpoint
