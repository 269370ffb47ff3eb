"""Which workers are alive, so that they can share an endpoint's slots between them."""

from __future__ import annotations

from uuid import UUID

from .database import Connection

ALIVE = 10.0
"""Seconds since its last sign of life for which a worker counts."""

HEARTBEAT = """
-- heartbeat: a sign of life, and the live workers with the database's time
WITH mine AS (
    INSERT INTO workers (id, name) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()
)
SELECT array(SELECT id FROM workers WHERE seen_at > now() - make_interval(secs => $3) AND id <> $1) AS others,
       clock_timestamp() AS now
"""

DEREGISTER = "DELETE FROM workers WHERE id = $1 OR seen_at < now() - interval '1 hour'"


async def heartbeat(connection: Connection, worker_id: UUID, name: str) -> tuple[list[UUID], float]:
    """The live workers' ids in order, this one among them, and the database's time in Unix seconds."""
    (row,) = await connection.fetch(HEARTBEAT, worker_id, name, ALIVE)
    return sorted([*row["others"], worker_id]), row["now"].timestamp()


async def deregister(connection: Connection, worker_id: UUID) -> None:
    await connection.execute(DEREGISTER, worker_id)
