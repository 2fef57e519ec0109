"""What a training method tells the core: what learns, the loss, what to show, what to save."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from sd_train.config import TrainerConfig

Batch = Mapping[str, Tensor]


class BatchSource(Protocol):
    """The training examples of a task, as batches of CPU tensors."""

    def __len__(self) -> int:
        """Count the examples."""

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """Gather examples; random choices come from `generator`. Threads may call this."""


def groups_of(source: BatchSource) -> Sequence[Sequence[int]] | None:
    """Return the examples of a source sorted by what may share a batch; None where all may.

    A source of which not all may names them in an attribute `groups`.
    """
    groups: Sequence[Sequence[int]] | None = getattr(source, "groups", None)
    return groups


def layers_of(task: "Task") -> Sequence[nn.Module]:
    """Return the layers by which the weights of a task may be shared out among processes; or none.

    A task whose modules compute nothing but when they are called names such layers of them, none
    within another, in an attribute `layers`.
    """
    layers: Sequence[nn.Module] = getattr(task, "layers", ())
    return layers


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """What a validation found: scalars by name and uint8 pictures (3, H, W) by name."""

    scalars: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """One training method.

    Its modules hold fp32 parameters and stand on their device already. Besides `generator`, only
    torch's global generator may be drawn from (dropout); the core seeds it anew for every step.

    One whose networks `trainer.compile` may compile names them in an attribute `networks`, and one
    that writes down how long it has learnt has an attribute `num_steps`, set before an export.
    """

    @property
    def source(self) -> BatchSource:
        """The training examples."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Name the modules that learn; the names are the prefixes in checkpoints."""

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of a batch and detached 0-d scalars to log; runs under autocast."""

    def validate(self) -> Validation:
        """Measure on held-out examples with fixed noise; averaged weights are in place."""

    def export(self, folder: Path) -> None:
        """Write what was learnt into `folder`; averaged weights are in place."""


def tell_num_steps(task: Task, num_steps: int) -> None:
    """Tell a task that has an attribute `num_steps` after how many its weights are as they are."""
    if hasattr(task, "num_steps"):
        task.num_steps = num_steps


class Opponent(Protocol):
    """What learns against a task: a discriminator, with a loss and an optimizer of its own.

    A task that has one names it in an attribute `opponent`. In each step in which it takes part its
    loss follows the task's, on every batch; then both sides are updated, each with its own gradient
    norm, clipping and guard against gradients that are not finite.
    """

    @property
    def config(self) -> TrainerConfig:
        """The settings of its optimizer and clipping; the schedule and all else are the run's."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Name the modules that learn, otherwise than the task's; they are not averaged."""

    def takes_part(self, step: int) -> bool:
        """Tell, before anything of a step, whether it takes part; `step` are done before it."""

    def loss(self) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss on what the task's loss has just seen, and scalars, as `Task.loss`."""


def opponent_of(task: Task) -> Opponent | None:
    """Return the opponent of a task, if it has one."""
    opponent: Opponent | None = getattr(task, "opponent", None)
    return opponent
