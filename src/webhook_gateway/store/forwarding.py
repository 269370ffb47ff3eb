"""What waits for a retry is brought forward: all of an endpoint that answers again, or one that somebody names.

The attempt that comes of it is an extra one: it isn't counted, and if it fails the delivery is due when it was before.
So an endpoint that opens and closes all day costs no delivery its life.
"""

from __future__ import annotations

from uuid import UUID

from .clock import time_near
from .database import Connection

RATE = 50.0
"""Deliveries a second, where an endpoint has no rate of its own."""
SLICE = 100
"""Deliveries of an endpoint at once, of so many `ENDPOINTS`: committed long before what they become due at."""
ENDPOINTS = 20
SOON = 1.0
"""Seconds until the first of a slice is due. Workers' low-water marks lag by another second (`delivery/watermark.py`):
a slice that commits within both is seen by their scans."""

EXTRA = """forwarded_from = coalesce(d.forwarded_from, d.due_at),
        attempt = CASE WHEN d.forwarded_from IS NULL THEN greatest(d.attempt - 1, 0) ELSE d.attempt END"""
"""SQL: the attempt to come is an extra one."""

TO_FORWARD = """forward_at IS NOT NULL AND forward_at NOT BETWEEN now() AND now() + interval '5 minutes'
          AND coalesce(held_until <= now(), true)"""
"""SQL: an endpoint's turn has come."""

FORWARD = f"""
-- forward: the next slice of endpoints whose breaker has closed, or that were resumed, spread over the time until the
-- next. Whoever locks the endpoint's row does it, in one statement, and a crash leaves it to the next. It goes by when
-- deliveries are due, upwards, and all that it moves is due earlier: so none is moved twice, whatever comes of it.
-- A slice is never put off by more than five minutes: what a clock says that was ahead counts for nothing.
WITH mine AS MATERIALIZED (
    SELECT h.ctid, h.endpoint_id, h.forwarded_due_at, rate, least(ceil(rate), $2)::int AS most,
           coalesce(h.forwarded_id, '00000000-0000-0000-0000-000000000000') AS after_id,
           greatest(h.forwarded_due_at, now() + make_interval(secs => $1 + least(ceil(rate), $2) / rate)) AS after
    FROM (
        SELECT ctid, * FROM endpoint_health
        WHERE {TO_FORWARD} AND {time_near("$5", "NULL")} IS NOT NULL
        ORDER BY forward_at LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED
    ) AS h
    CROSS JOIN LATERAL (SELECT coalesce(rate, $4) AS rate FROM endpoints WHERE id = h.endpoint_id LIMIT 1) AS e
), slice AS MATERIALIZED (
    SELECT mine.endpoint_id, d.*,
           now() + make_interval(secs => $1 + (row_number() OVER of_one - 1) / rate) AS earlier
    FROM mine CROSS JOIN LATERAL (
        SELECT ctid, due_at, id FROM deliveries
        WHERE endpoint_id = mine.endpoint_id AND due_at IS NOT NULL AND (due_at, id) > (after, after_id)
          AND lease_id IS NULL
        ORDER BY due_at, id LIMIT most FOR NO KEY UPDATE SKIP LOCKED
    ) AS d
    WINDOW of_one AS (PARTITION BY mine.endpoint_id ORDER BY due_at, id)
), moved AS (
    UPDATE deliveries d
    SET due_at = greatest(slice.earlier, d.not_before), {EXTRA}
    FROM slice WHERE d.ctid = slice.ctid AND greatest(slice.earlier, d.not_before) < d.due_at
)
UPDATE endpoint_health h
SET forward_at = CASE WHEN last.n = mine.most THEN now() + make_interval(secs => least(most / rate, 300)) END,
    forwarded_at = CASE WHEN mine.forwarded_due_at IS NULL THEN now() ELSE h.forwarded_at END,
    forwarded_due_at = coalesce(last.due_at, mine.after), forwarded_id = last.id
FROM mine LEFT JOIN LATERAL (
    SELECT due_at, id, count(*) OVER () AS n FROM slice WHERE endpoint_id = mine.endpoint_id
    ORDER BY due_at DESC, id DESC LIMIT 1
) AS last ON true
WHERE h.ctid = mine.ctid
RETURNING extract(epoch FROM h.forward_at - now())::float8 AS seconds
"""

TRY_NOW = f"""
-- try now: one that is due later, unless it is being sent or stands behind another of its ordering key. The endpoint's
-- breaker is half-open then, and a silence that the partner asked for ends: one request finds out.
WITH found AS MATERIALIZED (
    SELECT ctid, endpoint_id, due_at, lease_id FROM deliveries
    WHERE id = $2 AND tenant_id = $1 LIMIT 1 FOR NO KEY UPDATE
), head AS MATERIALIZED (
    SELECT * FROM found WHERE due_at <= now() OR due_at IS NOT NULL AND lease_id IS NULL
), moved AS (
    UPDATE deliveries d
    SET due_at = clock_timestamp(), {EXTRA}
    FROM head WHERE d.ctid = head.ctid AND d.due_at > clock_timestamp()
), half_open AS (
    UPDATE endpoint_health h SET open_until = now(), held_until = NULL, changed_at = clock_timestamp()
    FROM head CROSS JOIN LATERAL (
        SELECT ctid FROM endpoint_health
        WHERE endpoint_id = head.endpoint_id AND (open_until > now() OR held_until > now()) LIMIT 1 FOR NO KEY UPDATE
    ) AS closed
    WHERE h.ctid = closed.ctid
)
SELECT FROM head
"""


async def forward(connection: Connection, now: float) -> float | None:
    """Moves what is to be moved; in how many seconds there is more, or None where there is nothing.

    ``now`` is the time in Unix seconds, as far as it is known: nothing is moved where the database's is far from it.
    """
    rows = await connection.fetch(FORWARD, SOON, SLICE, ENDPOINTS, RATE, now)
    return min((row["seconds"] for row in rows if row["seconds"] is not None), default=None)


async def try_now(connection: Connection, tenant_id: UUID, delivery_id: UUID) -> bool:
    """Whether the delivery is due now: false where it is being sent, has ended, or stands behind another one."""
    return await connection.fetchrow(TRY_NOW, tenant_id, delivery_id) is not None
