"""Sending again: one delivery at once, or many as a job that a worker carries out bit by bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import uuid_utils.compat as uuid_utils
from sqlalchemy import RowMapping, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from . import outbox
from .clock import TIME, id_at, new_id
from .database import Connection
from .driver import driver_of
from .finished import NOT_WANTED
from .outbox import Appended
from .reports import first_id
from .rows import every, first, one
from .tables import jobs

OPEN = ("pending", "running")

STORE_EVENT = """
-- store an event that is for one endpoint only: it goes into the outbox for that endpoint
INSERT INTO events (id, tenant_id, type, occurred_at, size, body) VALUES ($1, $2, $3, $4, $5, $6)
"""

OLDEST = """
-- oldest open job: whichever worker has it locked is at it, the others pass
SELECT id, tenant_id, filter, cursor FROM jobs WHERE state IN ('pending', 'running')
ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
"""

NEXT = f"""
-- next of a job: finished deliveries after its cursor, in the order of their ids. What was made after the job itself
-- is left out, or a job that replays what dies would never end. An endpoint that is gone or disabled gets nothing,
-- a body that is no longer kept can't be sent, a test has had its time, and what came before the endpoint got another
-- host goes there only for who may read it.
SELECT f.id, f.event_id, f.type, f.endpoint_id
FROM finished_deliveries f JOIN endpoints e ON e.id = f.endpoint_id AND e.deleted_at IS NULL AND e.state <> 'disabled'
WHERE f.tenant_id = $1 AND f.id > $2 AND f.id < $3 AND f.id >= $4 AND f.id < $5
  AND ($6::uuid IS NULL OR f.endpoint_id = $6) AND ($7::uuid IS NULL OR e.subscriber_id = $7)
  AND ($8::text IS NULL OR f.type = $8) AND f.state = $9
  AND f.state_reason IS DISTINCT FROM '{NOT_WANTED}' AND f.reason IS DISTINCT FROM 'test'
  AND EXISTS (SELECT FROM events v WHERE v.id = f.event_id
              AND ($11 OR e.host_changed_at IS NULL OR v.accepted_at > e.host_changed_at))
ORDER BY f.id LIMIT $10
"""

PLANNED_ANEW = "SET LOCAL plan_cache_mode = force_custom_plan"
"""`NEXT` asks for one endpoint or for all of them: no one plan is right for both."""

ADVANCE = """
-- advance a job: in the transaction of what it has just replayed
UPDATE jobs SET state = $2, cursor = coalesce($3, cursor), done = done + $4,
                finished_at = CASE WHEN $2 = 'done' THEN now() END
WHERE id = $1
"""

_LOWEST, _HIGHEST = UUID(int=0), UUID(int=(1 << 128) - 1)


async def replay(
    connection: AsyncConnection, tenant_id: UUID, *, event_id: UUID, type: str, endpoint_id: UUID, reason: str
) -> UUID:
    """Queues the event for the endpoint again, and returns the id that the new delivery will have."""
    driver = await driver_of(connection)
    delivery_id = await new_id(driver)
    await outbox.enqueue_for_one(
        driver,
        tenant_id,
        event_id=event_id,
        type=type,
        endpoint_id=endpoint_id,
        delivery_id=delivery_id,
        reason=reason,
    )
    return delivery_id


async def send_only_to(connection: AsyncConnection, event: Appended, endpoint_id: UUID) -> UUID:
    """Stores a test event for one endpoint, and returns the id that its delivery will have."""
    driver = await driver_of(connection)
    await driver.execute(STORE_EVENT, event.id, event.tenant_id, event.type, event.occurred_at, event.size, event.body)
    return await replay(
        connection, event.tenant_id, event_id=event.id, type=event.type, endpoint_id=endpoint_id, reason="test"
    )


async def create(
    connection: AsyncConnection, tenant_id: UUID, wanted: Mapping[str, Any], total: int | None
) -> RowMapping:
    """A job over finished deliveries, of which there are ``total`` now, if they were counted.

    ``wanted`` has ``state`` and may have ``endpoint_id``, ``subscriber_id``, ``type``, ``since``, ``until`` and
    ``to_other_hosts`` (than when an event came), all as JSON can hold them.
    """
    statement = (
        insert(jobs)
        .values(id=uuid_utils.uuid7(), tenant_id=tenant_id, kind="replay", filter=dict(wanted), total=total)
        .returning(jobs)
    )
    return await one(connection, statement)


async def get(
    connection: AsyncConnection, tenant_id: UUID, job_id: UUID, *, subscriber_id: UUID | None, lock: bool = False
) -> RowMapping | None:
    found = select(jobs).where(jobs.c.tenant_id == tenant_id, jobs.c.id == job_id)
    if subscriber_id is not None:
        found = found.where(jobs.c.filter["subscriber_id"].astext == str(subscriber_id))
    if lock:
        found = found.with_for_update()
    return await first(connection, found)


async def page(
    connection: AsyncConnection, tenant_id: UUID, *, subscriber_id: UUID | None, before: UUID | None, limit: int
) -> list[RowMapping]:
    """Jobs, newest first."""
    rows = select(jobs).where(jobs.c.tenant_id == tenant_id)
    if subscriber_id is not None:
        rows = rows.where(jobs.c.filter["subscriber_id"].astext == str(subscriber_id))
    if before is not None:
        rows = rows.where(jobs.c.id < before)
    return await every(connection, rows.order_by(jobs.c.id.desc()).limit(limit))


async def cancel(connection: AsyncConnection, tenant_id: UUID, job_id: UUID) -> RowMapping | None:
    """Stops an open job where it is, or None where it was finished. What it has replayed stays replayed."""
    statement = (
        update(jobs)
        .where(jobs.c.tenant_id == tenant_id, jobs.c.id == job_id, jobs.c.state.in_(OPEN))
        .values(state="cancelled", finished_at=func.now())
        .returning(jobs)
    )
    return await first(connection, statement)


async def run_some(connection: Connection, limit: int) -> int | None:
    """Replays up to ``limit`` deliveries of the oldest open job, in one transaction.

    Returns:
        How many were queued, or None where there is no open job that nobody else is at.
    """
    async with connection.transaction():
        job = await connection.fetchrow(OLDEST)
        if job is None:
            return None
        wanted = json.loads(job["filter"])
        await connection.execute(PLANNED_ANEW)
        rows = await connection.fetch(
            NEXT,
            job["tenant_id"],
            job["cursor"] or _LOWEST,
            job["id"],
            _bound(wanted.get("since"), _LOWEST),
            _bound(wanted.get("until"), _HIGHEST),
            _uuid(wanted.get("endpoint_id")),
            _uuid(wanted.get("subscriber_id")),
            wanted.get("type"),
            wanted["state"],
            limit,
            wanted.get("to_other_hosts", False),
        )
        now = await connection.fetchval(TIME)
        # As one round trip, or a job of a million deliveries would wait for the network most of the time.
        await connection.executemany(
            outbox.ENQUEUE_FOR_ONE,
            [
                (job["tenant_id"], row["event_id"], row["type"], row["endpoint_id"], id_at(now), "replay")
                for row in rows
            ],
        )
        state = "running" if len(rows) == limit else "done"
        await connection.execute(ADVANCE, job["id"], state, rows[-1]["id"] if rows else None, len(rows))
    return len(rows)


def _bound(written: str | None, otherwise: UUID) -> UUID:
    return otherwise if written is None else first_id(datetime.fromisoformat(written))


def _uuid(written: str | None) -> UUID | None:
    return None if written is None else UUID(written)
