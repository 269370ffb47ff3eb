"""Sending again: one delivery at once, or many as a job that a worker carries out bit by bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import uuid_utils.compat as uuid_utils
from sqlalchemy import RowMapping, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.rules.views import view_of

from . import outbox
from .clock import TIME, id_at, new_id
from .database import Connection
from .driver import driver_of
from .finished import NOT_WANTED
from .outbox import Appended
from .permission import fits
from .reports import first_id
from .rows import every, first, one
from .tables import jobs

OPEN = ("pending", "running")
MET = ("outcome", "status", "detail")
"""What a job may ask for of the last attempt."""
WALKED = 5_000
"""Finished deliveries that a job reads in one transaction."""
MOST_WALKED = 50_000
"""Finished deliveries that are read at most to count what a job would send again."""

STORE_EVENT = """
-- store an event that is for one endpoint only: it goes into the outbox for that endpoint
INSERT INTO events (id, tenant_id, type, occurred_at, size, body) VALUES ($1, $2, $3, $4, $5, $6)
"""

NEXT_JOB = """
-- next job: of the open ones that which waits longest for its turn. Whichever worker has it locked is at it
SELECT id, tenant_id, filter, cursor, created_at FROM jobs
WHERE kind = $1 AND state IN ('pending', 'running') AND coalesce(due_at <= now(), true)
ORDER BY coalesce(due_at, created_at), id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
"""

_COLUMNS = (
    "id, tenant_id, endpoint_id, event_id, type, ordering_key, state, state_reason, reason, replayed_as, finished_at"
)

_JOINED = """
JOIN endpoints e ON e.id = f.endpoint_id AND e.deleted_at IS NULL AND e.state <> 'disabled'
JOIN subscribers s ON s.id = e.subscriber_id
"""

_WANTED = f"""
f.tenant_id = $1 AND f.id > $2 AND f.id < $3 AND ($4::uuid IS NULL OR f.endpoint_id = $4)
AND ($5::uuid IS NULL OR e.subscriber_id = $5) AND ($6::text IS NULL OR f.type = $6) AND f.state = $7
AND f.replayed_as IS NULL AND f.state_reason IS DISTINCT FROM '{NOT_WANTED}' AND f.reason IS DISTINCT FROM 'test'
AND {fits("f.type", "s.event_types")} AND (e.event_types = '{{}}' OR {fits("f.type", "e.event_types")})
"""
"""What of finished deliveries is replayed: an endpoint that is gone, disabled or may not have it gets nothing, a test
has had its time, and what was replayed already is left to that one."""

_KNOWN = """
CROSS JOIN LATERAL (
    SELECT (SELECT accepted_at FROM events WHERE id = f.event_id LIMIT 1) AS accepted_at,
           (SELECT bool_or(d.id > f.id) FROM finished_deliveries d
            WHERE d.event_id = f.event_id AND d.endpoint_id = f.endpoint_id AND d.id > f.event_id
              AND d.state = 'delivered') AS delivered_since
    OFFSET 0
) AS known
"""
"""Null where its body is no longer kept, and where it was never delivered. A delivery is younger than its event."""

_LEFT = """
known.delivered_since IS NOT TRUE
AND ($8 OR host_changed_at IS NULL OR accepted_at IS NULL OR accepted_at > host_changed_at)
AND ($9::jsonb IS NULL OR $9 <@ (SELECT jsonb_build_object('outcome', outcome, 'status', status::text, 'detail', detail)
                                 FROM attempts WHERE delivery_id = f.id ORDER BY id DESC LIMIT 1))
"""
"""Not what was delivered since; what came before the endpoint got another host goes there only for who may read it; and
where it is asked for, only what the last attempt met."""

NEXT = f"""
-- next of a job: of a slice of finished deliveries, in the order of their ids, the first that are to be sent again, and
-- how many are whose body is gone. What was made after the job itself is left out, or a job that replays what dies
-- would never end.
WITH walked AS MATERIALIZED (
    SELECT {_COLUMNS} FROM finished_deliveries
    WHERE id > $2 AND id < $3 AND ($4::uuid IS NULL OR tenant_id = $1 AND endpoint_id = $4) ORDER BY id LIMIT $11
), candidates AS MATERIALIZED (
    SELECT f.id, f.event_id, f.endpoint_id, e.host_changed_at FROM walked f {_JOINED} WHERE {_WANTED}
    ORDER BY f.id LIMIT $10
), found AS MATERIALIZED (
    SELECT f.id, known.accepted_at IS NULL AS gone FROM candidates f {_KNOWN} WHERE {_LEFT}
)
SELECT array(SELECT id FROM found WHERE NOT gone ORDER BY id) AS ids,
       (SELECT count(*) FROM found WHERE gone) AS missing, are_many OR (SELECT count(*) FROM walked) = $11 AS more,
       CASE WHEN are_many THEN (SELECT id FROM candidates ORDER BY id DESC LIMIT 1)
            ELSE (SELECT id FROM walked ORDER BY id DESC LIMIT 1) END AS reached
