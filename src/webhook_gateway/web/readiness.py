"""Whether the database takes writes, and events are sent: asked once for everybody who wants to know at that moment."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from webhook_gateway.store import pause
from webhook_gateway.store.database import Database, DatabaseUnavailable

PATIENCE = 2.0
"""Seconds that the database has to answer."""
Sending = Literal["on", "paused"]
MOMENT = 0.5
"""Seconds for which its answer holds."""


class Readiness:
    """Needs no key, so however many ask, the database is asked twice a second at most, over one connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asking: asyncio.Task[Sending | None] | None = None
        self._answered_at = 0.0

    async def ask(self) -> Sending | None:
        """Whether what is accepted is sent; None where the database takes no writes."""
        asking = self._asking
        if asking is None or (asking.done() and time.monotonic() - self._answered_at > MOMENT):
            asking = self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(asking)

    async def _ask(self) -> Sending | None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._database.expect_writable()
                async with self._database.connection() as connection:
                    return "on" if await pause.state(connection) is None else "paused"
        except (TimeoutError, DatabaseUnavailable):
            return None
        finally:
            self._answered_at = time.monotonic()
