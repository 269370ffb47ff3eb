"""What attempts came to, counted by endpoint and outcome: rows that are only added, merged and deleted.

A worker adds its own every few seconds. They become one for each minute, and an hour later one for each hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from asyncpg import Record

from webhook_gateway.rules.histogram import BOUNDS

from .database import Connection

SLICE = 5_000
KEPT_DAYS = 90

SUM = f"""
(ARRAY(SELECT sum(n) FROM unnest(array_agg(durations || array_fill(0, ARRAY[{len(BOUNDS)} - cardinality(durations)])))
      WITH ORDINALITY AS d(n, place) GROUP BY (place - 1) % {len(BOUNDS)} ORDER BY (place - 1) % {len(BOUNDS)}
))[:max(cardinality(durations))]::int[]
"""
"""Of histograms, which end with their last count."""

ADD = """
-- add: what a worker has counted since it last did. It may be repeated: DO NOTHING
INSERT INTO attempt_stats (span, begins, tenant_id, about_id, outcome, status, detail, id, first_at, last_at,
                           delivery_id, durations, attempts, died)
VALUES (0, to_timestamp($1), $2, $3, $4, $5, $6, $7, to_timestamp($8), to_timestamp($9), $10, $11, $12, $13)
ON CONFLICT DO NOTHING
"""

MERGE = f"""
-- merge: rows of one span that nobody adds to any more become one for each longer span, endpoint and outcome
WITH gone AS (
    DELETE FROM attempt_stats WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM attempt_stats
        WHERE span = $1 AND begins < date_bin(make_interval(secs => $2), now() - make_interval(secs => $3), 'epoch')
        ORDER BY date_bin(make_interval(secs => $2), begins, 'epoch'), about_id, outcome LIMIT {SLICE}))
    RETURNING *
), merged AS (
    INSERT INTO attempt_stats
    SELECT $2, date_bin(make_interval(secs => $2), begins, 'epoch'), tenant_id, about_id, outcome, status, detail,
           gen_random_uuid(), min(first_at), max(last_at), (array_agg(delivery_id ORDER BY last_at DESC))[1],
           {SUM}, sum(attempts), sum(died)
    FROM gone GROUP BY 2, tenant_id, about_id, outcome, status, detail
)
SELECT count(*) FROM gone
"""
SPANS = ((0, 60, 60), (60, 3_600, 3_660))
"""Of seconds: which rows are merged, into which, and after how long. A span of 0 is what a worker has added."""

PRUNE = f"""
-- prune: rows that are older than they are kept
DELETE FROM attempt_stats WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM attempt_stats WHERE span = 3600 AND begins < now() - make_interval(days => {KEPT_DAYS})
    ORDER BY begins LIMIT {SLICE}))
"""

SERIES = f"""
-- series: by bucket and outcome, of some endpoints together, or of a tenant
SELECT date_bin(make_interval(secs => $4), begins, 'epoch') AS begins, outcome, status, detail,
       sum(attempts)::int8 AS attempts, sum(died)::int8 AS died, {SUM} AS durations
FROM attempt_stats WHERE tenant_id = $1 AND about_id = ANY($2::uuid[]) AND begins >= $3
GROUP BY 1, outcome, status, detail HAVING sum(attempts) > 0
"""

LAST_ACCEPTED = """
-- last accepted: when an endpoint last took something
SELECT max(last_at) FROM attempt_stats WHERE tenant_id = $1 AND about_id = $2 AND outcome = 'accepted' AND begins = (
    SELECT begins FROM attempt_stats WHERE tenant_id = $1 AND about_id = $2 AND outcome = 'accepted'
    ORDER BY begins DESC LIMIT 1)
