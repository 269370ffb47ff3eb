"""Open deliveries: claimed under a lease, settled only by who holds it.

A lease is ``due_at`` moved forward plus a ``lease_id``. When it expires the delivery is simply due again: nothing has
to sweep. Who lost the lease changes nothing, since every settle asks for the ``lease_id``.

Rows are found by a probe each (``LATERAL``) and changed by their ``ctid``. A join would do while statistics are
right. But this table is empty most of the time, and if it is analysed then, while an old transaction keeps what was
deleted, the planner takes a walk over a whole index for the cheapest way to a row: seconds, for every statement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from asyncpg.pgproto.pgproto import UUID as DriverUUID
from uuid_utils import uuid7

from webhook_gateway.rules.model import Delivery, DeliveryState

from . import ordering
from .attempts import RECORD, RECORD_AGAIN, Attempts, recorded
from .clock import time_near
from .database import FULL_SCAN, Connection
from .finished import put_away, put_away_open
from .ordering import DELIVERY, Successor
from .rows import columns

CHANCE = (1 << 62) - 1
"""The last bits of a UUIDv7."""

READY = """
-- ready: every endpoint that has an open delivery, with the time of its first, one index probe an endpoint
WITH RECURSIVE ready AS (
    (SELECT endpoint_id, due_at FROM deliveries WHERE due_at IS NOT NULL ORDER BY endpoint_id, due_at LIMIT 1)
    UNION ALL
    SELECT next.endpoint_id, next.due_at FROM ready CROSS JOIN LATERAL (
        SELECT endpoint_id, due_at FROM deliveries
        WHERE endpoint_id > ready.endpoint_id AND due_at IS NOT NULL ORDER BY endpoint_id, due_at LIMIT 1
    ) AS next
)
SELECT endpoint_id, due_at FROM ready
"""

FIRST_DUE = """
-- first due: the same for some endpoints only, above their low-water marks: it never walks over what is long gone
SELECT k.endpoint_id, first.due_at
FROM unnest($1::uuid[], $2::timestamptz[]) AS k(endpoint_id, low_water_mark)
CROSS JOIN LATERAL (
    SELECT due_at FROM deliveries d
    WHERE d.endpoint_id = k.endpoint_id AND d.due_at >= k.low_water_mark ORDER BY d.due_at LIMIT 1
) AS first
"""

CLAIM = f"""
-- claim: the first due deliveries of each wanted endpoint, up to its free slots; none while the clock is in doubt.
-- Counting the attempt here means that a message which kills workers still ends as dead. A lease that is there has
-- ended without a word: nobody knows what was sent under it. The mark skips index entries of rows long gone.
WITH picked AS MATERIALIZED (
    SELECT first.ctid, first.due_at, w.lease
    FROM unnest($1::uuid[], $2::int[], $3::timestamptz[], $4::float8[]) AS w(endpoint_id, free, low_water_mark, lease)
    CROSS JOIN LATERAL (
        SELECT ctid, due_at FROM deliveries d
        WHERE d.endpoint_id = w.endpoint_id AND d.due_at >= w.low_water_mark AND d.due_at <= {time_near("$6", "NULL")}
        ORDER BY d.due_at, d.id LIMIT w.free FOR NO KEY UPDATE SKIP LOCKED
    ) AS first
)
UPDATE deliveries d SET due_at = now() + make_interval(secs => picked.lease), lease_id = $5, attempt = d.attempt + 1,
                        lapsed = d.lapsed + (d.lease_id IS NOT NULL)::int
FROM picked WHERE d.ctid = picked.ctid
RETURNING d.id, d.tenant_id, d.endpoint_id, d.event_id, d.type, d.attempt, d.lease_id, d.ordering_key, d.sequence,
          d.skipped_event_id, d.reason, d.unfiltered, picked.due_at, now() AS now
"""

FINISH = f"""
-- finish: records all attempts and ends those deliveries whose lease is still ours; the next of their keys go on.
-- Fenced by `lease_id`: what another worker has claimed meanwhile stays. Deleted in the order given, in which fan-out
-- locks them, but for keys that want only their latest: fan-out locks those first. Where both kinds meet Postgres may
-- break a deadlock, and one of the two is repeated. The function sees what a fan-out has made that these locks waited
-- for. The first row names those ended, unless that is all of them; the others are what goes on.
WITH recorded AS ({RECORD}), ours AS MATERIALIZED (
    SELECT mine.ctid, r.* FROM unnest($2::ended[]) AS r CROSS JOIN LATERAL (
        SELECT ctid FROM deliveries WHERE id = r.delivery_id AND lease_id = r.leased_by LIMIT 1
    ) AS mine
), gone AS (
    DELETE FROM deliveries d USING ours WHERE d.ctid = ours.ctid AND d.lease_id = ours.leased_by
    RETURNING d.*, skipped, state, state_reason, lease, goes_on
), kept AS (
    {put_away("state", "state_reason")}
)
SELECT CASE WHEN count(*) < cardinality($2) THEN coalesce(array_agg(id), '{{}}') END AS ended,
       {", ".join(["NULL"] * len(Delivery.__struct_fields__))} FROM gone
