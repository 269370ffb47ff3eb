"""Open deliveries: claimed under a lease, settled only by who holds it.

A lease is ``due_at`` moved forward plus a ``lease_id``. When it expires the delivery is simply due again: nothing has
to sweep. Who lost the lease changes nothing, since every settle asks for the ``lease_id``.

Rows are found by a probe each (``LATERAL``) and changed at their place (``ctid``). A join would do while statistics are
right. But this table is empty most of the time, and if it is analysed then, while an old transaction keeps what was
deleted, the planner takes a walk over a whole index for the cheapest way to a row: seconds, for every statement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from webhook_gateway.rules.model import Delivery

from .database import COMPLETE_LOOK, Connection

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
-- first due: the same for some endpoints only, above their floors: it never walks over what is long gone
SELECT k.endpoint_id, first.due_at
FROM unnest($1::uuid[], $2::timestamptz[]) AS k(endpoint_id, low_water_mark)
CROSS JOIN LATERAL (
    SELECT due_at FROM deliveries d
    WHERE d.endpoint_id = k.endpoint_id AND d.due_at >= k.low_water_mark ORDER BY d.due_at LIMIT 1
) AS first
"""

CLAIM = """
-- claim: the first due deliveries of each wanted endpoint, up to its free slots. Counting the attempt here means that
-- a message which kills workers still ends as dead. The floor skips index entries of rows long gone.
WITH picked AS MATERIALIZED (
    SELECT first.place, first.due_at, w.lease
    FROM unnest($1::uuid[], $2::int[], $3::timestamptz[], $4::interval[]) AS w(endpoint_id, free, low_water_mark, lease)
    CROSS JOIN LATERAL (
        SELECT ctid AS place, due_at FROM deliveries d
        WHERE d.endpoint_id = w.endpoint_id AND d.due_at >= w.low_water_mark AND d.due_at <= now()
        ORDER BY d.due_at, d.id LIMIT w.free FOR NO KEY UPDATE SKIP LOCKED
    ) AS first
)
UPDATE deliveries d SET due_at = now() + picked.lease, lease_id = $5, attempt = d.attempt + 1
FROM picked WHERE d.ctid = picked.place
RETURNING d.id, d.tenant_id, d.endpoint_id, d.event_id, d.type, d.attempt, d.lease_id, d.ordering_key, d.sequence,
          d.skipped_event_id, picked.due_at, now() AS now
"""

BODIES = """
-- bodies: sealed, for the events of one claim
SELECT id, tenant_id, body FROM events WHERE id = ANY($1::uuid[])
"""

RECORD = """
-- record: the attempts, even of who lost the lease: the request was made. A settle may be repeated: DO NOTHING
INSERT INTO attempts (delivery_id, id, tenant_id, attempt, started_at, duration, phase, outcome, status, detail,
                      tls_version, response_length, response_type, response_sha256, response_excerpt)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::timestamptz[], $6::real[], $7::text[],
                     $8::text[], $9::smallint[], $10::text[], $11::text[], $12::int[], $13::text[], $14::bytea[],
                     $15::bytea[])
ON CONFLICT DO NOTHING
"""

FINISH = f"""
-- finish: records all attempts and ends those deliveries whose lease is still ours; what another worker has claimed
-- meanwhile stays. Locked in the order given, in which fan-out locks them, but for keys that want only their latest:
-- fan-out locks those first. Where both kinds meet Postgres may break a deadlock, and one of the two is repeated.
WITH recorded AS ({RECORD}), ours AS MATERIALIZED (
    SELECT mine.place, r.state, r.state_reason
    FROM unnest($16::uuid[], $17::uuid[], $18::text[], $19::text[]) AS r(id, lease_id, state, state_reason)
    CROSS JOIN LATERAL (
        SELECT ctid AS place FROM deliveries WHERE id = r.id AND lease_id = r.lease_id LIMIT 1 FOR UPDATE
    ) AS mine
), gone AS (
    DELETE FROM deliveries d USING ours WHERE d.ctid = ours.place RETURNING d.*, ours.state, ours.state_reason
)
INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, attempt, state,
                                 state_reason, reason, created_at)
SELECT id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, attempt, state, state_reason, reason,
       created_at
FROM gone
RETURNING id
"""

HOLD = """
-- hold: a dead delivery of a strict endpoint keeps its key until an operator decides
INSERT INTO held_keys (endpoint_id, ordering_key, tenant_id, delivery_id, event_id)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::uuid[]) ON CONFLICT DO NOTHING
"""

