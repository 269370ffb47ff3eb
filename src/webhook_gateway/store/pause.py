"""Sending as a whole: whether it is paused, for all workers, and whether this is the database that it was."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from .database import Connection

COPY = "this database is a copy, or was moved"

STATE = "SELECT paused_at, paused_reason FROM configuration WHERE paused_at IS NOT NULL"

PAUSE = "UPDATE configuration SET paused_at = now(), paused_reason = $1 WHERE paused_at IS NULL RETURNING true"

RESUME = """
-- resume: whichever database this is, it is the one that sends from now on
UPDATE configuration SET paused_at = NULL, paused_reason = NULL, identity = coalesce($1, identity)
WHERE paused_at IS NOT NULL OR identity <> $1 RETURNING true
"""

IDENTITY = """
-- identity: of the cluster and the database in it. A dump does not bring it along; a base backup does, and a standby
SELECT concat_ws('/', system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()))
FROM pg_control_system()
"""

RECOGNISE = """
-- recognise: another database than is written down is paused
UPDATE configuration
SET identity = $1, paused_at = CASE WHEN other THEN now() ELSE paused_at END,
    paused_reason = CASE WHEN other THEN $2 ELSE paused_reason END
FROM (SELECT identity IS NOT NULL AND paused_at IS NULL AS other FROM configuration) AS before
WHERE identity IS DISTINCT FROM $1 RETURNING other
"""


class Paused(NamedTuple):
    since: datetime
    reason: str


async def state(connection: Connection) -> Paused | None:
    row = await connection.fetchrow(STATE)
    return None if row is None else Paused(*row)


async def pause(connection: Connection, reason: str) -> bool:
    """False where it is paused already; that reason stays."""
    return bool(await connection.fetchval(PAUSE, reason))


async def resume(connection: Connection) -> bool:
    return bool(await connection.fetchval(RESUME, await identity(connection)))


async def identity(connection: Connection) -> str | None:
    """None where the account may not know."""
    may = await connection.fetchval("SELECT has_function_privilege('pg_control_system()', 'EXECUTE')")
    return str(await connection.fetchval(IDENTITY)) if may else None


async def is_known(connection: Connection, identity: str) -> bool:
    return bool(await connection.fetchval("SELECT identity IS NOT DISTINCT FROM $1 FROM configuration", identity))


async def recognise(connection: Connection, identity: str) -> bool:
    """Writes down which database this is. True where it was another one, so that sending is paused from now on."""
    return bool(await connection.fetchval(RECOGNISE, identity, COPY))