"""

PROBLEMS = """
-- problems: what failed at an endpoint since it last took something, the latest first. In the minute in which it did,
-- after an hour in the hour, what failed before and after is not told apart.
SELECT e.id AS endpoint_id, e.subscriber_id, p.*
FROM endpoints e
LEFT JOIN LATERAL (
    SELECT begins FROM attempt_stats s WHERE s.tenant_id = e.tenant_id AND s.about_id = e.id AND s.outcome = 'accepted'
    ORDER BY begins DESC LIMIT 1
) AS accepted ON true
CROSS JOIN LATERAL (
    SELECT outcome, status, detail, min(first_at) AS first_at, max(last_at) AS last_at, sum(attempts)::int8 AS attempts,
           sum(died)::int8 AS died, (array_agg(delivery_id ORDER BY last_at DESC))[1] AS delivery_id,
           max(max(last_at) FILTER (WHERE outcome = 'accepted')) OVER () AS accepted_at
    FROM attempt_stats s
    WHERE s.tenant_id = e.tenant_id AND s.about_id = e.id AND s.begins >= coalesce(accepted.begins, '-infinity')
    GROUP BY outcome, status, detail
) AS p
WHERE e.tenant_id = $1 AND ($2::uuid IS NULL OR e.subscriber_id = $2) AND ($3::uuid IS NULL OR e.id = $3)
  AND e.deleted_at IS NULL AND p.outcome <> 'accepted' AND p.last_at > coalesce(p.accepted_at, '-infinity')
ORDER BY p.last_at DESC LIMIT 200
"""

OF_ENDPOINTS = """
-- of endpoints: a tenant's, with what attempts of the last quarter of an hour came to, and when one last succeeded
SELECT e.id, s.name AS subscriber, r.accepted, r.failed, a.last_at AS accepted_at
FROM endpoints e JOIN subscribers s ON s.id = e.subscriber_id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(attempts) FILTER (WHERE outcome = 'accepted'), 0)::int8 AS accepted,
           coalesce(sum(attempts) FILTER (WHERE outcome <> 'accepted'), 0)::int8 AS failed
    FROM attempt_stats WHERE tenant_id = e.tenant_id AND about_id = e.id AND begins >= now() - interval '15 minutes'
) AS r
LEFT JOIN LATERAL (
    SELECT last_at FROM attempt_stats WHERE tenant_id = e.tenant_id AND about_id = e.id AND outcome = 'accepted'
    ORDER BY begins DESC LIMIT 1
) AS a ON true
WHERE e.tenant_id = $1 AND e.deleted_at IS NULL
"""


class Kind(NamedTuple):
    """What is counted together, in the order of `ADD`."""

    begins: int
    """A minute, in Unix seconds."""
    tenant_id: UUID
    about_id: UUID
    """An endpoint, or the tenant for all of its endpoints."""
    outcome: str
    status: int | None = None
    detail: str | None = None


class Counted(msgspec.Struct):
    """The numbers of a kind. Times are Unix seconds, ``durations`` are counts by size."""

    id: UUID
    first_at: float
    last_at: float
    delivery_id: UUID
    """The last one."""
    durations: list[int] = []
    attempts: int = 0
    died: int = 0
    """Deliveries that were given up with the attempt."""


async def add(connection: Connection, rows: Sequence[tuple[Kind, Counted]]) -> None:
    await connection.executemany(ADD, [(*kind, *msgspec.structs.astuple(counted)) for kind, counted in rows])


async def merge(connection: Connection) -> None:
    """Makes few rows of many, and deletes the oldest."""
    for spans in SPANS:
        while await connection.fetchval(MERGE, *spans) == SLICE:
            pass
    while await connection.execute(PRUNE) == f"DELETE {SLICE}":
        pass


async def series(
    connection: Connection, tenant_id: UUID, about: Sequence[UUID], since: datetime, bucket: int
) -> list[Record]:
    """``bucket`` is in seconds."""
    return list(await connection.fetch(SERIES, tenant_id, about, since, bucket))


async def last_accepted(connection: Connection, tenant_id: UUID, endpoint_id: UUID) -> datetime | None:
    found: datetime | None = await connection.fetchval(LAST_ACCEPTED, tenant_id, endpoint_id)
    return found


async def of_endpoints(connection: Connection, tenant_id: UUID) -> list[Record]:
    return list(await connection.fetch(OF_ENDPOINTS, tenant_id))


async def problems(
    connection: Connection, tenant_id: UUID, subscriber_id: UUID | None, endpoint_id: UUID | None
) -> list[dict[str, Any]]:
    return list(map(dict, await connection.fetch(PROBLEMS, tenant_id, subscriber_id, endpoint_id)))
