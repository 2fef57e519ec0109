"""Medians, their ratios, and how far both spread."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Round = tuple[float, ...]
"""The times of one arm in one round, there and back: A B B A gives each arm two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Hold a median with the least and the greatest of what it is the median of."""

    median: float
    least: float
    greatest: float


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of one value or more."""
    return Spread(median=statistics.median(values), least=min(values), greatest=max(values))


def times(rounds: Sequence[Round]) -> Spread:
    """Return the spread of all times of an arm."""
    return spread([one for times in rounds for one in times])


def ratio(rounds: Sequence[Round], first: Sequence[Round]) -> Spread:
    """Return the ratio of the medians of two arms, with the spread of it over the rounds.

    A round's ratio is of sums, there and back, so that a machine that slows down evenly through a
    round changes none.
    """
    pairs = [sum(own) / sum(its) for own, its in zip(rounds, first, strict=True)]
    medians = times(rounds).median / times(first).median
    return Spread(median=medians, least=min(pairs), greatest=max(pairs))


def there_and_back(names: Sequence[str]) -> Iterator[str]:
    """Yield the order of one round: A B C, then C B A."""
    yield from names
    yield from reversed(names)
