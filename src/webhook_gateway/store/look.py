"""Whether there is anything to do: one statement asks for all stages of a worker that nobody may have woken."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from .database import Connection
from .forwarding import TO_FORWARD
from .permission import SLICES_WAIT

LOOK = f"""
-- look: what notifications may have missed, and what begins by time alone
SELECT (SELECT version FROM configuration) AS version,
       (SELECT sum(extract(epoch FROM changed_at))::text FROM endpoint_health
        WHERE changed_at > $1::timestamptz - interval '30 seconds') AS health,
       EXISTS (SELECT FROM outbox WHERE sequence > $2) AS outbox,
       EXISTS (SELECT FROM endpoint_health WHERE {TO_FORWARD}) AS forward,
       ({SLICES_WAIT}) AS upkeep,
       CASE WHEN $3 THEN coalesce(
           (SELECT true FROM deliveries WHERE due_at IS NOT NULL ORDER BY endpoint_id, due_at LIMIT 1), false
       ) END AS open
"""

LAST = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM outbox_sequence_seq"
IS_EMPTY = "SELECT NOT EXISTS (SELECT FROM outbox)"


class Seen(NamedTuple):
    """The configuration's version, a sum that another worker's findings change, and which stages have something;
    whether a delivery is ``open`` is None where that was not asked."""

    version: int
    health: str | None
    outbox: bool
    forward: bool
    upkeep: bool
    open: bool | None


async def look(connection: Connection, health_known: datetime, low_water_mark: int, *, for_open: bool) -> Seen:
    """``for_open`` as `FullScanBudget` allows: it may walk over all that is long gone."""
    (row,) = await connection.fetch(LOOK, health_known, low_water_mark, for_open)
    return Seen(*row)


async def last_where_empty(connection: Connection) -> int | None:
    """The sequence up to which nothing is in the outbox, where there is nothing at all."""
    last = int(await connection.fetchval(LAST))
    return last if await connection.fetchval(IS_EMPTY) else None