FROM (SELECT count(*) = $10 AS are_many FROM candidates) AS counted
"""


def _preview(rows: str) -> str:
    return f"""
-- preview: what a job would send again, counted up to a limit, of so many rows that are read
WITH walked AS MATERIALIZED ({rows} LIMIT {MOST_WALKED} + 1), found AS MATERIALIZED (
    SELECT f.endpoint_id, f.ordering_key, e.rate, known.*, jsonb_build_array(s.content, e.content) AS content, (
        SELECT jsonb_build_array(permitted_content, content) FROM endpoint_revisions r
        WHERE r.endpoint_id = f.endpoint_id AND r.at <= f.finished_at ORDER BY revision DESC LIMIT 1) AS content_then
    FROM walked f {_JOINED} {_KNOWN} WHERE {_WANTED} AND {_LEFT} LIMIT $10 + 1
), kept AS (
    SELECT * FROM found WHERE accepted_at IS NOT NULL LIMIT $10
)
SELECT count(*) AS count, (SELECT count(*) FROM found WHERE accepted_at IS NULL) AS missing,
       (SELECT count(*) FROM found) > $10 OR (SELECT count(*) FROM walked) > {MOST_WALKED} AS more,
       count(*) FILTER (WHERE delivered_since IS NOT NULL) AS second_deliveries,
       min(accepted_at) AS oldest, max(accepted_at) AS newest,
       count(DISTINCT (endpoint_id, ordering_key)) FILTER (WHERE ordering_key IS NOT NULL) AS ordering_keys,
       (SELECT jsonb_agg(o)::text FROM (SELECT count(*) AS n, content_then AS "then", content AS now FROM kept
        WHERE content_then <> content GROUP BY content_then, content) o) AS contents,
       (SELECT max(n / rate / 60) FROM (SELECT count(*) AS n, rate FROM kept GROUP BY endpoint_id, rate) o) AS minutes
FROM kept
"""


_IN_TIME = "finished_at > coalesce($11::timestamptz, '-infinity')"
NOT_DELIVERED = _preview(
    f"SELECT {_COLUMNS} FROM finished_deliveries WHERE tenant_id = $1 AND state <> 'delivered' AND {_IN_TIME}"
)
"""By the index of what is dead or cancelled."""
OF_EACH = _preview(f"""
    SELECT d.* FROM endpoints one CROSS JOIN LATERAL (
        SELECT {_COLUMNS} FROM finished_deliveries
        WHERE tenant_id = $1 AND endpoint_id = one.id AND id > $2 AND id < $3 AND {_IN_TIME} LIMIT {MOST_WALKED} + 1
    ) AS d
    WHERE one.tenant_id = $1 AND one.deleted_at IS NULL AND ($4::uuid IS NULL OR one.id = $4)
      AND ($5::uuid IS NULL OR one.subscriber_id = $5)""")
"""By the index of each endpoint's."""

SEND_AGAIN = """
-- send again: each of these finished deliveries once, whoever asks for it first: the others wait for its row
WITH marked AS (
    UPDATE finished_deliveries f SET replayed_as = n.new_id
    FROM unnest($1::uuid[], $2::uuid[]) AS n(id, new_id)
    WHERE f.id = n.id AND f.replayed_as IS NULL
    RETURNING f.*
)
INSERT INTO outbox (tenant_id, event_id, type, endpoint_id, delivery_id, reason)
SELECT tenant_id, event_id, type, endpoint_id, replayed_as, CASE reason WHEN 'test' THEN reason ELSE 'replay' END
FROM marked ORDER BY id
RETURNING delivery_id
"""

PLANNED_ANEW = "SET LOCAL plan_cache_mode = force_custom_plan"
"""`NEXT` asks for one endpoint or for all of them: no one plan is right for both."""

ADVANCE = """
-- advance a job: in the transaction of what it has just queued; it has its next turn after so many seconds
UPDATE jobs SET state = $2, cursor = coalesce($3, cursor), done = done + $4, missing = missing + $5,
                due_at = now() + make_interval(secs => $6), finished_at = CASE WHEN $2 <> 'running' THEN now() END
WHERE id = $1
"""

_LOWEST, _HIGHEST = UUID(int=0), UUID(int=(1 << 128) - 1)


async def replay(connection: Connection, delivery_ids: Sequence[UUID]) -> list[UUID]:
    """Queues finished deliveries again and returns the ids that the new ones will have: none for who was replayed."""
    now = await connection.fetchval(TIME)
    rows = await connection.fetch(SEND_AGAIN, delivery_ids, [id_at(now) for _ in delivery_ids])
    return [row["delivery_id"] for row in rows]


