"""Which examples make up a batch: a pure function of (seed, position)."""

from collections.abc import Sequence
from typing import Protocol

import torch

from sd_train.seeds import generator_for


class Order(Protocol):
    """The endless order in which a run sees its examples."""

    def batch(self, position: int, size: int) -> list[int]:
        """Return the examples of the batch of `size` that begins after `position` examples."""


class ShuffledOrder:
    """All examples shuffled anew each epoch; a batch may reach over the end of one."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._epoch = -1
        self._order: list[int] = []

    def batch(self, position: int, size: int) -> list[int]:
        """Return the examples of a batch."""
        indices = []
        for place in range(position, position + size):
            epoch, offset = divmod(place, self.count)
            if epoch != self._epoch:
                generator = generator_for(self.seed, "epoch", epoch)
                self._order = torch.randperm(self.count, generator=generator).tolist()
                self._epoch = epoch
            indices.append(self._order[offset])
        return indices


class GroupedOrder:
    """Examples in groups that do not mix within a batch, all seen equally often.

    Each group has an endless shuffled order of its own, cut into batches. An epoch has as many of a
    group's as have become full since the one before, shuffled among those of the others: what is
    left over comes first in the next, so nothing is dropped and nothing filled up.
    """

    def __init__(self, groups: Sequence[Sequence[int]], seed: int) -> None:
        self.groups = groups
        self.seed = seed
        self._orders = [ShuffledGroup(group, number, seed) for number, group in enumerate(groups)]
        self._known: tuple[int, int] = (-1, 0)  # epoch and batch size
        self._first = 0
        self._batches: list[tuple[int, int]] = []

    def batch(self, position: int, size: int) -> list[int]:
        """Return the examples of a batch: positions count whole batches."""
        number = position // size
        epoch = number * size // sum(len(group) for group in self.groups)
        while self._num_before(epoch + 1, size) <= number:
            epoch += 1
        if self._known != (epoch, size):
            self._open(epoch, size)
        group, turn = self._batches[number - self._first]
        return self._orders[group].batch(turn * size, size)

    def _num_before(self, epoch: int, size: int) -> int:
        """Count the batches of the epochs before one."""
        return sum(epoch * len(group) // size for group in self.groups)

    def _open(self, epoch: int, size: int) -> None:
        batches = [
            (number, turn)
            for number, group in enumerate(self.groups)
            for turn in range(epoch * len(group) // size, (epoch + 1) * len(group) // size)
        ]
        generator = generator_for(self.seed, "epoch", epoch)
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        self._batches = [batches[i] for i in shuffled]
        self._first, self._known = self._num_before(epoch, size), (epoch, size)


class ShuffledGroup:
    """The examples of a group, shuffled anew each time all have been seen."""

    def __init__(self, group: Sequence[int], number: int, seed: int) -> None:
        self.group = group
        self.number = number
        self.seed = seed
        self._rounds: dict[int, list[int]] = {}

    def batch(self, position: int, size: int) -> list[int]:
        """Return the examples of a batch."""
        indices = []
        for place in range(position, position + size):
            turn, offset = divmod(place, len(self.group))
            if turn not in self._rounds:
                generator = generator_for(self.seed, f"group {self.number}", turn)
                order = torch.randperm(len(self.group), generator=generator).tolist()
                self._rounds = {turn: order}
            indices.append(self.group[self._rounds[turn][offset]])
        return indices
