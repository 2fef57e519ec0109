"""What the UNet is told at every step of a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from sd_unet import AddedConditions


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """Hold what a UNet takes of these: the text's states (B, T, D), pooled text and sizes, classes.

    `class_labels` (B,) are numbers.
    """

    hidden_states: Tensor | None = None
    added: AddedConditions | None = None
    class_labels: Tensor | None = None

    def rows(self, numbers: Sequence[int]) -> "Conditions":
        """Return the rows of these numbers, in this order, and any of them more than once."""
        index = list(numbers)
        told = self.class_labels if self.hidden_states is None else self.hidden_states
        if told is not None and index == list(range(len(told))):
            return self
        return self._changed(lambda values: values[index])

    def repeated(self, times: int) -> "Conditions":
        """Return every row `times` times, one after the other."""
        return self._changed(lambda values: values.repeat_interleave(times, dim=0))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "Conditions":
        states, added, labels = self.hidden_states, self.added, self.class_labels
        return Conditions(
            hidden_states=None if states is None else change(states),
            added=None if added is None else AddedConditions(*(change(each) for each in added)),
            class_labels=None if labels is None else change(labels),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """Hold what the UNet is told at every step.

    Each of `stretches` is the last step, from 1, that it serves, and conditions whose first row is
    the negative prompt's, where `guided`, and whose others are the prompts joined by AND, which
    weigh `weights`.
    """

    stretches: tuple[tuple[int, Conditions], ...]
    weights: tuple[float, ...]
    guided: bool

    @property
    def num_rows(self) -> int:
        """How many times the UNet is asked for each picture."""
        return len(self.weights) + self.guided

    @property
    def prompts(self) -> tuple[int, ...]:
        """The numbers of the prompts' rows."""
        return tuple(range(self.guided, self.num_rows))

    def at(self, step: int) -> Conditions:
        """Return what a step from 1 is told."""
        return next(told for last, told in self.stretches if step <= last)
