"""Sealed bodies, for who sends them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from .database import Connection

BODIES = """
-- bodies: sealed, for the events of one claim
SELECT id, tenant_id, body FROM events WHERE id = ANY($1::uuid[])
"""


async def bodies(connection: Connection, event_ids: Sequence[UUID]) -> dict[UUID, bytes]:
    """The sealed bodies; one that retention has dropped is missing."""
    return {row["id"]: row["body"] for row in await connection.fetch(BODIES, event_ids)}
