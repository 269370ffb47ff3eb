"""The outbox: how an event enters, and how it leaves as deliveries.

Statements take arrays (``unnest``), so that a statement costs one round trip however many rows it moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from .database import COMPLETE_LOOK, Connection

APPEND = """
-- append: all events that arrived while the last commit was under way, with their idempotency keys, in one commit.
-- Keys are inserted in sorted order, so that two processes that got the same retries can't deadlock.
WITH incoming AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::bigint[], $6::int[], $7::bytea[],
                         $8::bytea[], $9::bytea[])
        WITH ORDINALITY AS i(id, tenant_id, type, occurred_at, ordering_key, size, body, key, fingerprint, n)
), claimed AS (
    INSERT INTO idempotency_keys (tenant_id, key, fingerprint, event_id)
    SELECT tenant_id, key, fingerprint, id FROM incoming WHERE key IS NOT NULL ORDER BY tenant_id, key, n
    ON CONFLICT DO NOTHING
    RETURNING event_id
), fresh AS (
    SELECT * FROM incoming WHERE key IS NULL OR id IN (SELECT event_id FROM claimed)
), stored AS (
    INSERT INTO events (id, tenant_id, type, occurred_at, size, body)
    SELECT id, tenant_id, type, coalesce(occurred_at, now()), size, body FROM fresh
)
INSERT INTO outbox (tenant_id, event_id, type, ordering_key)
SELECT tenant_id, id, type, ordering_key FROM fresh ORDER BY n
RETURNING event_id, now() AS accepted_at
"""

EARLIER = """
-- earlier: what was accepted under these idempotency keys before
SELECT k.tenant_id, k.key, k.fingerprint, k.event_id, k.created_at AS accepted_at
FROM unnest($1::uuid[], $2::bytea[]) AS w(tenant_id, key)
JOIN idempotency_keys k ON k.tenant_id = w.tenant_id AND k.key = w.key
"""

BIND = """
-- bind: a replay or a test is an outbox row that goes to one endpoint, as the delivery that the caller was promised
INSERT INTO outbox (tenant_id, event_id, type, ordering_key, endpoint_id, delivery_id, reason)
VALUES ($1, $2, $3, NULL, $4, $5, $6)
"""

TAKE = """
-- take: the oldest events not fanned out yet, with the configuration's version as of the same moment:
-- an endpoint that existed before the event was accepted is never missed. One at a time in the whole cluster does it,
-- until the transaction's end, so that acceptance order survives. The array makes it index probes: with IN the planner
-- reads the whole outbox when that is long.
WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(hashtextextended('webhook_gateway.fan_out', 0)) AS mine)
DELETE FROM outbox
WHERE (SELECT mine FROM turn)
  AND sequence = ANY(ARRAY(SELECT sequence FROM outbox WHERE sequence > $1 ORDER BY sequence LIMIT $2))
RETURNING sequence, tenant_id, event_id, type, ordering_key, endpoint_id, delivery_id, reason,
          nextval('fan_out') AS number, (SELECT version FROM configuration) AS version
"""

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
FROM unnest($1::uuid[], $2::bigint[]) AS k(endpoint_id, ordering_key) JOIN held_keys h USING (endpoint_id, ordering_key)
FOR KEY SHARE OF h
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

INSERT_DELIVERIES = """
-- insert deliveries: due at once, unless an earlier one of the same key is open; some are born with a lease, because
-- the worker that fans out has a slot for them: that saves their claim
INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at, attempt, lease_id,
                        reason)
SELECT id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key,
       CASE WHEN due THEN now() + make_interval(secs => coalesce(lease, 0)) END,
       (lease IS NOT NULL)::int, CASE WHEN lease IS NOT NULL THEN $11::uuid END, reason
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::bigint[], $7::bigint[], $8::bool[],
            $9::float8[], $10::text[])
    AS n(id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due, lease, reason)
"""


CANCEL_BOUND = """
-- cancel bound: a replay or a test whose endpoint was deleted meanwhile; its delivery was promised, so it ends visibly
INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, state, state_reason,
                                 reason, created_at)
SELECT id, tenant_id, endpoint_id, event_id, type, sequence, 0, 'cancelled', 'endpoint_deleted', reason, now()
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::bigint[], $7::text[])
    AS b(id, tenant_id, endpoint_id, event_id, type, sequence, reason)
