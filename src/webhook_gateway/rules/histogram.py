"""Durations counted by size, with logarithmic bounds: counts of several workers and times add up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate, zip_longest
from math import ceil

GROWTH = 1.25
BOUNDS = tuple(0.001 * GROWTH**size for size in range(52))
"""Upper bounds in seconds, 1 ms to 87 s: each a quarter more than the one before. What takes longer counts as 87 s."""
ERROR = (GROWTH - 1) / (GROWTH + 1)
"""How far off a quantile may be between the bounds: a ninth of the true value."""


def size_of(seconds: float) -> int:
    """The number of the first bound that it is within."""
    return min(bisect_left(BOUNDS, seconds), len(BOUNDS) - 1)


def added(histograms: Iterable[Sequence[int]]) -> list[int]:
    """Counts by size, of which those at the end may be missing."""
    return [sum(counts) for counts in zip_longest(*histograms, fillvalue=0)]


def quantile(counts: Sequence[int], part: float) -> float | None:
    """Seconds that so large a ``part`` of them took at most, off by `ERROR`; None where nothing was counted."""
    rank = ceil(part * sum(counts))
    for size, within in enumerate(accumulate(counts)):
        if within >= rank > 0:
            return BOUNDS[size] * 2 / (GROWTH + 1)  # as far from one bound as from the other, by the ratio
    return None
