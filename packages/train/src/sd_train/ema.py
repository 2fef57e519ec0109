"""Exponential moving average of weights."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sd_train.sharding import is_sharded, local


class Ema:
    """Average parameters with decay min(decay, 1 - (1 + step) ** -power).

    The power warm-up keeps the first, bad weights from lingering in a short run; `power` 0 means
    the plain constant decay. With `decay` 0 the averages are the parameters themselves, and cost
    no memory. Of parameters that are shared out each process averages its part.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float, power: float) -> None:
        self.parameters = list(parameters)
        plain = (parameter.detach() for parameter in self.parameters)
        self.averages: list[Tensor] = [p.clone() if decay else p for p in plain]
        self.decay = decay
        self.power = power

    def decay_at(self, step: int) -> float:
        """Return the decay of the update after `step` (counted from 1)."""
        if self.power == 0:
            return self.decay
        return min(self.decay, 1 - math.pow(1 + step, -self.power))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the parameters."""
        if not self.decay:
            return
        weight = 1 - self.decay_at(step)
        averages = [local(average) for average in self.averages]
        torch._foreach_lerp_(averages, [local(p) for p in self.parameters], weight)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Let the modules hold the averages inside the context, in the place of the parameters."""
        if not self.decay:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for i, parameter in enumerate(self.parameters):
            average = self.averages[i]
            if is_sharded(parameter):  # it is joined from this memory, whatever its data are
                mine, other = local(parameter), local(average)
                held = mine.clone()
                mine.copy_(other)
                other.copy_(held)
            else:
                self.averages[i] = parameter.data
                parameter.data = average
