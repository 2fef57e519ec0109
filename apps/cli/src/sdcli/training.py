"""A training run on the terminal: its progress, and how it ended."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from signal import SIGINT
from typing import TYPE_CHECKING

import typer

from sdcli.interrupts import end_if_asked
from sdcli.progress import progress, stderr
from sdcli.results import show

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from sd_train import Reporter, StepInfo, TrainResult
    from sd_train.run import RunConfig


class ProgressReporter:
    """Shows a bar with loss, learning rate, images a second and time left."""

    def __init__(self, bars: "Progress") -> None:
        self._bars = bars
        self._bar: TaskID | None = None

    def started(self, step: int, num_steps: int) -> None:
        """Open the bar."""
        self._bar = self._bars.add_task("training", total=num_steps, completed=step, note="")

    def step(self, info: "StepInfo") -> None:
        """Move the bar."""
        assert self._bar is not None
        note = (
            f"loss {info.loss:.4f}  lr {info.learning_rate:.1e}  "
            f"{info.images_per_second:.1f} images/s"
        )
        self._bars.update(self._bar, completed=info.step, note=note)

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        self._bars.console.print(text, highlight=False, soft_wrap=True)

    def finished(self, result: "TrainResult") -> None:
        """Leave the bar where it is; the command prints the result."""


@contextmanager
def reporter() -> Iterator["Reporter"]:
    """Show a bar on a terminal; elsewhere print a line now and then."""
    if stderr().is_terminal:
        with progress() as bars:
            yield ProgressReporter(bars)
        return
    from sd_train import LineReporter

    yield LineReporter(lambda text: stderr().print(text, highlight=False, soft_wrap=True))


def rehearsed(settings: "RunConfig", folder: Path, *, as_json: bool) -> None:
    """Print what a run would need."""
    from sd_train import rehearse_run

    with reporter() as report:
        found = rehearse_run(settings, folder, report)
    show("\n".join(found.lines()), {**asdict(found), "warnings": found.warnings}, as_json=as_json)


def trained(settings: "RunConfig", folder: Path, *, resume: bool) -> "TrainResult":
    """Train in a run's folder, showing how far it is; Ctrl-C ends it after the step."""
    from sd_ops import freed_memory_kept
    from sd_train import run

    end_if_asked()
    with reporter() as report, freed_memory_kept():
        try:
            return run(settings, folder, report, resume=resume)
        except KeyboardInterrupt:
            report.message(f"interrupted; what {folder} has saved stands")
            raise


def show_result(
    result: "TrainResult",
    product: Path | None,
    *,
    as_json: bool,
    lines: Mapping[str, str] | None = None,
) -> None:
    """Print how a run ended, and what came of a finished one with `lines` about it by their names.

    Of several processes that train together the first alone prints. Raises `typer.Exit` with 130
    for a run that Ctrl-C stopped, 143 for SIGTERM.
    """
    told = dict(lines or {})
    if result.best is not None and result.best != result.checkpoint:
        told["best by validation"] = str(result.best)
    text = f"{result.status} at step {result.step}: {product or result.checkpoint}"
    if os.environ.get("RANK", "0") == "0":
        show(
            "\n".join([text, *(f"{name}: {line}" for name, line in told.items())]),
            {
                "status": result.status,
                "step": result.step,
                "model": product,
                "checkpoint": result.checkpoint,
                "best": result.best,
                **told,
            },
            as_json=as_json,
        )
    if result.status == "stopped":
        raise typer.Exit(128 + (result.signal or SIGINT))
