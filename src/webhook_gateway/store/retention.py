"""What leaves in time: bodies by the day, partners' answers with them, and deliveries that never came to an end."""

from __future__ import annotations

from datetime import date, timedelta
from uuid import UUID

from webhook_gateway.rules.model import Delivery

from . import ordering, partitions, workers
from .database import Connection
from .finished import put_away_open
from .ordering import Successor
from .partitions import EVENTS, lowest_id

SLICE = 200
"""Bodies that are copied at once, or deliveries that end."""
MANY = 5_000
"""Rows without bodies that are looked at, or changed, at once."""
TOO_LONG = "open_too_long"
"""The reason with which a delivery ends that is older than any may be."""

_COLUMNS = "id, tenant_id, type, occurred_at, accepted_at, size, body, addressees"

KEEP = f"""
-- keep: the next bodies of a day that something open still needs, copied as they are sealed
WITH needed AS MATERIALIZED (
    (SELECT DISTINCT event_id FROM deliveries d
     WHERE event_id > $1 AND event_id < $2 AND (SELECT id FROM kept_bodies WHERE id = d.event_id) IS NULL
     ORDER BY event_id LIMIT $3)
    UNION
    (SELECT DISTINCT event_id FROM outbox o
     WHERE event_id > $1 AND event_id < $2 AND (SELECT id FROM kept_bodies WHERE id = o.event_id) IS NULL
     ORDER BY event_id LIMIT $3)
    ORDER BY event_id LIMIT $3
), kept AS (
    INSERT INTO kept_bodies ({_COLUMNS})
    SELECT e.* FROM needed CROSS JOIN LATERAL (SELECT {_COLUMNS} FROM events WHERE id = needed.event_id LIMIT 1) AS e
)
SELECT event_id FROM needed ORDER BY event_id DESC LIMIT 1
"""

FORGET = """
-- forget: of the next kept bodies those that nothing open needs any more
WITH next AS MATERIALIZED (
    SELECT ctid, id FROM kept_bodies WHERE id > $1 ORDER BY id LIMIT $2
), last AS MATERIALIZED (
    SELECT id FROM next ORDER BY id DESC LIMIT 1
), gone AS (
    DELETE FROM kept_bodies k USING next
    WHERE k.ctid = next.ctid AND (SELECT true FROM deliveries WHERE event_id = next.id LIMIT 1) IS NULL
      AND next.id <> ALL(ARRAY(SELECT event_id FROM outbox WHERE event_id <= (SELECT id FROM last)))
)
SELECT id FROM last
"""

ANSWERS = """
-- answers: attempts of which some answer is kept, of deliveries before an id
SELECT delivery_id, id FROM attempts WHERE response_excerpt IS NOT NULL AND delivery_id < $1 LIMIT $2
"""

FORGET_ANSWER = """
-- forget answer: one at a time, since a join of partitions is a walk over whole indexes
UPDATE attempts SET response_excerpt = NULL WHERE delivery_id = $1 AND id = $2
"""

END_OPEN = f"""
-- end open: deliveries that are older than any may be and that nobody is sending. Their ids say when they were made by
-- the clock of who made them, hence the second look.
WITH old AS MATERIALIZED (
    SELECT ctid FROM deliveries
    WHERE id < $1 AND created_at < now() - make_interval(days => $2) AND (lease_id IS NULL OR due_at <= now())
    ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM deliveries d USING old WHERE d.ctid = old.ctid RETURNING d.*
), kept AS (
    {put_away_open("dead", "$4")}
)
SELECT id, tenant_id, endpoint_id, event_id, type, attempt, id AS lease_id, ordering_key, sequence, skipped_event_id,
       reason, unfiltered, due_at IS NOT NULL AS head
FROM gone
"""


async def drop_bodies(connection: Connection, before: date) -> list[str]:
    """Drops the days that end before ``before``, each when what is open still has its bodies elsewhere.

    None while a worker is alive that would not find them there.
    """
    dropped: list[str] = []
    for name, begin, end in await partitions.ended(connection, EVENTS, before):
        day = lowest_id(begin), lowest_id(end)
        if not await _keep(connection, *day):
            break
        async with connection.transaction():
            # Whoever has just found an event here, to replay it, has it in the outbox by the time that we get the lock.
            await partitions.lock(connection, name)
            if not await _keep(connection, *day):
                break
            await connection.execute(f"DROP TABLE {name}")
        dropped.append(name)
    return dropped


async def forget(connection: Connection, before: date) -> None:
    """Deletes kept bodies whose deliveries have ended, and what is kept of answers to deliveries made ``before``."""
    after: UUID | None = UUID(int=0)
    while after is not None:
        after = await connection.fetchval(FORGET, after, MANY)
    while answers := await connection.fetch(ANSWERS, lowest_id(before), MANY):
        await connection.executemany(FORGET_ANSWER, [tuple(answer) for answer in answers])


async def end_open(connection: Connection, days: int) -> list[Delivery]:
    """Ends a slice of what has been open for so many days, in the caller's transaction; ordering keys go on."""
    newest = lowest_id(await partitions.today(connection) - timedelta(days=days - 1))
    rows = await connection.fetch(END_OPEN, newest, days, SLICE, TOO_LONG)
    ended = [(Delivery(*tuple(row)[:-1]), row["head"]) for row in rows]
    heads = [one for one, head in ended if head and one.ordering_key is not None]
    if heads:
        successors = [
            Successor(one.endpoint_id, one.ordering_key, one.sequence, None if one.unfiltered else one.event_id)
            for one in heads
        ]
        await ordering.release(connection, successors)
    return [one for one, _ in ended]


async def _keep(connection: Connection, low: UUID, high: UUID) -> bool:
    """Copies what is needed from the id ``low`` on, below ``high``; false where a worker would not find it."""
    after: UUID | None = UUID(int=low.int - 1)
    while after is not None:
        transaction = connection.transaction()
        await transaction.start()
        after = await connection.fetchval(KEEP, after, high, SLICE)
        if after is not None and not await workers.require_current(connection):
            await transaction.rollback()
            return False
        await transaction.commit()
    return True
