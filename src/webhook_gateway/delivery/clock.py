"""The database's time. What is due is its word, so a machine whose clock is an hour off changes nothing."""

from __future__ import annotations

from time import monotonic, time


class Clock:
    """Unix seconds by the database's clock, carried on by this machine's monotonic one."""

    def __init__(self) -> None:
        self._offset = time() - monotonic()
        self.is_set = False
        """Until the database has told it, the time is this machine's, which may be an hour off."""

    def now(self) -> float:
        return self._offset + monotonic()

    def at(self, moment: float) -> float:
        """What it showed, or will show, at a moment of monotonic time."""
        return self._offset + moment

    def set(self, now: float) -> None:
        self._offset = now - monotonic()
        self.is_set = True
