"""Connections for the hot statements: to acquire and to release one costs no task, no timer and no statement.

The driver's own pool has a task, a queue and three timers for each use, which costs a lone event as much as its commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic

import asyncpg

IDLE = 60.0
"""Seconds without use after which a connection is closed."""
OLDEST = 3_600.0
"""Seconds after which one is replaced: its server process remembers each partition that it has ever seen."""


class Pool:
    """At most ``most`` connections, opened by ``connect`` when they are needed. The one opened first is taken
    first: it is cheaper for one process of the server to have its memory at hand than for several."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], most: int) -> None:
        self._connect = connect
        self._turns = asyncio.Semaphore(most)
        self._open: dict[asyncpg.Connection, float] = {}
        """Since when."""
        self._free: list[tuple[asyncpg.Connection, float]] = []
        """Since when, the longest first."""
        self.first: asyncpg.Connection | None = None
        """Taken before those that were opened before it."""
        self._closed = False

    async def acquire(self, patience: float) -> asyncpg.Connection:
        """One that is open, within ``patience`` seconds. Raises what the driver does, or TimeoutError."""
        if not self._turns.locked() and (free := self._first_opened()) is not None:
            await self._turns.acquire()  # at once
            return free
        async with asyncio.timeout(patience):
            await self._turns.acquire()
            try:
                return self._first_opened() or await self._make()
            except BaseException:
                self._turns.release()
                raise

    def opened_at(self, connection: asyncpg.Connection) -> float:
        """By monotonic time; infinite where it is none of ours."""
        return self._open.get(connection, inf)

    def release(self, connection: asyncpg.Connection) -> None:
        """After whatever it was used for, but for a statement that was cut off."""
        now = monotonic()
        is_old = self._closed or now - self._open[connection] > OLDEST
        if is_old or connection.is_closed() or connection.is_in_transaction():
            self._end(connection)
        else:
            self._free.append((connection, now))
        self._turns.release()
        while self._free and now - self._free[0][1] > IDLE:
            self._end(self._free.pop(0)[0])

    async def release_cut_off(self, connection: asyncpg.Connection, patience: float) -> None:
        """After a statement that ran out of time: first it is cancelled, which a server may take ``patience`` for."""
        try:
            await connection.execute("SELECT", timeout=patience)  # after the driver's own cancelling
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            connection.terminate()
        finally:
            self.release(connection)

    def close(self) -> None:
        """Ends all that are free, and the others when they are released."""
        self._closed = True
        while self._free:
            self._end(self._free.pop()[0])

    def terminate(self) -> None:
        """Ends those in use, too."""
        self.close()
        for connection in self._open:
            connection.terminate()

    def _first_opened(self) -> asyncpg.Connection | None:
        while self._free:
            first = min(self._free, key=lambda free: free[0] is not self.first and self._open[free[0]])
            self._free.remove(first)
            if not first[0].is_closed():
                return first[0]
            self._end(first[0])
        return None

    async def _make(self) -> asyncpg.Connection:
        if self._closed:
            raise asyncpg.InterfaceError("the pool is closed")
        connection = await self._connect()
        self._open[connection] = monotonic()
        return connection

    def _end(self, connection: asyncpg.Connection) -> None:
        connection.terminate()
        del self._open[connection]