async def preview(connection: Connection, tenant_id: UUID, wanted: Mapping[str, Any], most: int) -> dict[str, Any]:
    """What a job would send again: the exact ``count`` up to ``most``, with ``more`` where it was counted no further.

    In the caller's transaction. See `create` for what is ``wanted``, and `NEXT` for what a job does of it.
    """
    await connection.execute("SET LOCAL jit = off")
    # Nothing ends before it is made, but for clocks.
    since = datetime.fromisoformat(wanted["since"]) - timedelta(days=1) if "since" in wanted else None
    ways = [NOT_DELIVERED, OF_EACH] if wanted["state"] != "delivered" else [OF_EACH]
    for way in ways:
        (row,) = await connection.fetch(way, *selection(tenant_id, wanted, bounds(wanted)), most, since)
        if not row["more"]:
            break
    counted = dict(row)
    changed = json.loads(counted.pop("contents") or "[]")
    wider = sum(one["n"] for one in changed if not view_of(*one["now"]).is_within(view_of(*one["then"])))
    return {**counted, "wider": wider}


async def send_only_to(connection: AsyncConnection, event: Appended, endpoint_id: UUID) -> UUID:
    """Stores a test event for one endpoint, and returns the id that its delivery will have."""
    driver = await driver_of(connection)
    await driver.execute(STORE_EVENT, event.id, event.tenant_id, event.type, event.occurred_at, event.size, event.body)
    delivery_id = await new_id(driver)
    about = (event.tenant_id, event.id, event.type, endpoint_id, delivery_id)
    await driver.execute(outbox.ENQUEUE_FOR_ONE, *about, "test")
    return delivery_id


async def create(
    connection: AsyncConnection, tenant_id: UUID, kind: str, wanted: Mapping[str, Any], total: int | None
) -> RowMapping:
    """A job over finished deliveries, or events, of which there are ``total`` now, if they were counted.

    ``wanted`` may have ``endpoint_id``, ``to_subscriber_id``, ``type``, ``since``, ``until``, ``subscriber_id`` if it
    is a partner's own job, ``event_id`` of a backfill, and a replay has ``state`` and ``to_other_hosts``, and perhaps
    some of `MET`. All as JSON can hold them.
    """
    values = {"id": uuid_utils.uuid7(), "tenant_id": tenant_id, "kind": kind, "filter": dict(wanted), "total": total}
    return await one(connection, insert(jobs).values(**values).returning(jobs))


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


async def next_job(connection: Connection, kind: str) -> Any:
    """The next open job that nobody else is at, locked, with what it wants; None where there is none."""
    return await connection.fetchrow(NEXT_JOB, kind)


async def advance(
    connection: Connection,
    job_id: UUID,
    state: str,
    reached: UUID | None = None,
    *,
    done: int = 0,
    missing: int = 0,
    wait: float = 0.0,
) -> None:
    """Notes up to where a job has come, and with what; it has its next turn after ``wait`` seconds."""
    await connection.execute(ADVANCE, job_id, state, reached, done, missing, wait)


async def run_some(connection: Connection, limit: int) -> int | None:
    """Replays up to ``limit`` deliveries of the next open job, in one transaction.

    Returns:
        How many were queued, or None where there is no open job that nobody else is at.
    """
    async with connection.transaction():
        job = await next_job(connection, "replay")
        if job is None:
            return None
        wanted = json.loads(job["filter"])
        await connection.execute(PLANNED_ANEW)
        between = bounds(wanted, job["cursor"], job["id"])
        (found,) = await connection.fetch(NEXT, *selection(job["tenant_id"], wanted, between), limit, WALKED)
        done = len(await replay(connection, found["ids"]))
        state = "running" if found["more"] else "done"
        await advance(connection, job["id"], state, found["reached"], done=done, missing=found["missing"])
    return done


def bounds(wanted: Mapping[str, Any], after: UUID | None = None, before: UUID = _HIGHEST) -> tuple[UUID, UUID]:
    """The ids that what is wanted is between: later than ``after``, where a job has come, and made ``before`` it."""
    since, until = (
        None if name not in wanted else first_id(datetime.fromisoformat(wanted[name])) for name in ("since", "until")
    )
    low = _LOWEST if since is None else UUID(int=max(since.int - 1, 0))
    if "event_id" in wanted:  # of a backfill
        only = UUID(wanted["event_id"]).int
        low, until = max(low, UUID(int=max(only - 1, 0))), min(until or _HIGHEST, UUID(int=min(only + 1, _HIGHEST.int)))
    return max(low, after or _LOWEST), min(before, until or _HIGHEST)


def selection(tenant_id: UUID, wanted: Mapping[str, Any], between: tuple[UUID, UUID]) -> list[object]:
    """The first parameters of `NEXT` and of previews."""
    subscriber_id = wanted.get("subscriber_id", wanted.get("to_subscriber_id"))
    met = {name: wanted[name] for name in MET if name in wanted}
    return [
        *(tenant_id, *between),
        *(id and UUID(id) for id in (wanted.get("endpoint_id"), subscriber_id)),
        *(wanted.get("type"), wanted["state"], wanted.get("to_other_hosts", False), json.dumps(met) if met else None),
    ]
