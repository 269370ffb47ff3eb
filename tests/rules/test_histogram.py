"""Durations counted by size say what they were, off by a ninth at most."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules.histogram import BOUNDS, ERROR, added, quantile, size_of

durations = st.lists(st.floats(0.0009, 87.0), min_size=1, max_size=50)


def counts(seconds: list[float]) -> list[int]:
    found = [0] * len(BOUNDS)
    for one in seconds:
        found[size_of(one)] += 1
    return found


@given(durations, st.floats(0.01, 1.0))
def test_a_quantile_is_off_by_a_ninth_at_most(seconds: list[float], part: float) -> None:
    true = sorted(seconds)[ceil(part * len(seconds)) - 1]
    found = quantile(counts(seconds), part)
    assert found is not None
    assert abs(found - true) <= true * ERROR * 1.000_001
    assert pytest.approx(1 / 9) == ERROR


@given(durations, durations)
def test_counts_add_up_to_those_of_all_together(some: list[float], others: list[float]) -> None:
    assert added([counts(some), counts(others)]) == counts(some + others)


def test_counts_that_end_early_add_up_too() -> None:
    assert added([[1], [], [0, 2, 3]]) == [1, 2, 3]
    assert added([]) == []


@pytest.mark.parametrize("size", [0, 1, 30, 50])
def test_a_bound_is_within_its_size_and_what_is_just_above_it_is_not(size: int) -> None:
    assert size_of(BOUNDS[size]) == size
    assert size_of(BOUNDS[size] * 1.000_001) == size + 1


def test_what_is_beyond_the_bounds_counts_with_the_last() -> None:
    assert (size_of(0.0), size_of(1_000.0)) == (0, len(BOUNDS) - 1)
    assert BOUNDS[0] == 0.001
    assert 87 < BOUNDS[-1] < 88


def test_nothing_has_no_quantile() -> None:
    assert quantile([], 0.5) is None
    assert quantile([0, 0], 0.99) is None


def test_each_part_counts_from_the_shortest_on() -> None:
    ninety_nine_and_one = [99, 0, 0, 1]
    assert quantile(ninety_nine_and_one, 0.99) == quantile([1], 1.0)
    assert quantile(ninety_nine_and_one, 0.991) == quantile([0, 0, 0, 1], 0.5)
