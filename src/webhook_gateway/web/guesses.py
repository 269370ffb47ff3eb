"""Keys that this process has not seen live: anybody can make them up, and each would be a question to the database.

What has the form of a key and its checksum is looked up in few places at once, so many times for one address, and not
again for a while where it is none. A key that was live before stands outside of all that: nobody's guesses delay it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from webhook_gateway.store.database import DatabaseUnavailable

from .connections import customer_of
from .errors import Problem

AT_ONCE = 2
"""Of the pool's connections: the others are for events."""
MOST_WAITING = 200
MOST_GUESSES, WINDOW = 100, 5.0
"""Look-ups of keys that turn out to be none, for one address in so many seconds."""
MOST_REMEMBERED = 10_000


class Guesses:
    """What is known of keys that are looked up, by their digests. ``clock`` is in seconds of monotonic time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._live: dict[bytes, None] = {}
        self._none: dict[bytes, None] = {}
        self._by_customer: dict[str, int] = {}
        self._since = clock()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    def is_none(self, digest: bytes) -> bool:
        """Whether it was looked up within the window, and there is no such key."""
        self._turn_window()
        return digest in self._none

    @asynccontextmanager
    async def look_up(self, digest: bytes, source: str) -> AsyncIterator[None]:
        """A place to look the key up in. To be followed by `learn` if the database has answered.

        Raises:
            Problem: 429: too many keys that are none came from there.
            DatabaseUnavailable: too many wait for a place.
        """
        if digest in self._live:
            yield
            return
        customer = customer_of(source)
        self._count(customer)
        if self._waiting >= MOST_WAITING:
            raise DatabaseUnavailable("too many unknown keys wait to be looked up")
        self._waiting += 1
        try:
            async with self._places:
                yield
        finally:
            self._waiting -= 1
            if digest not in self._none and self._by_customer.get(customer, 0):
                self._by_customer[customer] -= 1  # it was no guess, or nobody knows

    def learn(self, digest: bytes, *, is_live: bool) -> None:
        known, other = (self._live, self._none) if is_live else (self._none, self._live)
        other.pop(digest, None)
        if len(known) >= MOST_REMEMBERED:
            known.clear()
        known[digest] = None

    def _count(self, customer: str) -> None:
        self._turn_window()
        count = self._by_customer.get(customer, 0)
        if count >= MOST_GUESSES:
            detail = "Too many unknown keys came from this address: wait."
            raise Problem(429, "too-many-requests", detail, headers={"Retry-After": f"{WINDOW:.0f}"})
        if len(self._by_customer) >= MOST_REMEMBERED:
            self._by_customer.clear()
        self._by_customer[customer] = count + 1

    def _turn_window(self) -> None:
        if self._clock() - self._since >= WINDOW:
            self._since = self._clock()
            self._by_customer.clear()
            self._none.clear()
