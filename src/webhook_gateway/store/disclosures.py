"""The ledger: what may have reached whom. It is what is written down anyway: attempts, leases that ended without a word
(``lapsed``), what endpoints were (`store.revisions`), and in the audit log who looked at a body.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from .database import Connection
from .finished import LAPSED

PAYLOAD_READ = "payload.read"
"""What the audit log calls a look at an event's body."""

_ENDED = "id, event_id, endpoint_id, type, reason, attempt, created_at, finished_at AS ended_at, lapsed"
_OPEN = f"id, event_id, endpoint_id, type, reason, attempt, created_at, now() AS ended_at, {LAPSED} AS lapsed"
_RANGE = "tenant_id = $1 AND id >= $3 AND id < $4"


def _entries_of(ended: str, is_open: str) -> str:
    """SQL: a page of deliveries, ``ended`` and open, with ids in a range, newest first; each with what may have left.

    A gap, where more was claimed than recorded, is told of every recipient that the endpoint had meanwhile, or just
    before: workers hear of a change after it. Under each lease the request may have been sent twice (`Exchange.sends`).
    """
    return f"""
WITH made AS MATERIALIZED (
    SELECT * FROM (
        SELECT {_OPEN} FROM {is_open} UNION ALL {ended}
    ) AS either ORDER BY id DESC LIMIT $5
), tried AS MATERIALIZED (
    SELECT * FROM attempts
    WHERE delivery_id >= $3 AND delivery_id < $4 AND delivery_id = ANY(ARRAY(SELECT id FROM made))
), sent AS (
    SELECT delivery_id, started_at AS at, NULL::timestamptz AS latest, true AS recorded,
           CASE outcome WHEN 'accepted' THEN 'confirmed' ELSE 'possible' END AS reached,
           attempt, sends::int AS times, status, revision, nullif(body_digest, '') AS body_digest
    FROM tried WHERE phase IN ('sent', 'answered') OR body_digest IS NOT NULL
    UNION ALL
    SELECT id, created_at, ended_at, false, 'possible', NULL, 2 * missing, NULL, r.revision, NULL
    FROM (
        SELECT *, greatest(lapsed, attempt - (SELECT count(*) FROM tried WHERE delivery_id = made.id))::int AS missing
        FROM made
    ) AS made LEFT JOIN LATERAL (
        SELECT DISTINCT ON (subscriber, host, permitted_content, content) revision FROM (
            SELECT *, lead(at) OVER (ORDER BY revision) AS until FROM endpoint_revisions
            WHERE endpoint_id = made.endpoint_id
        ) AS one WHERE at <= made.ended_at AND coalesce(until > made.created_at - interval '5 seconds', true)
    ) AS r ON true
    WHERE missing > 0
)
SELECT made.id AS delivery_id, made.event_id, made.type AS event_type, made.reason, made.endpoint_id, e.subscriber_id,
       sent.at, latest, recorded, reached, sent.attempt, times, status, sent.revision, sent.body_digest,
       r.subscriber, r.host, r.permitted_content, r.content
FROM made LEFT JOIN sent ON delivery_id = made.id AND sent.at < $7 AND coalesce(latest, sent.at) >= $6
LEFT JOIN endpoints e ON e.id = made.endpoint_id
LEFT JOIN endpoint_revisions r ON r.endpoint_id = made.endpoint_id AND r.revision = coalesce(sent.revision, 1)
ORDER BY made.id DESC, sent.at
"""


OF_EVENTS = _entries_of(
    f"SELECT {_ENDED} FROM finished_deliveries WHERE {_RANGE} AND event_id = ANY($2::uuid[])",
    f"deliveries WHERE {_RANGE} AND event_id = ANY($2::uuid[])",
)
OF_ENDPOINTS = _entries_of(
    f"""SELECT d.* FROM unnest($2::uuid[]) AS wanted(one) CROSS JOIN LATERAL (
            SELECT {_ENDED} FROM finished_deliveries WHERE {_RANGE} AND endpoint_id = one
            ORDER BY id DESC LIMIT $5) AS d""",
    # Each open one has a time or is behind another: two indexes have these by endpoint, or all would be walked over.
    f"""deliveries WHERE {_RANGE} AND endpoint_id = ANY($2::uuid[])
        AND (due_at IS NOT NULL OR due_at IS NULL AND ordering_key IS NOT NULL)
        AND (attempt > 0 OR lapsed > 0 OR forwarded_from IS NOT NULL)""",
)


def _newest_of(theirs: str) -> str:
    return f"""
-- newest: of the deliveries of ``theirs`` ($2) the newest one's id below another; that itself while some are open below
SELECT CASE WHEN (SELECT id FROM deliveries ORDER BY id LIMIT 1) < $3 THEN $3 ELSE (
    SELECT id FROM unnest($2::uuid[]) AS wanted(one) CROSS JOIN LATERAL ({theirs}) AS d ORDER BY id DESC LIMIT 1) END
"""


