"""Events by what they came with: keyed hashes of their keys, subject and patients (`intake.lookups`), for as long as
metadata is kept. Idempotency keys are looked for where they are remembered first (`outbox.earlier`), and then here.

Six years are 2,190 partitions, and a transaction locks each that it may read: so one looks at `DAYS` at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

from webhook_gateway.rules import ids

from . import partitions
from .database import Connection, Database
from .driver import driver_of
from .partitions import LOOKUPS, lowest_id
from .reports import first_id

DAYS = 60
LONGEST = 2.0
"""Seconds after which no further days are begun with: the next page goes on there."""

BY_KEY = """
-- by key: the newest events between two ids, of each key on its own: one that many events share is read no further
SELECT found.event_id, array_agg(DISTINCT wanted.key) AS keys
FROM unnest($1::uuid[]) AS wanted(key)
CROSS JOIN LATERAL (SELECT event_id FROM lookups WHERE key = wanted.key AND event_id >= $2 AND event_id < $3
                    ORDER BY event_id DESC LIMIT $4) AS found
GROUP BY found.event_id ORDER BY found.event_id DESC LIMIT $4
"""

INDEXED_SINCE = "SELECT indexed_since FROM configuration"


async def events_of(
    database: Database, keys: Sequence[UUID], *, since: datetime | None = None, before: UUID | None = None, limit: int
) -> tuple[list[tuple[UUID, list[UUID]]], UUID | None]:
    """Events that came with any of the keys, newest first, from below the id ``before``: each with those of the keys.

    And the id from which on all were found, as with `lists.Page`: None where none is left.
    """
    began, found = monotonic(), list[tuple[UUID, list[UUID]]]()
    async with database.reading() as connection:
        driver = await driver_of(connection)
        low = lowest_id(await partitions.first_day(driver, LOOKUPS))
        high = lowest_id(await partitions.today(driver) + timedelta(days=partitions.DAYS_AHEAD + 1))
    low, high = max(low, first_id(since) if since else low), min(high, before or high)
    while low < high and len(found) < limit and monotonic() - began < LONGEST:
        begin = max(low, lowest_id(ids.moment_of(high).date() - timedelta(days=DAYS - 1)))
        async with database.reading() as connection:
            rows = await (await driver_of(connection)).fetch(BY_KEY, keys, begin, high, limit - len(found))
        found += [(row["event_id"], row["keys"]) for row in rows]
        high = begin
    return found, high if low < high else None


async def indexed_since(connection: Connection) -> datetime:
    """What was accepted before is not to be found here."""
    since: datetime = await connection.fetchval(INDEXED_SINCE)
    return since
