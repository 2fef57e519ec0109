"""The progress of a training run on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import Progress, TaskID

from sdcli.progress import progress, stderr

if TYPE_CHECKING:
    from sd_train import Reporter, StepInfo, TrainResult


class ProgressReporter:
    """Shows a bar with loss, learning rate, images a second and time left."""

    def __init__(self, bars: Progress) -> None:
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
    if stderr.is_terminal:
        with progress() as bars:
            yield ProgressReporter(bars)
        return
    from sd_train import LineReporter

    yield LineReporter(lambda text: stderr.print(text, highlight=False, soft_wrap=True))
