"""Which workers are alive, so that they can share an endpoint's slots between them; and where API processes listen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from . import stalled
from .database import Connection

ALIVE = 10.0
"""Seconds since its last sign of life for which a worker counts."""

SUSPENDED = 900.0
"""Seconds for which one that knows less may be silent and still go on: that long it stands in the way."""

PROTOCOL = 1
"""What a worker of this version understands of the rows; 1 adds permissions, addressees, content and filters."""

MID_STATEMENT, BETWEEN_STATEMENTS = 2.0, 60.0
"""Seconds after which a session of ours that waits for its client is ended."""

HEARTBEAT = f"""
-- heartbeat: a sign of life, and the live workers with the database's time; one that is too old can't join. Sessions of
-- processes that froze are ended first: one may hold what this waits for
WITH mine AS (
    INSERT INTO workers (id, name, protocol, outbox_above) VALUES ($1, $2, {PROTOCOL}, $4)
    ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), outbox_above = excluded.outbox_above
)
SELECT array(SELECT id FROM workers WHERE seen_at > now() - make_interval(secs => $3) AND id <> $1) AS others,
       array(SELECT host(address) || ' ' || port FROM listeners WHERE seen_at > now() - interval '1 hour') AS listeners,
       clock_timestamp() AS now,
       {stalled.end("$5::float8", "$6::float8")} AS ended
"""

LISTEN = """
-- listen: where an API process does, once a minute for each machine
WITH gone AS (DELETE FROM listeners WHERE seen_at < now() - interval '1 hour')
INSERT INTO listeners (address, port) SELECT DISTINCT address, $2::integer FROM unnest($1::inet[]) AS l (address)
ON CONFLICT (address, port) DO UPDATE SET seen_at = now() WHERE listeners.seen_at < now() - interval '1 minute'
"""

REQUIRED = "SELECT worker_protocol FROM configuration"

REQUIRE = """
-- require: unless one that knows less may be alive. A statement of its own, after the lock that whoever joins waits for
UPDATE configuration SET worker_protocol = $1
WHERE NOT EXISTS (SELECT FROM workers WHERE protocol < $1 AND seen_at > now() - make_interval(secs => $2))
RETURNING true
"""

DEREGISTER = "DELETE FROM workers WHERE id = $1 OR seen_at < now() - interval '1 hour'"


class Known(NamedTuple):
    """``alive`` are the live workers' ids in order, ``now`` is the database's time in Unix seconds, ``ended`` is how
    many sessions of frozen processes were."""

    alive: list[UUID]
    listeners: frozenset[tuple[str, int]]
    now: float
    ended: int


async def heartbeat(
    connection: Connection,
    worker_id: UUID,
    name: str,
    outbox_above: int,
    frozen: tuple[float, float] = (MID_STATEMENT, BETWEEN_STATEMENTS),
) -> Known:
    """What all workers share; this one is among those alive. Nothing that it knows of is left ``outbox_above`` that
    sequence, or it is -1: a look above it might be slow. After so many seconds a session counts as ``frozen``."""
    (row,) = await connection.fetch(HEARTBEAT, worker_id, name, ALIVE, outbox_above, *frozen)
    listeners = frozenset((address, int(port)) for address, port in map(str.split, row["listeners"]))
    return Known(sorted([*row["others"], worker_id]), listeners, row["now"].timestamp(), row["ended"])


async def listen(connection: Connection, addresses: Sequence[str], port: int) -> None:
    """An API process listens there. For an hour no worker sends there."""
    await connection.execute(LISTEN, addresses, port)


async def deregister(connection: Connection, worker_id: UUID) -> None:
    await connection.execute(DEREGISTER, worker_id)


async def are_current(connection: Connection) -> bool:
    """Whether none can join that is older than this version."""
    return bool(await connection.fetchval(REQUIRED) >= PROTOCOL)


async def require_current(connection: Connection) -> bool:
    """From the end of the caller's transaction on no worker can join that is older than this version.

    False where one is alive, or has not left and was seen within `SUSPENDED`: then nothing is changed.
    """
    if await are_current(connection):
        return True
    await connection.execute(f"{REQUIRED} FOR UPDATE")
    return bool(await connection.fetchval(REQUIRE, PROTOCOL, SUSPENDED))
