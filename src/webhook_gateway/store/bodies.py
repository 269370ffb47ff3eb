"""Sealed bodies, for who sends them: by their day, or kept apart for a delivery that is open longer than that."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from .database import Connection

BODIES = """
-- bodies: sealed, for the events of one claim
SELECT id, tenant_id, body FROM events WHERE id = ANY($1::uuid[])
"""

KEPT_BODIES = """
-- kept bodies: of those whose day has gone
SELECT k.id, k.body FROM unnest($1::uuid[]) AS wanted(id)
CROSS JOIN LATERAL (SELECT id, body FROM kept_bodies WHERE id = wanted.id LIMIT 1) AS k
"""


async def bodies(connection: Connection, event_ids: Sequence[UUID]) -> dict[UUID, bytes]:
    """The sealed bodies; one that retention has dropped is missing."""
    found = {row["id"]: row["body"] for row in await connection.fetch(BODIES, event_ids)}
    if gone := [event_id for event_id in event_ids if event_id not in found]:
        found |= {row["id"]: row["body"] for row in await connection.fetch(KEPT_BODIES, gone)}
    return found
