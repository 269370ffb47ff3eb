"""PostgreSQL's advisory locks: for work that one process at a time does in the whole cluster."""

from __future__ import annotations

from .database import Connection

UPKEEP = "webhook_gateway.upkeep"

APPEND = "webhook_gateway.append"
"""Of an append that makes deliveries, until its transaction ends."""

TRY = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
AFTER_APPENDS = f"SELECT pg_advisory_xact_lock(hashtextextended('{APPEND}', 0))"
"""Waits for those under way."""

UNLOCK = "SELECT pg_advisory_unlock(hashtextextended($1, 0))"


async def try_lock(connection: Connection, name: str) -> bool:
    """Whether it is ours now: until it is unlocked, or the connection closes."""
    return bool(await connection.fetchval(TRY, name))


async def unlock(connection: Connection, name: str) -> None:
    await connection.fetchval(UNLOCK, name)
