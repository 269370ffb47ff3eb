"""How far behind the gateway is, in numbers: for the API's statistics, and for a scrape."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, Uuid, func, literal, literal_column, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.rules.matching import OPERATIONAL

from .driver import driver_of
from .lists import FEWEST, WALKED, endpoint_ids, recent_events
from .reports import COUNTED, Filter, constant, told
from .tables import deliveries, endpoints, events, finished_deliveries, outbox

MOST_ENDPOINTS = 50
RECENT_EVENTS = 200
COUNTED_TOGETHER = 20_000
"""Open deliveries of all endpoints that are read for one backlog, of each kind."""

BACKLOG = """
-- backlog: what is open for these endpoints. Nobody is sending what is overdue: its lease has ended, so it is counted
-- by the index alone. What a filter has yet to be asked about is told to the hospital only
SELECT e.id AS endpoint_id, count(*) AS open, count(*) FILTER (WHERE sending) AS sending,
       count(*) FILTER (WHERE due_at IS NULL) AS waiting,
       greatest(extract(epoch FROM now() - min(due_at) FILTER (WHERE NOT sending)), 0)::float8 AS oldest_due_seconds
FROM unnest($1::uuid[]) AS e(id) CROSS JOIN LATERAL (
    (SELECT due_at, false AS sending FROM deliveries
     WHERE endpoint_id = e.id AND due_at <= now() AND ($3 OR unfiltered IS NOT TRUE) ORDER BY due_at LIMIT $2)
    UNION ALL
    (SELECT due_at, lease_id IS NOT NULL FROM deliveries
     WHERE endpoint_id = e.id AND due_at > now() AND ($3 OR unfiltered IS NOT TRUE) ORDER BY due_at LIMIT $2)
    UNION ALL
    (SELECT due_at, false FROM deliveries
     WHERE endpoint_id = e.id AND due_at IS NULL AND ($3 OR unfiltered IS NOT TRUE) LIMIT $2)
) AS o
GROUP BY e.id ORDER BY open DESC, e.id
"""


async def backlog(
    connection: AsyncConnection, tenant_id: UUID, subscriber_id: UUID | None, endpoint_id: UUID | None = None
) -> tuple[list[dict[str, Any]], int]:
    """By endpoint, the largest backlog first: pending, sending and waiting deliveries, and the oldest due one's age.

    Of each endpoint so many that are overdue are read at most, so many not due yet, and so many that wait.
    """
    theirs = await endpoint_ids(connection, Filter(tenant_id, subscriber_id, endpoint_id))
    most = max(FEWEST, min(COUNTED, COUNTED_TOGETHER // max(len(theirs), 1)))
    rows = await (await driver_of(connection)).fetch(BACKLOG, theirs, most, subscriber_id is None)
    return list(map(dict, rows)), most


async def outbox_waiting(connection: AsyncConnection, tenant_id: UUID) -> int:
    """The tenant's events that are not fanned out yet, counted up to `COUNTED`."""
    rows: Select[Any] = select(literal_column("1")).where(outbox.c.tenant_id == tenant_id)
    return int(await connection.scalar(select(func.count()).select_from(rows.limit(COUNTED).subquery())) or 0)


async def died_since(connection: AsyncConnection, tenant_id: UUID, subscriber_id: UUID | None, since: datetime) -> int:
    """Deliveries, not tests, that died since then and weren't replayed, of the last `WALKED` that weren't delivered."""
    ended = finished_deliveries.c
    recent = (
        select(ended.state, ended.state_reason, ended.reason, ended.endpoint_id)
        .where(ended.tenant_id == tenant_id, ended.state != constant("delivered"), ended.finished_at >= since)
        .where(ended.replayed_as.is_(None))
    )
    last = recent.order_by(ended.finished_at.desc()).limit(WALKED).subquery("r")
    wanted = Filter(tenant_id, subscriber_id)
    is_real = last.c.reason.is_distinct_from("test")
    rows = select(func.count()).select_from(last).where(last.c.state == "dead", is_real, *told(wanted, last))
    if subscriber_id is not None:
        rows = rows.where(last.c.endpoint_id.in_(await endpoint_ids(connection, wanted)))
    return int(await connection.scalar(rows) or 0)


async def unmatched_of_recent(connection: AsyncConnection, tenant_id: UUID) -> int:
    """How many of the hospital's last `RECENT_EVENTS` events no endpoint wanted."""
    reached = await recent_events(connection) or UUID(int=0)
    recent = (
        select(events.c.id)
        .where(
            events.c.id >= literal(reached, Uuid),
            events.c.tenant_id == tenant_id,
            ~events.c.type.startswith(OPERATIONAL),
        )
        .order_by(events.c.id.desc())
        .limit(RECENT_EVENTS)
        .subquery("e")
    )
    somewhere = [
        select(literal_column("1")).where(table.c.event_id == recent.c.id).exists() for table in (outbox, deliveries)
    ]
    # A delivery is younger than its event: older partitions are not looked at.
    finished = (
        select(literal_column("1"))
        .where(finished_deliveries.c.event_id == recent.c.id, finished_deliveries.c.id > recent.c.id)
        .exists()
    )
    rows = select(func.count()).select_from(recent).where(~or_(*somewhere, finished))
    return int(await connection.scalar(rows) or 0)


async def gauges(connection: AsyncConnection) -> Row[Any]:
    """The whole database at one glance, for a scrape."""
    statement = text(
        """
        -- gauges: what a scrape shows of the database
        SELECT (SELECT count(*) FROM outbox) AS outbox_depth,
               (SELECT count(*) FROM deliveries) AS open_deliveries,
               (SELECT count(*) FROM deliveries WHERE due_at IS NULL) AS waiting_deliveries,
               (SELECT coalesce(extract(epoch FROM max(now() - xact_start)), 0) FROM pg_stat_activity
                WHERE datname = current_database() AND xact_start IS NOT NULL) AS oldest_transaction_seconds,
               (SELECT count(*) FROM endpoint_health WHERE open_until > now()) AS breakers_open,
               (SELECT count(*) FROM endpoint_health WHERE open_until <= now()) AS breakers_half_open,
               (SELECT count(*) FROM held_keys) AS held_keys,
               (SELECT coalesce(max(sealed), 0) FROM data_keys
                WHERE id IN (SELECT max(id) FROM data_keys WHERE purpose = 'seal' GROUP BY tenant_id)) AS sealed,
               (SELECT count(*) FROM workers WHERE seen_at > now() - interval '1 minute') AS workers,
               (SELECT (paused_at IS NOT NULL)::int FROM configuration) AS sending_paused
        """
    )
    return (await connection.execute(statement)).one()


async def endpoint_states(connection: AsyncConnection) -> dict[str, int]:
    """How many endpoints are in each state."""
    rows = select(endpoints.c.state, func.count()).where(endpoints.c.deleted_at.is_(None)).group_by(endpoints.c.state)
    return dict(tuple(row) for row in await connection.execute(rows))


async def dead_tuples(connection: AsyncConnection) -> dict[str, int]:
    """By hot table: rows that vacuum has yet to clear away. A transaction left open makes them grow."""
    rows = text(
        "SELECT relname, n_dead_tup FROM pg_stat_user_tables"
        " WHERE relname IN ('outbox', 'deliveries', 'endpoint_health', 'idempotency_keys')"
    )
    return dict(tuple(row) for row in await connection.execute(rows))
