"""What a run tells whoever shows its progress."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class StepInfo:
    """One optimizer step: loss and rates; `seconds_left` is the estimate for the whole run."""

    step: int
    num_steps: int
    loss: float
    learning_rate: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """How a run ended, its last checkpoint and its best, and the exported model of a finished run.

    `signal` is the one that stopped it.
    """

    status: Literal["finished", "stopped"]
    step: int
    checkpoint: Path
    best: Path | None = None
    model: Path | None = None
    signal: int | None = None


class Reporter(Protocol):
    """Receives the events of a run, all in the caller's thread."""

    def started(self, step: int, num_steps: int) -> None:
        """Hear that the loop begins after `step` of `num_steps`."""

    def step(self, info: StepInfo) -> None:
        """Hear of a step that is done."""

    def message(self, text: str) -> None:
        """Hear one line for the person who watches."""

    def finished(self, result: TrainResult) -> None:
        """Hear how the run ended."""


class SilentReporter:
    """Says nothing."""

    def started(self, step: int, num_steps: int) -> None:
        """Say nothing."""

    def step(self, info: StepInfo) -> None:
        """Say nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""

    def finished(self, result: TrainResult) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class LineReporter:
    """Says one plain line every `every` steps, for logs and pipes."""

    write: Callable[[str], None]
    every: int = 50

    def started(self, step: int, num_steps: int) -> None:
        """Say where the run begins."""
        self.write(f"step {step} of {num_steps}")

    def step(self, info: StepInfo) -> None:
        """Say the step's loss and rates, now and then."""
        if info.step % self.every == 0 or info.step == info.num_steps:
            self.write(
                f"step {info.step}/{info.num_steps} loss {info.loss:.4f} "
                f"lr {info.learning_rate:.2e} {info.images_per_second:.1f} images/s "
                f"{info.seconds_left / 60:.0f} min left"
            )

    def message(self, text: str) -> None:
        """Say the line."""
        self.write(text)

    def finished(self, result: TrainResult) -> None:
        """Say how the run ended."""
        self.write(f"{result.status} at step {result.step}: {result.model or result.checkpoint}")


def format_scalars(scalars: Mapping[str, float]) -> str:
    """Put scalars on one line for a message."""
    return ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
