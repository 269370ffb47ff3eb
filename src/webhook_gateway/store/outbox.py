"""The outbox: how an event enters, and how it leaves as deliveries.

Statements take arrays (``unnest``), so that a statement costs one round trip however many rows it moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from re import compile as regex
from typing import Any
from uuid import UUID

import msgspec
from asyncpg.pgproto.pgproto import UUID as DriverUUID

from .advisory_locks import AFTER_APPENDS
from .bodies import among
from .clock import time_near
from .database import COMMIT_AS_SAID, FULL_SCAN, Connection
from .finished import has_delivery
from .notifications import CHANNEL, OUTBOX
from .rows import columns, records


def _tell(first: int) -> str:
    """SQL: what `read_told` reads, with three parameters of which that is the first."""
    return f"""CASE WHEN ${first} THEN pg_notify(${first + 1}, CASE WHEN addressees IS NULL
    THEN concat_ws(' ', ${first + 2}::text, sequence, tenant_id, event_id, type, ordering_key) ELSE ${first + 2} END)
    END AS told"""


APPEND = f"""
-- append: all events that arrived while the last commit was under way, with their idempotency keys and what they are
-- found by, in one commit. Idempotency keys are inserted in sorted order, so that two processes that got the same
-- retries can't deadlock; what they are found by, so that an index page is gone to once. Workers are told by the way.
WITH incoming AS MATERIALIZED (
    SELECT * FROM unnest($1::appended[]) WITH ORDINALITY
        AS i(id, tenant_id, type, occurred_at, ordering_key, size, body, key, fingerprint, addressees, lookups, n)
), claimed AS (
    INSERT INTO idempotency_keys (tenant_id, key, fingerprint, event_id)
    SELECT tenant_id, key, fingerprint, id FROM incoming WHERE key IS NOT NULL ORDER BY tenant_id, key, n
    ON CONFLICT DO NOTHING
    RETURNING event_id
), fresh AS (
    SELECT * FROM incoming WHERE key IS NULL OR id IN (SELECT event_id FROM claimed)
), stored AS (
    INSERT INTO events (id, tenant_id, type, occurred_at, size, body, addressees, ordering_key)
    SELECT id, tenant_id, type, coalesce(occurred_at, now()), size, body, addressees::uuid[], ordering_key FROM fresh
), found AS (
    INSERT INTO lookups (key, event_id) SELECT unnest(lookups::uuid[]) AS key, id FROM fresh ORDER BY key, id
)
, taken AS (
    INSERT INTO outbox (tenant_id, event_id, type, ordering_key, addressees)
    SELECT tenant_id, id, type, ordering_key, addressees::uuid[] FROM fresh ORDER BY n
    RETURNING event_id, {_tell(2)}
)
SELECT now() AS accepted_at, count(*) = cardinality($1) AS are_all,
       CASE WHEN count(*) < cardinality($1) THEN array_agg(event_id) END AS stored FROM taken
