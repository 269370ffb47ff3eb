"""What partners have used up of their quotas today."""

from __future__ import annotations

from uuid import UUID

from .database import Connection

USE = """
-- use up a quota: what the subscriber has used today (UTC), with this. Whoever else of it asks at once waits here
INSERT INTO partner_usage AS u (subscriber_id, kind, day, used) VALUES ($1, $2, (now() AT TIME ZONE 'UTC')::date, $3)
ON CONFLICT (subscriber_id, kind) DO UPDATE
SET day = excluded.day, used = excluded.used + CASE WHEN u.day = excluded.day THEN u.used ELSE 0 END
RETURNING used
"""

ENDPOINTS = """
-- endpoints of a subscriber: how many there are
SELECT count(*) FROM endpoints WHERE subscriber_id = $1 AND deleted_at IS NULL
"""

OPEN_REPLAYS = """
-- open replays of a subscriber: how many of its jobs are not done
SELECT count(*) FROM jobs WHERE state IN ('pending', 'running') AND filter ->> 'subscriber_id' = $1::uuid::text
"""


async def use(connection: Connection, subscriber_id: UUID, kind: str, amount: int) -> int:
    return int(await connection.fetchval(USE, subscriber_id, kind, amount))


async def endpoints(connection: Connection, subscriber_id: UUID) -> int:
    return int(await connection.fetchval(ENDPOINTS, subscriber_id))


async def open_replays(connection: Connection, subscriber_id: UUID) -> int:
    return int(await connection.fetchval(OPEN_REPLAYS, subscriber_id))
