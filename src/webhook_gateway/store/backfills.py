"""Events that were accepted before an endpoint was there, or wanted them; jobs send them to it, a slice at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from webhook_gateway.rules.model import Endpoint

from .clock import TIME, id_at
from .database import Connection
from .finished import has_delivery
from .permission import fits

WALKED = 2_000
"""Events that are read in one transaction."""
MOST_TOLD = 50_000
"""Deliveries that are read to count events which are not kept any more."""

EARLIER = f"""
-- earlier: of a slice of all events, in the order of their ids, those that an endpoint would have had and has no
-- delivery of; and the last of the slice
WITH walked AS MATERIALIZED (
    SELECT id, tenant_id, type, ordering_key, addressees, accepted_at, size FROM events
    WHERE id > $1 AND id < $2 ORDER BY id LIMIT {WALKED}
), judged AS MATERIALIZED (
    SELECT id, type, ordering_key, accepted_at, size,
           CASE WHEN tenant_id = $3 AND {fits("type", "$4::text[]")} AND coalesce($5 = ANY(addressees), true)
                THEN NOT {has_delivery("walked.id", "$6::uuid")} ELSE false END AS wanted
    FROM walked
)
SELECT * FROM judged WHERE wanted OR id = (SELECT id FROM walked ORDER BY id DESC LIMIT 1) ORDER BY id
"""

GONE = f"""
-- gone: the first event that is kept, and how many after an id are not any more, as far as deliveries to others tell
WITH first AS MATERIALIZED (SELECT id FROM events ORDER BY id LIMIT 1)
SELECT (SELECT id FROM first) AS kept, count(DISTINCT event_id) FILTER (
    WHERE {fits("type", "$4::text[]")} AND NOT {has_delivery("event_id", "$5::uuid")}) AS count
FROM (
    SELECT told.* FROM endpoints one CROSS JOIN LATERAL (
        SELECT event_id, type FROM finished_deliveries WHERE tenant_id = $3 AND endpoint_id = one.id
           AND id > $1 AND id < least($2, (SELECT id FROM first)) AND event_id > $1 LIMIT {MOST_TOLD}
    ) AS told
    WHERE one.tenant_id = $3 LIMIT {MOST_TOLD}
) AS told
"""

ENQUEUE = """
-- enqueue: for one endpoint, in their order. They wait for each other by keys of their own, and for nothing else: what
-- is live goes on, and isn't superseded by something older
INSERT INTO outbox (tenant_id, event_id, type, ordering_key, endpoint_id, delivery_id, reason)
SELECT $1, id, type, ordering_key # hashtextextended($2::uuid::text, 0), $2, new_id, 'backfill'
FROM unnest($3::uuid[], $4::text[], $5::bigint[], $6::uuid[]) WITH ORDINALITY AS e(id, type, ordering_key, new_id, n)
ORDER BY n
"""


async def earlier(
    connection: Connection, between: tuple[UUID, UUID], endpoint: Endpoint, patterns: Sequence[str]
) -> list[Any]:
    """Events between two ids, of these types, that are ``wanted``, and the last one that was looked at; none where none
    is left."""
    about = (endpoint.tenant_id, patterns, endpoint.subscriber_id, endpoint.id)
    return list(await connection.fetch(EARLIER, *between, *about))


async def gone(connection: Connection, between: tuple[UUID, UUID], endpoint: Endpoint, patterns: Sequence[str]) -> Any:
    """The first event that is ``kept``, and the ``count`` of those that the endpoint might have had before it."""
    return await connection.fetchrow(GONE, *between, endpoint.tenant_id, patterns, endpoint.id)


async def enqueue(connection: Connection, endpoint: Endpoint, events: Sequence[Any]) -> None:
    now = await connection.fetchval(TIME)
    columns = [[event[name] for event in events] for name in ("id", "type", "ordering_key")]
    await connection.execute(ENQUEUE, endpoint.tenant_id, endpoint.id, *columns, [id_at(now) for _ in events])