"""

APPEND_ONE = f"""
-- append one: the same for an event that comes alone, as most do. Without arrays it costs both sides a quarter less.
WITH claimed AS (
    INSERT INTO idempotency_keys (tenant_id, key, fingerprint, event_id)
    SELECT $2::uuid, $8::bytea, $9::bytea, $1::uuid WHERE $8 IS NOT NULL
    ON CONFLICT DO NOTHING
    RETURNING event_id
), fresh AS MATERIALIZED (
    SELECT WHERE $8 IS NULL OR EXISTS (SELECT FROM claimed)
), stored AS (
    INSERT INTO events (id, tenant_id, type, occurred_at, size, body, addressees, ordering_key)
    SELECT $1, $2, $3::text, coalesce($4::timestamptz, now()), $6::int, $7::bytea, $10::text::uuid[], $5::bigint
    FROM fresh
), found AS (
    INSERT INTO lookups (key, event_id) SELECT unnest($11::text::uuid[]), $1 FROM fresh
)
INSERT INTO outbox (tenant_id, event_id, type, ordering_key, addressees)
SELECT $2, $1, $3, $5, $10::text::uuid[] FROM fresh
RETURNING event_id, now() AS accepted_at, {_tell(12)}
"""

EARLIER = """
-- earlier: what was accepted under these idempotency keys before
SELECT k.tenant_id, k.key, k.fingerprint, k.event_id, k.created_at AS accepted_at
FROM unnest($1::uuid[], $2::bytea[]) AS w(tenant_id, key)
CROSS JOIN LATERAL (SELECT * FROM idempotency_keys WHERE tenant_id = w.tenant_id AND key = w.key LIMIT 1) AS k
"""

ENQUEUE_FOR_ONE = """
-- enqueue for one: a test is an outbox row for one endpoint, as the delivery that the caller was promised
INSERT INTO outbox (tenant_id, event_id, type, ordering_key, endpoint_id, delivery_id, reason)
VALUES ($1, $2, $3, NULL, $4, $5, $6)
"""

KNOWN = f"""
-- known: of these pairs of event and endpoint those that have a delivery, or will: what fan-out has overlooked below
-- the lowest sequence that it found is still to be fanned out
SELECT w.event_id, w.endpoint_id FROM unnest($1::uuid[], $2::uuid[]) AS w(event_id, endpoint_id)
WHERE {has_delivery("w.event_id", "w.endpoint_id")} OR w.event_id = ANY(ARRAY(SELECT event_id FROM outbox
                              WHERE sequence BETWEEN $3 - 100000 AND $3 - 1 AND endpoint_id IS NULL))
"""

DEQUEUE = f"""
-- dequeue: the oldest events not fanned out yet, and of every tenant that has some its own oldest, so that nobody waits
-- behind another's flood; with the configuration's version as of the same moment: an endpoint that existed before the
-- event was accepted is never missed. One at a time in the whole cluster does it, until the transaction's end, so that
-- each tenant's order of acceptance survives. The array makes it index probes: with IN the planner reads the whole
-- outbox when that is long, and so it does with EXISTS.
-- Nothing while the clock is in doubt. An append that makes deliveries is waited for. `recovered` is empty after a
-- crash: then all that is there may have been taken before, and is told to be so.
WITH lock AS MATERIALIZED (
    SELECT CASE WHEN {COMMIT_AS_SAID} AND {time_near("$3", "NULL")} IS NOT NULL
                     AND pg_try_advisory_xact_lock(hashtextextended('webhook_gateway.fan_out', 0))
                THEN ({AFTER_APPENDS}) IS NOT NULL END AS mine
), waiting AS MATERIALIZED (
    SELECT id FROM tenants
    CROSS JOIN LATERAL (SELECT FROM outbox WHERE tenant_id = tenants.id AND sequence > $1 ORDER BY sequence LIMIT 1) o
), kept AS (
    INSERT INTO recovered (up_to) SELECT last_value FROM outbox_sequence_seq
    WHERE (SELECT mine FROM lock) AND (SELECT max(up_to) FROM recovered) IS NULL
)
DELETE FROM outbox
WHERE (SELECT mine FROM lock) AND sequence = ANY(ARRAY(
    (SELECT sequence FROM outbox WHERE sequence > $1 ORDER BY sequence LIMIT $2)
    UNION ALL
    SELECT own.sequence FROM waiting CROSS JOIN LATERAL (
        SELECT sequence FROM outbox WHERE tenant_id = waiting.id AND sequence > $1
        ORDER BY sequence LIMIT (SELECT greatest($2 / count(*), 1) FROM waiting)
    ) AS own
))
RETURNING sequence, tenant_id, event_id, type, ordering_key, endpoint_id, delivery_id, reason, addressees,
          sequence <= coalesce((SELECT max(up_to) FROM recovered), sequence) AS is_recovered,
          nextval('fan_out') AS number, (SELECT version FROM configuration) AS version
"""

INSERT_DELIVERIES = """
-- insert deliveries: due at once, unless an earlier one of the same key is open; some are leased on insert, since
-- the worker that fans out has a slot for them: that saves their claim
INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at, attempt, lease_id,
                        reason, unfiltered)
SELECT id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key,
       CASE WHEN due THEN now() + make_interval(secs => coalesce(lease, 0)) END,
       (lease IS NOT NULL)::int, CASE WHEN lease IS NOT NULL THEN $2::uuid END, reason, unfiltered