RELEASE = """
-- release: the next delivery of each key becomes due, or leased at once to who settles the one before it, if that has a
-- slot for it. The sequence is that of the one before: the probe starts there, so that a key with many finished
-- deliveries stays cheap. The lock walks on past one that is just being cancelled.
UPDATE deliveries d
SET due_at = now() + make_interval(secs => coalesce(next.lease, 0)), skipped_event_id = next.skipped,
    lease_id = CASE WHEN next.lease IS NOT NULL THEN $6::uuid END, attempt = d.attempt + (next.lease IS NOT NULL)::int
FROM (
    SELECT n.place, k.skipped, k.lease
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::uuid[], $5::float8[])
        AS k(endpoint_id, ordering_key, after, skipped, lease)
    CROSS JOIN LATERAL (
        SELECT ctid AS place, due_at FROM deliveries
        WHERE endpoint_id = k.endpoint_id AND ordering_key = k.ordering_key AND sequence > k.after
        ORDER BY sequence LIMIT 1 FOR NO KEY UPDATE
    ) AS n
    WHERE n.due_at IS NULL
) AS next
WHERE d.ctid = next.place
RETURNING d.id, d.tenant_id, d.endpoint_id, d.event_id, d.type, d.attempt, d.lease_id, d.ordering_key, d.sequence,
          d.skipped_event_id
"""

SUPERSEDE = """
-- supersede: of a key that wants only its latest, the deliveries that nobody is sending and that a newer one follows
WITH gone AS (
    DELETE FROM deliveries d
    USING unnest($1::uuid[], $2::bigint[]) AS k(endpoint_id, ordering_key)
    CROSS JOIN LATERAL (
        SELECT ctid AS place FROM deliveries
        WHERE endpoint_id = k.endpoint_id AND ordering_key = k.ordering_key AND lease_id IS NULL
          AND sequence < (SELECT max(sequence) FROM deliveries newer
                          WHERE newer.endpoint_id = k.endpoint_id AND newer.ordering_key = k.ordering_key)
        OFFSET 0
    ) AS stale
    WHERE d.ctid = stale.place AND d.lease_id IS NULL
    RETURNING d.*
)
INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, attempt, state,
                                 state_reason, reason, created_at)
SELECT id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, attempt, 'cancelled', 'superseded', reason,
       created_at
FROM gone
"""

RETRY = """
-- retry: due again after a delay in seconds by the database's clock; `counted` is 0 where the attempt doesn't count
UPDATE deliveries d
SET due_at = now() + make_interval(secs => r.delay), lease_id = NULL, attempt = d.attempt - 1 + r.counted
FROM unnest($1::uuid[], $2::uuid[], $3::float8[], $4::int[]) AS r(id, lease_id, delay, counted)
CROSS JOIN LATERAL (
    SELECT ctid AS place FROM deliveries WHERE id = r.id AND lease_id = r.lease_id LIMIT 1 FOR NO KEY UPDATE
) AS mine
WHERE d.ctid = mine.place
RETURNING d.id
"""

CANCEL = """
-- cancel: open deliveries that nobody is sending, those named and a slice of an endpoint's
WITH gone AS (
    DELETE FROM deliveries d
    WHERE d.tenant_id = $1 AND (d.lease_id IS NULL OR d.due_at <= now()) AND d.id = ANY($2::uuid[] || ARRAY(
        (SELECT id FROM deliveries WHERE endpoint_id = $3 AND due_at IS NOT NULL ORDER BY due_at LIMIT 5000)
        UNION ALL
        (SELECT id FROM deliveries WHERE endpoint_id = $3 AND ordering_key IS NOT NULL AND due_at IS NULL LIMIT 5000)))
    RETURNING d.*
), kept AS (
    INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, attempt, state,
                                     state_reason, reason, created_at)
    SELECT id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, attempt, 'cancelled', $4, reason,
           created_at
    FROM gone
)
SELECT endpoint_id, ordering_key, sequence, due_at FROM gone
"""

ORPHANS = """
-- orphans: deleted endpoints among those that have open deliveries, since fan-out and deletion can cross
SELECT id, tenant_id FROM endpoints WHERE id = ANY($1::uuid[]) AND deleted_at IS NOT NULL
"""