UNION ALL
SELECT NULL, {DELIVERY} FROM (
    SELECT array_agg(endpoint_id) AS endpoints, array_agg(ordering_key) AS keys, array_agg(sequence) AS after,
           array_agg(skipped) AS skipped, array_agg(lease) AS leases
    FROM gone WHERE goes_on HAVING count(*) > 0
) AS k CROSS JOIN LATERAL release_next(k.endpoints, k.keys, k.after, k.skipped, k.leases, $3, {time_near("$4")})
"""
FINISH_AGAIN = FINISH.replace(RECORD, RECORD_AGAIN)

RETRY = f"""
-- retry: due again after a delay in seconds by the database's clock, or by ours while that is in doubt; `counted` is 0
-- where the attempt doesn't count. What was brought forward is due when it was before. Fenced by `lease_id`.
-- What the filter has let through is not `unfiltered` any more.
UPDATE deliveries d
SET due_at = CASE WHEN counted = 1 AND d.forwarded_from > clock.now
                  THEN greatest(d.forwarded_from, clock.now + make_interval(secs => retry_after))
                  ELSE clock.now + make_interval(secs => delay) END,
    forwarded_from = CASE counted WHEN 0 THEN d.forwarded_from END, lease_id = NULL, attempt = d.attempt - 1 + counted,
    not_before = clock.now + make_interval(secs => retry_after), unfiltered = r.unfiltered
FROM (SELECT {time_near("$6")} AS now) AS clock CROSS JOIN unnest($1::uuid[], $2::uuid[], $3::float8[], $4::int[],
    $5::float8[], $7::bool[]) AS r(id, lease_id, delay, counted, retry_after, unfiltered)
CROSS JOIN LATERAL (
    SELECT ctid FROM deliveries WHERE id = r.id AND lease_id = r.lease_id LIMIT 1 FOR NO KEY UPDATE
) AS mine
WHERE d.ctid = mine.ctid
RETURNING d.id
"""

CANCEL = f"""
-- cancel: open deliveries that nobody is sending, those named and a slice of an endpoint's
WITH gone AS (
    DELETE FROM deliveries d
    WHERE d.tenant_id = $1 AND (d.lease_id IS NULL OR d.due_at <= now()) AND d.id = ANY($2::uuid[] || ARRAY(
        (SELECT id FROM deliveries WHERE endpoint_id = $3 AND due_at IS NOT NULL ORDER BY due_at LIMIT 5000)
        UNION ALL
        (SELECT id FROM deliveries WHERE endpoint_id = $3 AND ordering_key IS NOT NULL AND due_at IS NULL LIMIT 5000)))
    RETURNING d.*
), kept AS (
    {put_away_open("cancelled", "$4")}
)
SELECT endpoint_id, ordering_key, sequence, due_at FROM gone
"""

OF_DELETED = """
-- of deleted: deleted endpoints among those that have open deliveries, since fan-out and deletion can cross
SELECT id, tenant_id FROM endpoints WHERE id = ANY($1::uuid[]) AND deleted_at IS NOT NULL
"""


class Wanted(msgspec.Struct, frozen=True):
    """What to claim for an endpoint. ``lease`` is in seconds; nothing is left below the ``low_water_mark``."""

    endpoint_id: UUID
    free: int
    low_water_mark: datetime
    lease: float


class Claimed(msgspec.Struct):
    """What was leased of one endpoint."""

    deliveries: list[Delivery]
    first_due_at: datetime


class Claim(msgspec.Struct, frozen=True):
    """By endpoint, with the database's time, which is unknown where nothing was found."""

    now: datetime | None
    endpoints: dict[UUID, Claimed]


class Finished(msgspec.Struct, frozen=True):
    """``hold`` keeps the ordering key of a dead one; otherwise the next of the key is told which one was skipped.

    ``lease`` is in seconds, for the next of the key to be sent at once; None where it has to be claimed.
    """

    delivery: Delivery
    state: DeliveryState
    reason: str | None = None
    hold: bool = False
    lease: float | None = None


class Settled(msgspec.Struct, frozen=True):
    """``ours`` are the ids of those that were still ours.

    Of their ordering keys go on: ``leased``, which the caller has to send, and something of the endpoints ``due``.
    """

    ours: set[UUID]
    leased: list[Delivery]
    due: set[UUID]


class Retried(msgspec.Struct, frozen=True):
    """Due again in ``delay`` seconds, never before ``retry_after``. ``latest``: a newer one of its key replaces it."""

    delivery: Delivery
    delay: float
    retry_after: float | None = None
    counted: bool = True
    latest: bool = False


def new_id() -> UUID:
    """A UUIDv7 of the driver's own type, which is made, compared and given to it in a fraction of the time."""
    return DriverUUID(uuid7().bytes)


def id_of(event_id: UUID, endpoint_id: UUID) -> UUID:
    """Of the delivery that fan-out makes of them: where a crash takes it, it is made again under the same id. A
    millisecond later than the event's."""
    return DriverUUID((event_id.int + (1 << 80) ^ endpoint_id.int & CHANCE).to_bytes(16))


