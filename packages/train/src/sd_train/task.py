"""What a training method tells the core: what learns, the loss, what to show, what to save."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

Batch = Mapping[str, Tensor]


class BatchSource(Protocol):
    """The training examples of a task, as batches of CPU tensors."""

    def __len__(self) -> int:
        """Count the examples."""

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """Gather examples; random choices come from `generator`. Threads may call this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """What a validation found: scalars by name and uint8 pictures (3, H, W) by name."""

    scalars: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """One training method.

    Its modules hold fp32 parameters and stand on their device already. Besides `generator`, only
    torch's global generator may be drawn from (dropout); the core seeds it anew for every step.
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
