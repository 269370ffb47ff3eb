"""Work that one process at a time does in the whole cluster, by PostgreSQL's advisory locks."""

from __future__ import annotations

from .database import Connection

UPKEEP = "webhook_gateway.upkeep"

TAKE = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
END = "SELECT pg_advisory_unlock(hashtextextended($1, 0))"


async def take(connection: Connection, turn: str) -> bool:
    """Whether it is ours now: until it is ended, or the connection closes."""
    return bool(await connection.fetchval(TAKE, turn))


async def end(connection: Connection, turn: str) -> None:
    await connection.fetchval(END, turn)
