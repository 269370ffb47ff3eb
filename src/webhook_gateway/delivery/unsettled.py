"""What attempts came to and isn't written down yet. Each settle is a commit, so few results wait for others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter

from .deliver import Result
from .registry import EndpointRecord

FEW = 8
"""Results that may wait for others: fewer than one endpoint usually has under way."""
COMPANY = 0.1
"""Seconds after a settle for which they do."""
HURRY = 1.0
"""Seconds for which none does once something waits behind an open delivery."""


@dataclass(eq=False)
class Unsettled:
    """``arrived`` is set where there is something, ``pressing`` where it is not to wait."""

    results: list[tuple[EndpointRecord, Result]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    pressing: asyncio.Event = field(default_factory=asyncio.Event)
    hurried_until: float = 0.0

    def __len__(self) -> int:
        return len(self.results)

    def add(self, record: EndpointRecord, result: Result) -> None:
        self.results.append((record, result))
        if len(self.results) == FEW:
            self.pressing.set()
        if len(self.results) == 1:  # as long as there is one, nobody waits for the first
            self.arrived.set()

    def hurry(self) -> None:
        """Somebody may wait for one of them, or of those that come next."""
        self.hurried_until = perf_counter() + HURRY
        self.pressing.set()

    async def company(self, since: float) -> None:
        """Until it is time for the next settle, where the last one began ``since`` then."""
        if self.results and (left := since + COMPANY - perf_counter()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.pressing.wait()

    def settled(self, count: int) -> None:
        """The first so many."""
        del self.results[:count]
        if len(self.results) < FEW and self.hurried_until < perf_counter():
            self.pressing.clear()