UNHOLD = """
-- unhold: an operator lets a held key go on
DELETE FROM held_keys WHERE tenant_id = $1 AND endpoint_id = $2 AND ordering_key = $3 RETURNING event_id
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


class Attempt(msgspec.Struct, frozen=True):
    """A request as it is recorded. ``duration`` is in seconds, ``response_excerpt`` is sealed."""

    id: UUID
    started_at: datetime
    duration: float
    phase: str
    outcome: str
    status: int | None
    detail: str | None
    tls_version: str | None = None
    response_length: int | None = None
    response_type: str | None = None
    response_sha256: bytes | None = None
    response_excerpt: bytes | None = None


class Finished(msgspec.Struct, frozen=True):
    """``hold`` keeps the ordering key of a dead one; otherwise the next of the key is told which one was skipped.

    ``lease`` is in seconds, for the next of the key to be sent at once; None where it has to be claimed.
    """

    delivery: Delivery
    state: str
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
    """Due again in ``delay`` seconds. ``latest``: a newer delivery of its key replaces it."""

    delivery: Delivery
    delay: float
    counted: bool = True
    latest: bool = False


async def ready(connection: Connection, floors: Mapping[UUID, datetime] | None = None) -> dict[UUID, datetime]:
    """By endpoint: when its first open delivery is due.

    With ``floors`` only of those endpoints, and nothing below their floors.
    """
    if floors is None:
        rows = await connection.fetch(READY, timeout=COMPLETE_LOOK)
    else:
        rows = await connection.fetch(FIRST_DUE, list(floors), list(floors.values()))
    return {row["endpoint_id"]: row["due_at"] for row in rows}


async def claim(connection: Connection, wanted: Sequence[Wanted], lease_id: UUID) -> Claim:
    """Leases what is due, up to each endpoint's free slots."""
    rows = await connection.fetch(
        CLAIM,
        [w.endpoint_id for w in wanted],
        [w.free for w in wanted],
        [w.low_water_mark for w in wanted],
        [timedelta(seconds=w.lease) for w in wanted],
        lease_id,
    )
    found: dict[UUID, Claimed] = {}
    for row in rows:
        *delivery, due_at, _ = row
        claimed = found.get(row["endpoint_id"])
        if claimed is None:
            claimed = found[row["endpoint_id"]] = Claimed([], due_at)
        claimed.deliveries.append(Delivery(*delivery))
        claimed.first_due_at = min(claimed.first_due_at, due_at)
    return Claim(rows[0]["now"] if rows else None, found)


async def bodies(connection: Connection, event_ids: Sequence[UUID]) -> dict[UUID, bytes]:
    """The sealed bodies; one that retention has dropped is missing."""
    return {row["id"]: row["body"] for row in await connection.fetch(BODIES, event_ids)}


async def settle(
    connection: Connection,
    attempts: Sequence[tuple[Delivery, Attempt]],
    finished: Sequence[Finished],
    retried: Sequence[Retried],
) -> Settled:
    """Writes down what became of leased deliveries, in the caller's transaction.

    Those that lost their lease are left alone, but for their attempts.
    """
    ours: set[UUID] = set()
    leased: list[Delivery] = []
    due: set[UUID] = set()
    if finished:
        finished = sorted(finished, key=_lock_order)
        rows = await connection.fetch(
            FINISH,
            *_columns(attempts),
            [f.delivery.id for f in finished],
            [f.delivery.lease_id for f in finished],
            [f.state for f in finished],
            [f.reason for f in finished],
        )
        ours = {row["id"] for row in rows}
        leased, due = await _go_on(connection, [f for f in finished if f.delivery.id in ours])
    elif attempts:
        await connection.execute(RECORD, *_columns(attempts))
    if retried:
        ours |= await _retry(connection, retried)
    return Settled(ours, leased, due)


async def release(
    connection: Connection, keys: Sequence[tuple[UUID, int]], after: Sequence[int], skipped: Sequence[UUID | None]
) -> None:
    """Makes the next delivery of each (endpoint, ordering key) due."""
    none = [None] * len(keys)
    await connection.execute(RELEASE, [key[0] for key in keys], [key[1] for key in keys], after, skipped, none, None)


async def supersede(connection: Connection, keys: Sequence[tuple[UUID, int]]) -> None:
    """Cancels what a newer delivery of the same key has made stale, and lets the newest go."""
    await connection.execute(SUPERSEDE, [key[0] for key in keys], [key[1] for key in keys])
    await release(connection, keys, [0] * len(keys), [None] * len(keys))


