"""How far down an index nothing is left, and when to look below that all the same.

Rows long gone keep their index entries while anybody's old transaction might still see them, and a scan from the
beginning walks over all of those. A floor skips them. It lags behind by more than a transaction usually takes, since
one may commit later than another that wrote higher values; what a slower one leaves below is found by the next complete
look.
"""

from __future__ import annotations

from collections import deque
from time import monotonic

LAG = 1.0
"""Seconds by which a floor lags: many times what our transactions take."""
STEP = 0.25
"""Seconds between two values that are kept."""
SHARE = 50
"""A complete look is begun after so many times what the last one took: an open transaction makes it slow."""
BOTTOM = 20.0
"""Seconds at least between two complete looks into the outbox."""


class CompleteLooks:
    """When to look at all there is: a small part of the time, however long it takes. ``least`` is in seconds."""

    def __init__(self, least: float = 0.0) -> None:
        self._least = least
        self._next_at = 0.0

    def are_due(self) -> bool:
        return monotonic() >= self._next_at

    def took(self, seconds: float) -> None:
        self._next_at = monotonic() + max(self._least, SHARE * seconds)


class Floor:
    """A sequence of the outbox up to which nothing was left some seconds ago, by this process's own monotonic time."""

    def __init__(self) -> None:
        self._value = 0
        self._seen: deque[tuple[float, int]] = deque()
        self._complete_looks = CompleteLooks(BOTTOM)

    def seen(self, value: int) -> None:
        """The sequence from which a look has just begun to find something."""
        now = monotonic()
        if not self._seen or now - self._seen[-1][0] >= STEP:
            self._seen.append((now, value))
        while self._seen and now - self._seen[0][0] >= LAG:
            self._value = self._seen.popleft()[1]

    def value(self) -> int:
        """From where to look: now and then from the very bottom, where old rows may make it slow: see `looked`."""
        return 0 if self._complete_looks.are_due() else self._value

    def looked(self, value: int, seconds: float) -> None:
        """A look from there has taken so long, whatever came of it."""
        if value == 0:
            self._complete_looks.took(seconds)
