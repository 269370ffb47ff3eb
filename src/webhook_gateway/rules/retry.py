"""When to try again: the schedule and the jitter, apart, so that the schedule can be tested to the second."""

from __future__ import annotations

from collections.abc import Sequence

JITTER = 0.2
RETRY_AFTER_LIMIT = 86_400.0
"""Seconds. A longer Retry-After is honoured up to here."""


def delay_after(attempt: int, schedule: Sequence[float]) -> float | None:
    """Seconds to wait after the given attempt failed (counted from 1), or None when it was the last."""
    return schedule[attempt - 1] if 1 <= attempt <= len(schedule) else None


def jitter(delay: float, chance: float) -> float:
    """The delay, moved by up to ±20 % so that a recovering partner isn't hit by all at once.

    ``chance`` is in [0, 1).
    """
    return delay * (1 - JITTER + 2 * JITTER * chance)


def at_least(delay: float, retry_after: float | None) -> float:
    """What the partner asked for can lengthen a delay, never shorten it."""
    return delay if retry_after is None else max(delay, min(retry_after, RETRY_AFTER_LIMIT))
