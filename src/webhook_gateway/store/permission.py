"""What is cut off: open deliveries of types that their endpoint may not have any more."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from webhook_gateway.rules.matching import TEST, effective

from . import deliveries
from .database import FULL_SCAN, Connection

SLICE = 5_000


def fits(event_type: str, patterns: str) -> str:
    """SQL: whether one of the patterns wants the type (`rules.matching`)."""
    return f"""EXISTS (
    SELECT FROM unnest({patterns}) AS pattern
    WHERE CASE WHEN pattern = '*' THEN NOT starts_with({event_type}, 'gateway.')
               WHEN pattern LIKE '%.*' THEN starts_with({event_type}, left(pattern, -1))
               ELSE {event_type} = pattern END)"""


BEYOND = f"""
-- beyond: an endpoint's open deliveries that nobody is sending and that none of the patterns wants (`rules.matching`)
SELECT id FROM (
    SELECT id, type, unfiltered FROM deliveries
    WHERE endpoint_id = $1 AND due_at IS NOT NULL AND (lease_id IS NULL OR due_at <= now())
    UNION ALL
    SELECT id, type, unfiltered FROM deliveries WHERE endpoint_id = $1 AND ordering_key IS NOT NULL AND due_at IS NULL
) AS waiting
WHERE NOT {fits("type", "$2::text[]")}
AND ($4 OR unfiltered IS NOT TRUE)
LIMIT $3
"""

CUT_OFF = "UPDATE endpoints SET cut_off_at = clock_timestamp() WHERE id = ANY($1::uuid[])"

NEXT = """
-- next: an endpoint that was narrowed, unless another worker is at it
SELECT e.id, e.tenant_id, e.event_types, s.event_types AS permitted_types
FROM endpoints e JOIN subscribers s ON s.id = e.subscriber_id
WHERE e.cut_off_at IS NOT NULL LIMIT 1 FOR NO KEY UPDATE OF e SKIP LOCKED
"""

SLICES_WAIT = """
-- slices wait: whether a cut-off or a job is open
SELECT EXISTS (SELECT FROM endpoints WHERE cut_off_at IS NOT NULL)
       OR EXISTS (SELECT FROM jobs WHERE state IN ('pending', 'running'))
"""

DONE = "UPDATE endpoints SET cut_off_at = NULL WHERE id = $1"


async def beyond(
    connection: Connection, endpoint_id: UUID, gets: Sequence[str], limit: int, *, unfiltered: bool = True
) -> list[UUID]:
    """Open deliveries that it may not have where it gets these types; not those that are being sent just now.

    Without the ``unfiltered``, of which a partner knows nothing, where it asks.
    """
    rows = await connection.fetch(BEYOND, endpoint_id, [*gets, TEST], limit, unfiltered, timeout=FULL_SCAN)
    return [row["id"] for row in rows]


async def cut_off(connection: Connection, endpoint_ids: Sequence[UUID]) -> None:
    """From the caller's commit on workers cancel what waits and is beyond."""
    await connection.execute(CUT_OFF, endpoint_ids)


async def slices_wait(connection: Connection) -> bool:
    """Whether upkeep has slices to do; nearly always it hasn't, and needs no lock to find out."""
    return bool(await connection.fetchval(SLICES_WAIT))


async def cancel_some(connection: Connection) -> int | None:
    """Cancels a slice of what waits to be cut off; how many, or None where nothing does."""
    async with connection.transaction():
        endpoint = await connection.fetchrow(NEXT)
        if endpoint is None:
            return None
        gets = effective(endpoint["permitted_types"], endpoint["event_types"])
        found = await beyond(connection, endpoint["id"], gets, SLICE)
        await deliveries.cancel(
            connection, tenant_id=endpoint["tenant_id"], ids=found, endpoint_id=None, reason="not_permitted"
        )
        if len(found) < SLICE:
            await connection.execute(DONE, endpoint["id"])
    return len(found)
