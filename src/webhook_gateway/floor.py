"""How far down an index nothing is left.

Rows long gone keep their index entries while anybody's old transaction might still see them, and a scan from the
beginning walks over all of those. A floor skips them. It lags behind by more than a transaction usually takes, since
one may commit later than another that wrote higher values, and is let go regularly, so that nothing can hide below it
for long.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Generic, TypeVar

LAG = 1.0
"""Seconds by which a floor lags: many times what our transactions take. What a slower one leaves below it is found by
the next look to the bottom."""
LET_GO = 20.0
"""Seconds after which one look goes to the very bottom, for what a transaction that took longer has left there."""
STEP = 0.25
"""Seconds between two values that are kept."""

T = TypeVar("T")


class Floor(Generic[T]):
    """A value below which nothing was left some seconds ago, by this process's own monotonic time."""

    def __init__(self, lowest: T) -> None:
        self._lowest = lowest
        self._value = lowest
        self._seen: deque[tuple[float, T]] = deque()
        self._let_go_at = monotonic() + LET_GO

    def seen(self, value: T) -> None:
        """The value from which a look has just begun to find something."""
        now = monotonic()
        if not self._seen or now - self._seen[-1][0] >= STEP:
            self._seen.append((now, value))
        while self._seen and now - self._seen[0][0] >= LAG:
            self._value = self._seen.popleft()[1]

    @property
    def current(self) -> T:
        """`value`, but never the look to the bottom: for whoever looks often and elsewhere, too."""
        return self._value

    def value(self) -> T:
        if monotonic() >= self._let_go_at:
            self._let_go_at = monotonic() + LET_GO
            return self._lowest
        return self._value