FROM unnest($1::new_delivery[])
"""

INSERT_WITH_BODIES = f"""
-- insert with bodies: the same, and what is about to be sent comes by the way
WITH made AS ({INSERT_DELIVERIES})
SELECT id, body FROM events WHERE {among("$3")}
"""

FAN_OUT = f"""
-- fan out: a few events of which notifications told become deliveries, and what is about to be sent comes by the way
WITH made AS MATERIALIZED (
    SELECT id, event_id, endpoint_id, lease_id
    FROM fan_out_told(CASE WHEN {COMMIT_AS_SAID} AND {time_near("$11", "NULL")} IS NOT NULL THEN $1::bigint END,
                      $2::bigint, $3::bigint[],
                      $4::bigint[], $5::uuid[], $6::uuid[], $7::bool[], $8::float8[], $9::uuid)
)
SELECT made.*, NULL::bytea AS body FROM made
UNION ALL
SELECT NULL, id, NULL, NULL, body FROM events
WHERE {among("$10")} AND EXISTS (SELECT FROM made WHERE lease_id IS NOT NULL)
"""
FAN_OUT_ONE = regex(r"(\$\d+)::(\w+)\[\]").sub(r"ARRAY[\1::\2]", FAN_OUT)  # the driver's arrays cost more than rows


class Appended(msgspec.Struct, frozen=True):
    """An event as it goes into the outbox, in the order of `APPEND`. ``body`` is sealed, two are keyed hashes."""

    id: UUID
    tenant_id: UUID
    type: str
    occurred_at: datetime | None
    ordering_key: int | None
    size: int
    body: bytes
    key: bytes | None = None
    fingerprint: bytes | None = None
    addressees: str | None = None
    """Of subscribers, as Postgres writes an array: arrays of arrays can't be unnested."""
    lookups: str | None = None
    """What it is found by, written the same way."""


class OutboxEvent(msgspec.Struct, frozen=True):
    """An event taken out of the outbox; with an endpoint it is a replay, a backfill or a test for that one only.

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
    addressees: list[UUID] | None = None
    """The subscribers that it is for, or None for whoever wants it."""
    is_recovered: bool = False
    """It was there when PostgreSQL recovered from a crash: it may have been fanned out before (`store.recovered`)."""

    @property
    def is_earlier(self) -> bool:
        """Of a backfill: it was accepted before the endpoint was there, or wanted it."""
        return self.reason == "backfill"


class NewDelivery(msgspec.Struct, frozen=True):
    """In the order of `INSERT_DELIVERIES`."""

    id: UUID
    tenant_id: UUID
    endpoint_id: UUID
    event_id: UUID
    type: str
    sequence: int
    ordering_key: int | None
    due: bool
    lease: float | None = None
    """Seconds, for one that is sent at once by whoever makes it."""
    reason: str | None = None
    unfiltered: bool | None = None


class ToldDelivery(msgspec.Struct, frozen=True):
    """One that `FAN_OUT` is to make, in the order of its arguments. ``told_of`` is its event's place in the outbox."""

    told_of: int
    id: UUID
    endpoint_id: UUID
    in_order: bool
    lease: float | None
    """Seconds."""


async def append(connection: Connection, events: Sequence[Appended], notify: bool = False) -> dict[UUID, datetime]:
    """Stores the events and says which were new, with the time of acceptance. Returns after the commit.

    To ``notify`` with it saves a commit, but holds a lock on the whole database while it lasts. Workers are told what
    they need to fan out (`read_told`).
    """
    if len(events) == 1:
        rows = await connection.fetch(APPEND_ONE, *msgspec.structs.astuple(events[0]), notify, CHANNEL, OUTBOX)
        return {row["event_id"]: row["accepted_at"] for row in rows}
    row = await connection.fetchrow(APPEND, records(events), notify, CHANNEL, OUTBOX)
    assert row is not None
    return dict.fromkeys([event.id for event in events] if row["are_all"] else row["stored"] or (), row["accepted_at"])


