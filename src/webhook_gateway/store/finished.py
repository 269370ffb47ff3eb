"""What a delivery leaves behind when it ends, whoever ends it; and whether there was one."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from .database import Connection

NOT_WANTED = "not_wanted"
"""The reason of those that a filter doesn't let through: no partner's key hears of them."""

LAPSED = "lapsed + (lease_id IS NOT NULL)::int"
"""SQL: leases of an open delivery that nobody has settled: something may have been sent under each."""

LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('webhook_gateway.unreached', 0))"
"""Two settles that end an addressee's last two deliveries would each leave it to the other."""

UNREACHED = f"""
-- unreached: events that a filter has just refused, with those addressees to whom nothing of them is open or was sent
SELECT event_id, subscriber_id FROM unnest($1::uuid[], $2::uuid[]) AS a(event_id, subscriber_id)
CROSS JOIN LATERAL (SELECT ARRAY(SELECT id FROM endpoints WHERE subscriber_id = a.subscriber_id) AS theirs) AS e
WHERE subscriber_id = ANY(coalesce((SELECT addressees FROM events WHERE id = event_id),
                                   (SELECT addressees FROM kept_bodies WHERE id = event_id)))
  AND (SELECT true FROM deliveries d WHERE d.event_id = a.event_id AND endpoint_id = ANY(theirs) LIMIT 1) IS NULL
  AND (SELECT true FROM finished_deliveries f WHERE f.event_id = a.event_id AND f.id > a.event_id
       AND endpoint_id = ANY(theirs) AND state_reason IS DISTINCT FROM '{NOT_WANTED}' LIMIT 1) IS NULL
"""


async def unreached(connection: Connection, refused: Collection[tuple[UUID, UUID]]) -> list[tuple[UUID, UUID]]:
    """Of pairs of event and subscriber those of which nobody else will hear."""
    await connection.execute(LOCK)
    return [tuple(row) for row in await connection.fetch(UNREACHED, *zip(*refused, strict=True))]


def put_away(state: str, reason: str, lapsed: str = "lapsed") -> str:
    """SQL: the deliveries in ``gone`` have ended in this state, for this reason."""
    return f"""
    INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, attempt,
                                     lapsed, state, state_reason, reason, created_at)
    SELECT id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, attempt, {lapsed},
           {state}, {reason}, reason, created_at
    FROM gone"""


def put_away_open(state: str, reason: str) -> str:
    """SQL: the same of those that no attempt has ended. A filter that wasn't asked yet may not have wanted them."""
    reason = f"CASE WHEN unfiltered THEN '{NOT_WANTED}' ELSE {reason} END"
    return put_away(f"'{state}'", reason, LAPSED)


def has_delivery(event_id: str, endpoint_id: str) -> str:
    """SQL: whether the endpoint has a delivery of the event. What its filter didn't want is none; a test is for one."""
    return f"""
    coalesce((SELECT true FROM deliveries d
              WHERE d.event_id = {event_id} AND (d.endpoint_id = {endpoint_id} OR d.reason = 'test') LIMIT 1),
             (SELECT true FROM finished_deliveries f
              WHERE f.event_id = {event_id} AND f.id > {event_id} AND (f.reason = 'test'
                 OR f.endpoint_id = {endpoint_id} AND state_reason IS DISTINCT FROM '{NOT_WANTED}') LIMIT 1), false)"""
