"""Medians and ratios of arms that take turns."""

import pytest

from benchmarks.spread import ratio, spread, there_and_back, times


def test_a_round_goes_there_and_back() -> None:
    assert list(there_and_back(["a", "b", "c"])) == ["a", "b", "c", "c", "b", "a"]


def test_a_spread_holds_the_median_and_both_ends() -> None:
    found = spread([3.0, 1.0, 10.0])
    assert (found.median, found.least, found.greatest) == (3.0, 1.0, 10.0)


def test_the_times_of_an_arm_are_those_of_all_its_rounds() -> None:
    found = times([(1.0, 2.0), (4.0, 8.0)])
    assert (found.median, found.least, found.greatest) == (3.0, 1.0, 8.0)


def test_a_ratio_is_of_medians_and_spreads_over_the_rounds() -> None:
    found = ratio([(2.0, 2.0), (3.0, 3.0)], [(1.0, 1.0), (1.0, 1.0)])
    assert (found.median, found.least, found.greatest) == (2.5, 2.0, 3.0)


def test_an_arm_is_as_fast_as_itself() -> None:
    rounds = [(1.0, 3.0), (2.0, 5.0)]
    found = ratio(rounds, rounds)
    assert (found.median, found.least, found.greatest) == (1.0, 1.0, 1.0)


def test_a_machine_that_slows_down_evenly_changes_no_rounds_ratio() -> None:
    slowing = iter(1.0 + 0.1 * turn for turn in range(4))
    cost = {"a": 1.0, "b": 2.0}
    found: dict[str, list[float]] = {"a": [], "b": []}
    for name in there_and_back(["a", "b"]):
        found[name].append(cost[name] * next(slowing))
    spreading = ratio([tuple(found["b"])], [tuple(found["a"])])
    assert spreading.least == pytest.approx(2.0)
