"""How many events are worth waiting for before a commit, and for how long: they share what it costs."""

from __future__ import annotations

from math import exp

FEW = 16
"""Events of a commit that tells the workers by itself, and that is not worth waiting for more of them."""
OFTEN = 12
"""Events within `RECENTLY` from which on it is often: others will come soon."""
COMPANY = 0.0016
"""Seconds that an event waits for `FEW` where others come often, less what the last commit took longer than one of few
usually does: a slow commit is company enough. A loop's timers have whole milliseconds."""
USUALLY = 1 / 16
"""What the last commit of few counts for in how long one usually takes."""
MANY = 40
"""Events where they come so often, and so many at once, that a commit of few would be most of what it costs."""
VERY_OFTEN = 200
"""As `OFTEN`, for `MANY`."""
PART = 2 / 3
"""Of those in the last commit and behind it so many are waited for at most: the others come while they are stored."""
LONG_COMPANY = 0.009
"""Seconds that an event waits for `MANY`, as long as others come."""
QUIET = 0.001
"""Seconds in which none came, after which none is waited for: whoever posts may wait for these."""
RECENTLY = 0.05
"""Seconds in which an event counts for a third of what it counted for."""


class Company:
    """Is told of each commit when it begins and what it took, and says what the next is worth waiting for."""

    def __init__(self) -> None:
        self.began = 0.0
        """The last commit, in monotonic seconds."""
        self._size = 0
        self._recent = 0.0
        """Events of the commits until then, each the less the longer ago."""
        self._usual = 0.0
        """Seconds that a commit of few takes."""
        self._longer = 0.0
        """Seconds that the last one took more."""

    def begin(self, events: int, now: float) -> None:
        self._recent = self._recent * exp((self.began - now) / RECENTLY) + events
        self.began, self._size = now, events

    def end(self, seconds: float) -> None:
        self._longer = max(seconds - self._usual, 0.0)
        if self._size <= FEW:
            self._usual += USUALLY * (seconds - self._usual)

    def enough_of_many(self, waiting: int) -> int:
        """Up to so many events wait `LONG_COMPANY`, where they come by thousands a second; 0 where they don't."""
        if self._recent > VERY_OFTEN and self._size + waiting > MANY:
            return min(MANY, int(PART * (self._size + waiting)))
        return 0

    def wait_of_few(self) -> float:
        """For how long fewer than `FEW` wait for others; 0 where too few come."""
        return COMPANY - self._longer if self._recent > OFTEN else 0.0