async def cancel(
    connection: Connection, *, tenant_id: UUID, ids: Sequence[UUID] | None, endpoint_id: UUID | None, reason: str
) -> int:
    """Cancels open deliveries that nobody is sending; the next of their ordering keys go on.

    Of an endpoint a slice of some thousands is cancelled at once: ask again, or leave the rest to the workers.
    """
    rows = await connection.fetch(CANCEL, tenant_id, ids or [], endpoint_id, reason)
    heads = [row for row in rows if row["ordering_key"] is not None and row["due_at"] is not None]
    if heads:
        keys = [(row["endpoint_id"], row["ordering_key"]) for row in heads]
        await release(connection, keys, [row["sequence"] for row in heads], [None] * len(heads))
    return len(rows)


async def cancel_orphans(connection: Connection, endpoint_ids: Sequence[UUID]) -> int:
    """Cancels the open deliveries of those endpoints that were deleted; in the caller's transaction."""
    cancelled = 0
    for row in await connection.fetch(ORPHANS, endpoint_ids):
        cancelled += await cancel(
            connection, tenant_id=row["tenant_id"], ids=None, endpoint_id=row["id"], reason="endpoint_deleted"
        )
    return cancelled


async def unhold(connection: Connection, *, tenant_id: UUID, endpoint_id: UUID, ordering_key: int) -> bool:
    """Lets a held key go on after its dead delivery; false where the key isn't held."""
    skipped = await connection.fetchval(UNHOLD, tenant_id, endpoint_id, ordering_key)
    if skipped is None:
        return False
    await release(connection, [(endpoint_id, ordering_key)], [0], [skipped])
    return True


def _lock_order(finished: Finished) -> tuple[bytes, int]:
    return finished.delivery.endpoint_id.bytes, finished.delivery.ordering_key or 0


def _columns(attempts: Sequence[tuple[Delivery, Attempt]]) -> tuple[list[object], ...]:
    """What `RECORD` takes."""
    return (
        [d.id for d, _ in attempts],
        [a.id for _, a in attempts],
        [d.tenant_id for d, _ in attempts],
        [d.attempt for d, _ in attempts],
        [a.started_at for _, a in attempts],
        [a.duration for _, a in attempts],
        [a.phase for _, a in attempts],
        [a.outcome for _, a in attempts],
        [a.status for _, a in attempts],
        [a.detail for _, a in attempts],
        [a.tls_version for _, a in attempts],
        [a.response_length for _, a in attempts],
        [a.response_type for _, a in attempts],
        [a.response_sha256 for _, a in attempts],
        [a.response_excerpt for _, a in attempts],
    )


async def _go_on(connection: Connection, finished: Sequence[Finished]) -> tuple[list[Delivery], set[UUID]]:
    """What follows the finished ones of ordering keys: the next becomes due, or the key is held.

    In statements of its own, after the locks of `FINISH`: what a fan-out that it waited for has made is seen only by a
    newer snapshot.
    """
    ordered = [f for f in finished if f.delivery.ordering_key is not None]
    held = [f.delivery for f in ordered if f.hold]
    if held:
        await connection.execute(
            HOLD,
            [d.endpoint_id for d in held],
            [d.ordering_key for d in held],
            [d.tenant_id for d in held],
            [d.id for d in held],
            [d.event_id for d in held],
        )
    moving = [f for f in ordered if not f.hold]
    if not moving:
        return [], set()
    rows = await connection.fetch(
        RELEASE,
        [f.delivery.endpoint_id for f in moving],
        [f.delivery.ordering_key for f in moving],
        [f.delivery.sequence for f in moving],
        [f.delivery.event_id if f.state == "dead" else None for f in moving],
        [f.lease for f in moving],
        uuid7(),
    )
    leased = [Delivery(*row) for row in rows if row["lease_id"] is not None]
    return leased, {row["endpoint_id"] for row in rows if row["lease_id"] is None}


async def _retry(connection: Connection, retried: Sequence[Retried]) -> set[UUID]:
    rows = await connection.fetch(
        RETRY,
        [r.delivery.id for r in retried],
        [r.delivery.lease_id for r in retried],
        [r.delay for r in retried],
        [int(r.counted) for r in retried],
    )
    latest = [
        (r.delivery.endpoint_id, r.delivery.ordering_key)
        for r in retried
        if r.latest and r.delivery.ordering_key is not None
    ]
    if latest:
        await supersede(connection, latest)
    return {row["id"] for row in rows}
