"""Ordering keys: of one endpoint's deliveries that share a key, only the first that is open is due or leased.

Fan-out looks at the last open delivery of a key before it adds one, and whatever ends a delivery looks for the next one
after it, each under locks that make the other wait (docs/decisions/0003-order-by-locking-rows.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from webhook_gateway.rules.model import Delivery

from .clock import time_near
from .database import Connection
from .finished import NOT_WANTED, put_away_open
from .rows import columns

BUSY_KEYS = """
-- busy keys: which (endpoint, ordering key) pairs have an open delivery. Its lock makes the settle of that delivery
-- wait for us, so that it sees the successor which we are about to insert; a claim or a retry is not held up.
SELECT k.endpoint_id, k.ordering_key
FROM (SELECT * FROM unnest($1::uuid[], $2::bigint[]) AS u(endpoint_id, ordering_key) ORDER BY 1, 2) AS k
CROSS JOIN LATERAL (
    SELECT id FROM deliveries d
    WHERE d.endpoint_id = k.endpoint_id AND d.ordering_key = k.ordering_key
    ORDER BY d.sequence DESC LIMIT 1 FOR KEY SHARE
) AS tail
"""

HELD_KEYS = """
-- held keys: those of strict endpoints that wait for an operator. A statement of its own, after the locks of the
-- one before: what a settle that we waited for has written is seen only by a newer snapshot.
SELECT h.endpoint_id, h.ordering_key
FROM unnest($1::uuid[], $2::bigint[]) AS k(endpoint_id, ordering_key)
CROSS JOIN LATERAL (
    SELECT endpoint_id, ordering_key FROM held_keys
    WHERE endpoint_id = k.endpoint_id AND ordering_key = k.ordering_key LIMIT 1 FOR KEY SHARE
) AS h
"""

LATEST_KEYS = """
-- latest keys: which keys that want only their latest have an open delivery. Every one of them is locked, since the
-- newest replaces whichever is not being sent: a settle of the one that is has to wait, and then sees the newest.
SELECT DISTINCT endpoint_id, ordering_key FROM (
    SELECT k.endpoint_id, k.ordering_key
    FROM (SELECT * FROM unnest($1::uuid[], $2::bigint[]) AS u(endpoint_id, ordering_key) ORDER BY 1, 2) AS k
    CROSS JOIN LATERAL (
        SELECT id FROM deliveries d
        WHERE d.endpoint_id = k.endpoint_id AND d.ordering_key = k.ordering_key
        ORDER BY d.sequence FOR NO KEY UPDATE
    ) AS open
) AS locked
"""

HOLD = """
-- hold: a dead delivery of a strict endpoint keeps its key until an operator decides
INSERT INTO held_keys (endpoint_id, ordering_key, tenant_id, delivery_id, event_id)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::uuid[]) ON CONFLICT DO NOTHING
"""

DELIVERY = """id, tenant_id, endpoint_id, event_id, type, attempt, lease_id, ordering_key, sequence,
skipped_event_id, reason, unfiltered"""
"""SQL: the columns of a `Delivery`."""

RELEASE = f"""
-- release: the next delivery of each key becomes due, or leased at once to who settles the one before it, if that has a
-- slot for it
SELECT {DELIVERY} FROM release_next($1::uuid[], $2::bigint[], $3::bigint[], $4::uuid[], $5::float8[], $6::uuid,
                                    {time_near("$7")})
"""

SUPERSEDE = f"""
-- supersede: of a key that wants only its latest, the deliveries that nobody is sending and that a newer one follows,
-- which the filter, if there is one, is known to want
WITH gone AS (
    DELETE FROM deliveries d
    USING unnest($1::uuid[], $2::bigint[]) AS k(endpoint_id, ordering_key)
    CROSS JOIN LATERAL (
        SELECT ctid FROM deliveries
        WHERE endpoint_id = k.endpoint_id AND ordering_key = k.ordering_key AND lease_id IS NULL
          AND sequence < (SELECT max(sequence) FROM deliveries newer
                          WHERE newer.endpoint_id = k.endpoint_id AND newer.ordering_key = k.ordering_key
                            AND newer.unfiltered IS NOT TRUE)
        OFFSET 0
    ) AS stale
    WHERE d.ctid = stale.ctid AND d.lease_id IS NULL
    RETURNING d.*
)
{put_away_open("cancelled", "'superseded'")}
"""

UNHOLD = """
-- unhold: an operator lets a held key go on; its partner is told what it didn't get, unless a filter may keep that back
DELETE FROM held_keys h WHERE tenant_id = $1 AND endpoint_id = $2 AND ordering_key = $3
RETURNING event_id, (SELECT state_reason FROM finished_deliveries WHERE id = h.delivery_id LIMIT 1) AS why
"""


Key = tuple[UUID, int]
"""An endpoint, and an ordering key as it is stored."""
Released = tuple[list[Delivery], set[UUID]]
"""Those leased, and the endpoints of those that are only due."""


class Successor(msgspec.Struct, frozen=True):
    """The next of a key, ``after`` a sequence. ``lease`` is in seconds, where it is to be leased and not only due."""

    endpoint_id: UUID
    ordering_key: int | None
    after: int = 0
    skipped: UUID | None = None
    """The event of the dead delivery that it follows."""
    lease: float | None = None


async def busy_keys(
    connection: Connection, keys: Sequence[Key], strict: Sequence[Key], latest: Sequence[Key]
) -> set[Key]:
    """Those keys for which a new delivery has to wait.

    ``strict`` are those among them that an operator may hold, ``latest`` are further ones that want only their latest.
    """
    rows = []
    for statement, asked in ((LATEST_KEYS, latest), (BUSY_KEYS, keys), (HELD_KEYS, strict)):
        if asked:
            rows += await connection.fetch(statement, *zip(*asked, strict=True))
    return {(row[0], row[1]) for row in rows}


async def release(connection: Connection, successors: Sequence[Successor], now: float | None = None) -> Released:
    """Lets the next delivery of each key go."""
    return released(map(tuple, await connection.fetch(RELEASE, *columns(Successor, successors), uuid7(), now)))


def released(rows: Iterable[tuple[Any, ...]]) -> Released:
    """Rows of `DELIVERY`: some are leased, others only due."""
    leased: list[Delivery] = []
    due: set[UUID] = set()
    for row in rows:
        _, _, endpoint_id, *_, lease_id = row[:7]
        if lease_id is None:
            due.add(endpoint_id)
        else:
            leased.append(Delivery(*row))
    return leased, due


async def supersede(connection: Connection, keys: Sequence[Key], now: float | None = None) -> None:
    """Cancels what a newer delivery of the same key has made stale, and lets the newest go."""
    await connection.execute(SUPERSEDE, *zip(*keys, strict=True))
    await release(connection, [Successor(*key) for key in keys], now)


async def hold(connection: Connection, dead: Sequence[Delivery]) -> None:
    """Nothing of their keys moves until an operator decides."""
    held = [(d.endpoint_id, d.ordering_key, d.tenant_id, d.id, d.event_id) for d in dead]
    await connection.execute(HOLD, *zip(*held, strict=True))


async def unhold(connection: Connection, *, tenant_id: UUID, endpoint_id: UUID, ordering_key: int) -> bool:
    """Lets a held key go on after its dead delivery; false where the key isn't held."""
    held = await connection.fetchrow(UNHOLD, tenant_id, endpoint_id, ordering_key)
    if held is None:
        return False
    skipped = None if held["why"] == NOT_WANTED else held["event_id"]
    await release(connection, [Successor(endpoint_id, ordering_key, skipped=skipped)])
    return True