"""


class Appended(msgspec.Struct, frozen=True):
    """An event as it goes into the outbox; ``body`` is sealed, ``key`` and ``fingerprint`` are keyed hashes."""

    id: UUID
    tenant_id: UUID
    type: str
    occurred_at: datetime | None
    ordering_key: int | None
    size: int
    body: bytes
    key: bytes | None = None
    fingerprint: bytes | None = None


class Waiting(msgspec.Struct, frozen=True):
    """An event taken out of the outbox; with an endpoint it is a replay or a test for that one only.

    ``sequence`` is its place in the order of fan-out.
    """

    sequence: int
    tenant_id: UUID
    event_id: UUID
    type: str
    ordering_key: int | None
    endpoint_id: UUID | None
    delivery_id: UUID | None
    reason: str | None


class NewDelivery(msgspec.Struct, frozen=True):
    id: UUID
    tenant_id: UUID
    endpoint_id: UUID
    event_id: UUID
    type: str
    sequence: int
    ordering_key: int | None
    due: bool
    reason: str | None
    lease: float | None = None
    """Seconds, for one that is sent at once by whoever makes it."""


async def append(connection: Connection, events: Sequence[Appended]) -> dict[UUID, datetime]:
    """Stores the events and says which were new, with the time of acceptance. Returns after the commit."""
    rows = await connection.fetch(
        APPEND,
        [e.id for e in events],
        [e.tenant_id for e in events],
        [e.type for e in events],
        [e.occurred_at for e in events],
        [e.ordering_key for e in events],
        [e.size for e in events],
        [e.body for e in events],
        [e.key for e in events],
        [e.fingerprint for e in events],
    )
    return {row["event_id"]: row["accepted_at"] for row in rows}


async def earlier(connection: Connection, keys: Sequence[tuple[UUID, bytes]]) -> dict[tuple[UUID, bytes], Any]:
    """By tenant and key: the fingerprint, event id and time of what was accepted before."""
    rows = await connection.fetch(EARLIER, [tenant for tenant, _ in keys], [key for _, key in keys])
    return {(row["tenant_id"], row["key"]): row for row in rows}


async def replay(
    connection: Connection,
    tenant_id: UUID,
    *,
    event_id: UUID,
    type: str,
    endpoint_id: UUID,
    delivery_id: UUID,
    reason: str,
) -> None:
    """Queues an event for one endpoint again, outside any ordering key. ``reason`` is ``replay`` or ``test``."""
    await connection.execute(BIND, tenant_id, event_id, type, endpoint_id, delivery_id, reason)


@dataclass(frozen=True, slots=True)
class Taken:
    """Events in order, the lowest outbox sequence among them, and the configuration's version at that moment."""

    events: list[Waiting]
    lowest: int
    version: int


async def take(connection: Connection, after: int, limit: int) -> Taken:
    """The oldest waiting events, removed from the outbox; none where it is another process's turn.

    A look from the very bottom (0) may take longer, as an old transaction makes it do.
    """
    rows = await connection.fetch(TAKE, after, limit, timeout=COMPLETE_LOOK if after == 0 else None)
    rows.sort(key=lambda row: row["sequence"])  # a DELETE returns rows, and numbers them, in any order
    numbers = sorted(row["number"] for row in rows)
    events = [Waiting(number, *tuple(row)[1:-2]) for number, row in zip(numbers, rows, strict=True)]
    return Taken(events, rows[0]["sequence"] if rows else 0, rows[0]["version"] if rows else 0)


async def busy_keys(
    connection: Connection,
    keys: Sequence[tuple[UUID, int]],
    strict: Sequence[tuple[UUID, int]],
    latest: Sequence[tuple[UUID, int]],
) -> set[tuple[UUID, int]]:
    """Those of the (endpoint, ordering key) pairs for which a new delivery has to wait.

    ``strict`` are those among them that an operator may hold, ``latest`` are further ones that want only their latest.
    """
    rows = []
    for statement, asked in ((LATEST_KEYS, latest), (BUSY_KEYS, keys), (HELD_KEYS, strict)):
        if asked:
            rows += await connection.fetch(statement, [key[0] for key in asked], [key[1] for key in asked])
    return {(row[0], row[1]) for row in rows}


async def insert_deliveries(connection: Connection, deliveries: Sequence[NewDelivery], lease_id: UUID) -> None:
    await connection.execute(
        INSERT_DELIVERIES,
        [d.id for d in deliveries],
        [d.tenant_id for d in deliveries],
        [d.endpoint_id for d in deliveries],
        [d.event_id for d in deliveries],
        [d.type for d in deliveries],
        [d.sequence for d in deliveries],
        [d.ordering_key for d in deliveries],
        [d.due for d in deliveries],
        [d.lease for d in deliveries],
        [d.reason for d in deliveries],
        lease_id,
    )


async def cancel_bound(connection: Connection, bound: Sequence[Waiting]) -> None:
    """Ends the promised deliveries of replays and tests whose endpoint is gone."""
    await connection.execute(
        CANCEL_BOUND,
        [b.delivery_id for b in bound],
        [b.tenant_id for b in bound],
        [b.endpoint_id for b in bound],
        [b.event_id for b in bound],
        [b.type for b in bound],
        [b.sequence for b in bound],
        [b.reason for b in bound],
    )