async def earlier(connection: Connection, keys: Sequence[tuple[UUID, bytes]]) -> dict[tuple[UUID, bytes], Any]:
    """By tenant and key: the fingerprint, event id and time of what was accepted before."""
    rows = await connection.fetch(EARLIER, *zip(*keys, strict=True))
    return {(row["tenant_id"], row["key"]): row for row in rows}


@dataclass(frozen=True, slots=True)
class Dequeued:
    """Events in order, the lowest outbox sequence among them, and the configuration's version at that moment."""

    events: list[OutboxEvent]
    lowest: int
    version: int


async def dequeue(connection: Connection, after: int, limit: int, now: float | None = None) -> Dequeued:
    """The oldest waiting events, removed from the outbox; none while another process does it, or where the database's
    time isn't near to ``now``.

    Up to ``limit`` of all tenants, and as many again of those that wait, in equal parts. A full scan, from the very
    bottom (0), may take longer, as an old transaction makes it do.
    """
    rows = await connection.fetch(DEQUEUE, after, limit, now, timeout=FULL_SCAN if after == 0 else None)
    rows.sort(key=itemgetter("sequence"))  # a DELETE returns rows, and numbers them, in any order
    numbers = sorted(map(itemgetter("number"), rows))
    events = [OutboxEvent(number, *tuple(row)[1:-2]) for number, row in zip(numbers, rows, strict=True)]
    return Dequeued(events, rows[0]["sequence"] if rows else 0, rows[0]["version"] if rows else 0)


def read_told(words: str) -> OutboxEvent:
    """What a notification said of an event; its ``sequence`` is the outbox's.

    Raises:
        ValueError: nothing that we would say.
    """
    sequence, tenant_id, event_id, kind, *key = words.split(" ")
    ordering_key = int(key[0]) if key else None
    return OutboxEvent(int(sequence), DriverUUID(tenant_id), DriverUUID(event_id), kind, ordering_key, None, None, None)


async def fan_out(
    connection: Connection,
    version: int,
    after: int,
    told: Sequence[OutboxEvent],
    new: Sequence[ToldDelivery],
    lease_id: UUID,
    bodies_of: Sequence[UUID],
    now: float,
) -> tuple[list[Any], dict[UUID, bytes]] | None:
    """Makes deliveries of events that were told, in one transaction; None where a look at the outbox has to come first.

    Nothing of events that another process took, or is about to. ``version`` is the configuration's by which they match.
    With rows of deliveries come the sealed bodies of these events, where something is leased.
    """
    columned = [sorted(event.sequence for event in told), *columns(ToldDelivery, new), sorted(bodies_of) or [None]]
    one = len(told) == len(new) == 1
    *arguments, bodies = [column[0] for column in columned] if one else columned
    rows = await connection.fetch(FAN_OUT_ONE if one else FAN_OUT, version, after, *arguments, lease_id, bodies, now)
    if rows and rows[0]["event_id"] is None:
        return None
    made = [row for row in rows if row["id"] is not None]
    return made, {row["event_id"]: row["body"] for row in rows[len(made) :]}


async def without_known(connection: Connection, dequeued: Dequeued) -> list[OutboxEvent]:
    """The events but for those of backfills that their endpoint has a delivery of, or gets one of by fan-out."""
    first = {(event.event_id, event.endpoint_id): event for event in reversed(dequeued.events) if event.is_earlier}
    if not first:
        return dequeued.events
    live = {event.event_id for event in dequeued.events if event.endpoint_id is None}
    known = {tuple(row) for row in await connection.fetch(KNOWN, *zip(*first, strict=True), dequeued.lowest)}
    left = [event for pair, event in first.items() if pair not in known and event.event_id not in live]
    return [event for event in dequeued.events if not event.is_earlier or event in left]


async def insert_deliveries(
    connection: Connection, new: Sequence[NewDelivery], lease_id: UUID, bodies_of: Sequence[UUID] = ()
) -> dict[UUID, bytes]:
    """Returns the sealed bodies of these events, by their ids."""
    if not bodies_of:
        await connection.execute(INSERT_DELIVERIES, records(new), lease_id)
        return {}
    rows = await connection.fetch(INSERT_WITH_BODIES, records(new), lease_id, sorted(bodies_of))
    return {row["id"]: row["body"] for row in rows}
