"""Sealed bodies, for who sends them: by their day, or kept apart for a delivery that is open longer than that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from .database import Connection


def among(ids: str) -> str:
    """SQL: an event's ``id`` is one of the array, which is sorted: days that are out of its range aren't looked at."""
    ids = f"({ids}::uuid[])"
    return f"id = ANY({ids}) AND id >= {ids}[1] AND id <= {ids}[cardinality({ids})]"


BODIES = f"""
-- bodies: sealed, for the events of one claim
SELECT id, tenant_id, body FROM events WHERE {among("$1")}
"""

KEPT_BODIES = """
-- kept bodies: of those whose day has gone
SELECT k.id, k.body FROM unnest($1::uuid[]) AS wanted(id)
CROSS JOIN LATERAL (SELECT id, body FROM kept_bodies WHERE id = wanted.id LIMIT 1) AS k
"""

SOME = """
-- some bodies: sealed, of these events in the order of their ids, until they are so many bytes together
SELECT id, body FROM (
    SELECT id, body, sum(size) OVER (ORDER BY id) AS so_far FROM events WHERE id = ANY($1::uuid[])
) AS asked WHERE so_far <= $2
"""

LATEST = "SELECT id, tenant_id, type, size, accepted_at FROM events WHERE id < $1 ORDER BY id DESC LIMIT $2"


async def latest(connection: Connection, before: UUID, limit: int) -> list[Any]:
    """The newest events of all tenants from below an id, without their bodies."""
    return list(await connection.fetch(LATEST, before, limit))


async def some(connection: Connection, event_ids: Sequence[UUID], most: int) -> dict[UUID, bytes]:
    """The sealed bodies of the first events, ``most`` bytes together."""
    return {row["id"]: row["body"] for row in await connection.fetch(SOME, event_ids, most)}


async def bodies(connection: Connection, event_ids: Sequence[UUID]) -> dict[UUID, bytes]:
    """The sealed bodies; one that retention has dropped is missing."""
    found = {row["id"]: row["body"] for row in await connection.fetch(BODIES, sorted(event_ids))}
    if gone := [event_id for event_id in event_ids if event_id not in found]:
        found |= {row["id"]: row["body"] for row in await connection.fetch(KEPT_BODIES, gone)}
    return found
