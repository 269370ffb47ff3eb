"""Whether the database takes writes: asked once for everybody who wants to know at that moment."""

from __future__ import annotations

import asyncio
import time

from webhook_gateway.store.database import Database, DatabaseUnavailable

PATIENCE = 2.0
"""Seconds that the database has to answer."""
MOMENT = 0.5
"""Seconds for which its answer holds."""


class Readiness:
    """Needs no key, so however many ask, the database is asked twice a second at most, over one connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asking: asyncio.Task[bool] | None = None
        self._answered_at = 0.0

    async def is_ready(self) -> bool:
        asking = self._asking
        if asking is None or (asking.done() and time.monotonic() - self._answered_at > MOMENT):
            asking = self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(asking)

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._database.expect_writable()
        except (TimeoutError, DatabaseUnavailable):
            return False
        else:
            return True
        finally:
            self._answered_at = time.monotonic()
