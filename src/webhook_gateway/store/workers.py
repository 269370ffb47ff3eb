"""Which workers are alive, so that they can share an endpoint's slots between them."""

from __future__ import annotations

from uuid import UUID

from .database import Connection

ALIVE = 10.0
"""Seconds since its last sign of life for which a worker counts."""

PROTOCOL = 1
"""What a worker of this version understands of the rows; 1 adds permissions, addressees, content and filters."""

HEARTBEAT = f"""
-- heartbeat: a sign of life, and the live workers with the database's time; one that is too old can't join
WITH mine AS (
    INSERT INTO workers (id, name, protocol) VALUES ($1, $2, {PROTOCOL})
    ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()
)
SELECT array(SELECT id FROM workers WHERE seen_at > now() - make_interval(secs => $3) AND id <> $1) AS others,
       clock_timestamp() AS now
"""

REQUIRED = "SELECT worker_protocol FROM configuration"

REQUIRE = """
-- require: unless one is alive that knows less. A statement of its own, after the lock that whoever joins waits for
UPDATE configuration SET worker_protocol = $1
WHERE NOT EXISTS (SELECT FROM workers WHERE protocol < $1 AND seen_at > now() - make_interval(secs => $2))
RETURNING true
"""

DEREGISTER = "DELETE FROM workers WHERE id = $1 OR seen_at < now() - interval '1 hour'"


async def heartbeat(connection: Connection, worker_id: UUID, name: str) -> tuple[list[UUID], float]:
    """The live workers' ids in order, this one among them, and the database's time in Unix seconds."""
    (row,) = await connection.fetch(HEARTBEAT, worker_id, name, ALIVE)
    return sorted([*row["others"], worker_id]), row["now"].timestamp()


async def deregister(connection: Connection, worker_id: UUID) -> None:
    await connection.execute(DEREGISTER, worker_id)


async def require_current(connection: Connection) -> bool:
    """From the end of the caller's transaction on no worker can join that is older than this version.

    False where one is alive: then nothing is changed.
    """
    if await connection.fetchval(REQUIRED) >= PROTOCOL:
        return True
    await connection.execute(f"{REQUIRED} FOR UPDATE")
    return bool(await connection.fetchval(REQUIRE, PROTOCOL, ALIVE))
