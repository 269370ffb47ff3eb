"""What attempts came to and isn't written down yet. Each settle is a commit, so few results wait for others."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from math import inf
from time import perf_counter

from .deliver import Result
from .registry import EndpointRecord

FEW = 10
"""Results that may wait for others: no more than one endpoint usually has under way."""
COMPANY = 0.2
"""Seconds after a settle for which they do."""
PATIENCE = 0.1
"""Seconds that they wait longer for one more, whose answer wakes the process anyway: to wake up by a timer costs."""
HURRY = 1.0
"""Seconds for which none does once something waits behind an open delivery."""


@dataclass(eq=False)
class Unsettled:
    """``due`` is set where it is time to settle."""

    results: list[tuple[EndpointRecord, Result]] = field(default_factory=list)
    untold: list[Result] = field(default_factory=list)
    """Those of which neither log nor figures know yet."""
    due: asyncio.Event = field(default_factory=asyncio.Event)
    began: float = -inf
    """When the last settle did."""
    hurried_until: float = 0.0
    _timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self.results)

    def add(self, record: EndpointRecord, result: Result) -> None:
        self.results.append((record, result))
        self.untold.append(result)
        if len(self.results) <= FEW:
            self.wait()

    def hurry(self) -> None:
        """Somebody may wait for one of them, or of those that come next."""
        self.hurried_until = perf_counter() + HURRY
        if self.results:
            self._ring()

    def wait(self) -> bool:
        """Whether they wait for others; then ``due`` is set once they don't. A stage that did that itself would wake up
        for the first of them, too."""
        now = perf_counter()
        left = self.began + COMPANY - now
        if left <= 0.0 or len(self.results) >= FEW or now <= self.hurried_until:
            self._ring()
            return False
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(left + PATIENCE, self._ring)
        return True

    def _ring(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.due.set()