async def ready(connection: Connection, marks: Mapping[UUID, datetime] | None = None) -> dict[UUID, datetime]:
    """By endpoint: when its first open delivery is due.

    With low-water ``marks`` only of those endpoints, and nothing below their marks.
    """
    if marks is None:
        rows = await connection.fetch(READY, timeout=FULL_SCAN)
    else:
        rows = await connection.fetch(FIRST_DUE, list(marks), list(marks.values()))
    return {row["endpoint_id"]: row["due_at"] for row in rows}


async def claim(connection: Connection, wanted: Sequence[Wanted], lease_id: UUID, now: float | None = None) -> Claim:
    """Leases what is due, up to each endpoint's free slots; nothing where the database's time isn't near to ``now``."""
    rows = await connection.fetch(CLAIM, *columns(Wanted, wanted), lease_id, now)
    found: dict[UUID, Claimed] = {}
    for row in rows:
        *delivery, due_at, _ = row
        claimed = found.get(row["endpoint_id"])
        if claimed is None:
            claimed = found[row["endpoint_id"]] = Claimed([], due_at)
        claimed.deliveries.append(Delivery(*delivery))
        claimed.first_due_at = min(claimed.first_due_at, due_at)
    return Claim(rows[0]["now"] if rows else None, found)


async def settle(
    connection: Connection,
    attempts: Attempts,
    finished: Sequence[Finished],
    retried: Sequence[Retried],
    now: float | None = None,
    *,
    again: bool = False,
) -> Settled:
    """Writes down what became of leased deliveries, in the caller's transaction, whose time should be about ``now``.
    Those that lost their lease are left alone, but for their attempts. ``again``: some may have been written down."""
    ours: set[UUID] = set()
    leased: list[Delivery] = []
    due: set[UUID] = set()
    if finished:
        finished = sorted(finished, key=_lock_order)
        (ended, *_), *rows = await connection.fetch(
            FINISH_AGAIN if again else FINISH,
            recorded(attempts),
            [_ended(f) for f in finished],
            new_id(),
            now,
        )
        ours = {f.delivery.id for f in finished} if ended is None else set(ended)
        leased, due = ordering.released(tuple(row)[1:] for row in rows)
        held = [f.delivery for f in finished if f.hold and f.delivery.id in ours]
        if held := [dead for dead in held if dead.ordering_key is not None]:
            await ordering.hold(connection, held)
    elif attempts:
        await connection.execute(RECORD_AGAIN if again else RECORD, recorded(attempts))
    if retried:
        ours |= await _retry(connection, retried, now)
    return Settled(ours, leased, due)


async def cancel(
    connection: Connection, *, tenant_id: UUID, ids: Sequence[UUID] | None, endpoint_id: UUID | None, reason: str
) -> int:
    """Cancels open deliveries that nobody is sending; the next of their ordering keys go on.

    Of an endpoint a slice of some thousands is cancelled at once: ask again, or leave the rest to the workers.
    """
    rows = await connection.fetch(CANCEL, tenant_id, ids or [], endpoint_id, reason)
    heads = [row for row in rows if row["ordering_key"] is not None and row["due_at"] is not None]
    if heads:
        await ordering.release(
            connection, [Successor(row["endpoint_id"], row["ordering_key"], row["sequence"]) for row in heads]
        )
    return len(rows)


async def cancel_of_deleted(connection: Connection, endpoint_ids: Sequence[UUID]) -> int:
    """Cancels the open deliveries of those endpoints that were deleted; in the caller's transaction."""
    cancelled = 0
    for row in await connection.fetch(OF_DELETED, endpoint_ids):
        cancelled += await cancel(
            connection, tenant_id=row["tenant_id"], ids=None, endpoint_id=row["id"], reason="endpoint_deleted"
        )
    return cancelled


def _lock_order(finished: Finished) -> tuple[bytes, int]:
    return finished.delivery.endpoint_id.bytes, finished.delivery.ordering_key or 0


def _ended(finished: Finished) -> tuple[object, ...]:
    """In the order of the type ``ended``."""
    done, state = finished.delivery, finished.state
    skipped = done.event_id if state is DeliveryState.DEAD and not done.unfiltered else None
    goes_on = done.ordering_key is not None and not finished.hold
    return done.id, done.lease_id, skipped, state, finished.reason, finished.lease, goes_on


async def _retry(connection: Connection, retried: Sequence[Retried], now: float | None) -> set[UUID]:
    rows = await connection.fetch(
        RETRY,
        [r.delivery.id for r in retried],
        [r.delivery.lease_id for r in retried],
        [r.delay for r in retried],
        [int(r.counted) for r in retried],
        [r.retry_after for r in retried],
        now,
        [r.delivery.unfiltered for r in retried],
    )
    latest = [
        (r.delivery.endpoint_id, r.delivery.ordering_key)
        for r in retried
        if r.latest and r.delivery.ordering_key is not None
    ]
    if latest:
        await ordering.supersede(connection, latest, now)
    return {row["id"] for row in rows}
