"""How far down an index nothing is left, and when to scan below that all the same.

Rows long gone keep their index entries while anybody's old transaction might still see them, and a scan from the
beginning walks over all of those. A low-water mark skips them. It lags behind by more than a transaction usually takes,
since one may commit later than another that wrote higher values; what a slower one leaves below is found by the next
full scan.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

from webhook_gateway.store.database import Connection

LAG = 1.0
"""Seconds by which a mark lags: many times what our transactions take."""
STEP = 0.25
"""Seconds between two values that are kept."""
SHARE = 50
"""A full scan is begun after so many times what the last one took: an open transaction makes it slow."""
BOTTOM = 20.0
"""Seconds at least between two full scans of the outbox."""


class FullScanBudget:
    """When to scan all there is: a small part of the time, however long it takes. ``least`` is in seconds."""

    def __init__(self, least: float = 0.0) -> None:
        self._least = least
        self._next_at = 0.0

    def allows(self) -> bool:
        return monotonic() >= self._next_at

    def spend(self, seconds: float) -> None:
        self._next_at = monotonic() + max(self._least, SHARE * seconds)


class LowWaterMark:
    """A sequence of the outbox up to which nothing was left some seconds ago, by this process's own monotonic time; by
    that ``opened_at`` tells when a connection was opened, too.

    A crash of Postgres may bring back what fan-out had taken, and ends all connections: one that is newer than what was
    found knows nothing of it (docs/decisions/0021-fan-out-need-not-wait-for-the-disk.md).
    """

    def __init__(self, opened_at: Callable[[Connection], float]) -> None:
        self.latest, self.latest_at = 0, 0.0
        """Where there may be rows below, and when it was found."""
        self._opened_at = opened_at
        self._found: deque[tuple[float, int]] = deque()
        self._full_scans = FullScanBudget(BOTTOM)

    def value(self, connection: Connection) -> int:
        """From where to scan: now and then from the very bottom, where old rows may make it slow: see `scanned`."""
        return 0 if self._full_scans.allows() else max(self.for_others(connection), 0)

    def for_others(self, connection: Connection) -> int:
        """From where to look whether there is anything; -1 where only a full scan would do."""
        self._advance()
        return self.latest if self._opened_at(connection) <= self.latest_at else -1

    def scanned(self, value: int, seconds: float) -> None:
        """A scan from there has taken so long, whatever came of it."""
        if value == 0:
            self._full_scans.spend(seconds)

    def found(self, value: int) -> None:
        """The sequence up to which a scan has just found nothing."""
        now = monotonic()
        if not self._found or now - self._found[-1][0] >= STEP:
            self._found.append((now, value))
        self._advance()

    def _advance(self) -> None:
        while self._found and monotonic() - self._found[0][0] >= LAG:
            self.latest_at, self.latest = self._found.popleft()