NEWEST_OF_EVENTS = _newest_of(
    "SELECT id FROM finished_deliveries WHERE tenant_id = $1 AND id < $3 AND event_id = one OFFSET 0"
)
NEWEST_OF_ENDPOINTS = _newest_of(
    "SELECT id FROM finished_deliveries WHERE tenant_id = $1 AND id < $3 AND endpoint_id = one ORDER BY id DESC LIMIT 1"
)

FETCHED = f"""
-- fetched: who looked at the bodies of events in a time, and how often; for one subscriber, or for anybody. A probe
-- for each event: by all of them together it read everything that was changed in that time
SELECT target AS event_id, actor AS fetched_by, after, min(at) AS at, max(at) AS latest, count(*)::int AS times
FROM (SELECT DISTINCT unnest($2::text[]) AS target) AS asked
CROSS JOIN LATERAL (
    SELECT actor, after, at FROM audit_log a
    WHERE a.tenant_id = $1 AND a.target = asked.target AND action = '{PAYLOAD_READ}' AND at >= $3 AND at < $4
      AND ($5::text IS NULL OR after ->> 'subscriber_id' = $5)
    OFFSET 0
) AS fetched
GROUP BY target, actor, after ORDER BY target DESC, min(at)
"""

LAST_SENT = """
-- last sent: the last attempt at a delivery of which something may have left, and how much its endpoint got then
SELECT a.attempt, a.started_at, a.body_digest, r.permitted_content, r.content
FROM attempts a JOIN endpoint_revisions r ON r.endpoint_id = $3 AND r.revision = a.revision
WHERE a.tenant_id = $1 AND a.delivery_id = $2 AND a.body_digest IS NOT NULL ORDER BY a.id DESC LIMIT 1
"""

ENDPOINTS = "SELECT id FROM endpoints WHERE tenant_id = $1 AND subscriber_id = $2"


class Page(msgspec.Struct, frozen=True):
    """What may have left of so many ``deliveries``; the ``last`` one's id where there are more in the range."""

    entries: list[Any]
    deliveries: int
    last: UUID | None


async def page(
    connection: Connection,
    tenant_id: UUID,
    theirs: Sequence[UUID],
    made: tuple[UUID, UUID],
    sent: tuple[datetime, datetime],
    limit: int,
    *,
    of_events: bool,
) -> Page:
    """Of at most ``limit`` deliveries of events, or of endpoints, ``made`` with ids in a range: what was ``sent`` in a
    time."""
    statement = OF_EVENTS if of_events else OF_ENDPOINTS
    rows = await connection.fetch(statement, tenant_id, theirs, *made, limit + 1, *sent)
    deliveries = list(dict.fromkeys(row["delivery_id"] for row in rows))
    entries = [row for row in rows if row["at"] is not None]
    if len(deliveries) <= limit:
        return Page(entries, len(deliveries), None)
    return Page(
        [row for row in entries if row["delivery_id"] > deliveries[limit]], limit, [made[1], *deliveries][limit]
    )


async def newest_below(
    connection: Connection, tenant_id: UUID, theirs: Sequence[UUID], below: UUID, *, of_events: bool
) -> UUID:
    """An id above which, and below that one, there is no delivery of events, or of endpoints."""
    statement = NEWEST_OF_EVENTS if of_events else NEWEST_OF_ENDPOINTS
    newest: UUID | None = await connection.fetchval(statement, tenant_id, theirs, below)
    return UUID(int=0) if newest is None else min(below, shifted(newest, timedelta(milliseconds=1)))


async def fetched(
    connection: Connection,
    tenant_id: UUID,
    events: Sequence[str],
    since: datetime,
    until: datetime,
    subscriber: str | None = None,
) -> list[Any]:
    """Looks at bodies of events, by their ids as people know them."""
    return list(await connection.fetch(FETCHED, tenant_id, events, since, until, subscriber)) if events else []


async def last_sent(connection: Connection, tenant_id: UUID, delivery_id: UUID, endpoint_id: UUID) -> Any:
    """None where nothing has left, as far as it is written down."""
    return await connection.fetchrow(LAST_SENT, tenant_id, delivery_id, endpoint_id)


async def endpoints_of(connection: Connection, tenant_id: UUID, subscriber_id: UUID) -> list[UUID]:
    """A subscriber's, the deleted ones, too."""
    return [row["id"] for row in await connection.fetch(ENDPOINTS, tenant_id, subscriber_id)]


def shifted(moment: UUID, by: timedelta) -> UUID:
    """The lowest UUIDv7 of that much later, or earlier."""
    milliseconds = (moment.int >> 80) + by // timedelta(milliseconds=1)
    return UUID(int=min(max(milliseconds, 0), (1 << 48) - 1) << 80)
