"""What operators ask: which deliveries there are, what became of them, how far behind the gateway is.

Ids are UUIDv7, so a range of time is a range of ids: lists read one index backwards, and whole partitions are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Row,
    RowMapping,
    Select,
    Text,
    Uuid,
    and_,
    case,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.rules.matching import OPERATIONAL

from .rows import every, first
from .tables import attempts, deliveries, endpoints, events, finished_deliveries, outbox

MOST_ENDPOINTS = 50
COUNTED = 1_000_000
"""A count goes no further: a backlog of a million is a backlog."""
RECENT_EVENTS = 200
OPEN_STATES = ("pending", "sending")
FINAL_STATES = ("delivered", "dead", "cancelled")

_Time = TIMESTAMP(timezone=True)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries; None asks for all. ``since`` and ``until`` bound when a delivery was made."""

    tenant_id: UUID
    subscriber_id: UUID | None = None
    endpoint_id: UUID | None = None
    event_id: UUID | None = None
    type: str | None = None
    state: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def first_id(moment: datetime) -> UUID:
    """The lowest UUIDv7 of a millisecond: ids made before it are lower (RFC 9562, section 5.7)."""
    milliseconds = min(max(int(moment.timestamp() * 1000), 0), (1 << 48) - 1)
    return UUID(int=milliseconds << 80)


async def deliveries_page(
    connection: AsyncConnection, wanted: Filter, *, before: UUID | None, limit: int
) -> list[RowMapping]:
    """Open and finished deliveries, newest first, from below the id ``before``."""
    sources: list[Select[Any]] = []
    if wanted.state is None or wanted.state in OPEN_STATES:
        sources.append(_narrow(_open(), deliveries, wanted, before))
    if wanted.state is None or wanted.state in FINAL_STATES:
        sources.append(_narrow(_finished(), finished_deliveries, wanted, before))
    # Each side brings at most a page, so neither table is read further than its index has to be.
    limited = [source.order_by(literal_column("id").desc()).limit(limit).subquery() for source in sources]
    both = union_all(*(select(side) for side in limited)).subquery("d")
    return await _with_endpoint(connection, both, limit)


async def delivery(connection: AsyncConnection, wanted: Filter, delivery_id: UUID) -> RowMapping | None:
    """One delivery, also a replay that is still on its way through the outbox."""
    in_outbox = select(
        outbox.c.delivery_id.label("id"),
        outbox.c.endpoint_id,
        outbox.c.event_id,
        outbox.c.type,
        literal("pending", Text).label("state"),
        null().cast(Text).label("state_reason"),
        outbox.c.reason,
        literal_column("0").label("attempt"),
        null().cast(_Time).label("due_at"),
        literal("fan_out", Text).label("waiting_for"),
        null().cast(_Time).label("created_at"),
        null().cast(_Time).label("finished_at"),
    ).where(outbox.c.delivery_id == delivery_id, *_owned(outbox, wanted))
    both = union_all(
        _open().where(deliveries.c.id == delivery_id, *_owned(deliveries, wanted)),
        _finished().where(finished_deliveries.c.id == delivery_id, *_owned(finished_deliveries, wanted)),
        in_outbox,
    ).subquery("d")
    found = await _with_endpoint(connection, both, 1)
    return found[0] if found else None


async def attempts_of(connection: AsyncConnection, tenant_id: UUID, delivery_id: UUID) -> list[RowMapping]:
    """Its requests, first one first, without what partners answered."""
    shown = [column for column in attempts.c if column.name not in {"response_excerpt", "tenant_id", "delivery_id"}]
    rows = select(*shown).where(attempts.c.delivery_id == delivery_id, attempts.c.tenant_id == tenant_id)
    return await every(connection, rows.order_by(attempts.c.id))


async def responses_of(connection: AsyncConnection, tenant_id: UUID, delivery_id: UUID) -> list[RowMapping]:
    """What is kept of partners' answers, sealed, first attempt first."""
    rows = select(
        attempts.c.id, attempts.c.attempt, attempts.c.status, attempts.c.response_type, attempts.c.response_excerpt
    ).where(
        attempts.c.delivery_id == delivery_id,
        attempts.c.tenant_id == tenant_id,
        attempts.c.response_excerpt.is_not(None),
    )
    return await every(connection, rows.order_by(attempts.c.id))


async def events_page(
    connection: AsyncConnection,
    tenant_id: UUID,
    *,
    type: str | None,
    since: datetime | None,
    until: datetime | None,
    before: UUID | None,
    limit: int,
) -> list[RowMapping]:
    """Accepted events, newest first, without their bodies."""
    rows = _event().where(events.c.tenant_id == tenant_id)
    if type is not None:
        rows = rows.where(events.c.type == type)
    rows = rows.where(*_between(events, since, until, before))
    return await every(connection, rows.order_by(events.c.id.desc()).limit(limit))


async def event(connection: AsyncConnection, tenant_id: UUID, event_id: UUID) -> RowMapping | None:
    """One event without its body; ``waiting`` while it is in the outbox."""
    in_outbox = (
        select(literal_column("1"))
        .where(outbox.c.event_id == event_id, outbox.c.tenant_id == tenant_id, outbox.c.endpoint_id.is_(None))
        .exists()
    )
    found = _event().add_columns(in_outbox.label("waiting"))
    found = found.where(events.c.tenant_id == tenant_id, events.c.id == event_id)
    return await first(connection, found)


async def body(connection: AsyncConnection, tenant_id: UUID, event_id: UUID) -> bytes | None:
    """The sealed body."""
    found = select(events.c.body).where(events.c.tenant_id == tenant_id, events.c.id == event_id)
    sealed: bytes | None = await connection.scalar(found)
    return sealed


async def is_of_subscriber(connection: AsyncConnection, wanted: Filter) -> bool:
    """Whether the event of the filter was fanned out to an endpoint of its subscriber."""
    return bool(await deliveries_page(connection, wanted, before=None, limit=1))


async def backlog(connection: AsyncConnection, tenant_id: UUID, subscriber_id: UUID | None) -> list[RowMapping]:
    """By endpoint, the largest backlog first: pending, sending and waiting deliveries, and the oldest due one's age."""
    sending = and_(deliveries.c.lease_id.is_not(None), deliveries.c.due_at > func.now())
    waiting = deliveries.c.due_at.is_(None)
    overdue = func.now() - func.min(case((sending, None), else_=deliveries.c.due_at))
    rows = (
        select(
            deliveries.c.endpoint_id,
            func.count().label("open"),
            func.count().filter(sending).label("sending"),
            func.count().filter(waiting).label("waiting"),
            func.greatest(func.extract("epoch", overdue), 0).label("oldest_due_seconds"),
        )
        .where(*_owned(deliveries, Filter(tenant_id, subscriber_id)))
        .group_by(deliveries.c.endpoint_id)
        .order_by(literal_column("open").desc(), deliveries.c.endpoint_id)
    )
    return await every(connection, rows)


async def outbox_waiting(connection: AsyncConnection, tenant_id: UUID | None) -> int:
    """Events not fanned out yet, counted up to a million; of every tenant where none is given."""
    rows: Select[Any] = select(literal_column("1")).select_from(outbox)
    if tenant_id is not None:
        rows = rows.where(outbox.c.tenant_id == tenant_id)
    return int(await connection.scalar(select(func.count()).select_from(rows.limit(COUNTED).subquery())) or 0)


async def finished_count(connection: AsyncConnection, wanted: Filter) -> int:
    """How many finished deliveries a filter finds, counted up to a million."""
    rows = _narrow(select(literal_column("1")), finished_deliveries, wanted, None)
    return int(await connection.scalar(select(func.count()).select_from(rows.limit(COUNTED).subquery())) or 0)


async def died_since(connection: AsyncConnection, tenant_id: UUID, subscriber_id: UUID | None, since: datetime) -> int:
    """Deliveries that have died since a moment."""
    rows: Select[Any] = select(literal_column("1")).where(
        finished_deliveries.c.state == _constant("dead"),
        finished_deliveries.c.state != _constant("delivered"),  # what its index is about
        finished_deliveries.c.finished_at >= since,
        *_owned(finished_deliveries, Filter(tenant_id, subscriber_id)),
    )
    return int(await connection.scalar(select(func.count()).select_from(rows.limit(COUNTED).subquery())) or 0)


async def unmatched_of_recent(connection: AsyncConnection, tenant_id: UUID) -> int:
    """How many of the hospital's last `RECENT_EVENTS` events no endpoint wanted."""
    recent = (
        select(events.c.id)
        .where(events.c.tenant_id == tenant_id, ~events.c.type.startswith(OPERATIONAL))
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
        SELECT (SELECT count(*) FROM deliveries) AS open_deliveries,
               (SELECT count(*) FROM deliveries WHERE due_at IS NULL) AS waiting_deliveries,
               (SELECT coalesce(extract(epoch FROM max(now() - xact_start)), 0) FROM pg_stat_activity
                WHERE datname = current_database() AND xact_start IS NOT NULL) AS oldest_transaction_seconds,
               (SELECT count(*) FROM endpoint_health WHERE open_until > now()) AS breakers_open,
               (SELECT count(*) FROM endpoint_health WHERE open_until <= now()) AS breakers_half_open,
               (SELECT count(*) FROM held_keys) AS held_keys,
               (SELECT count(*) FROM workers WHERE seen_at > now() - interval '1 minute') AS workers
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


def _open() -> Select[Any]:
    is_sending = and_(deliveries.c.lease_id.is_not(None), deliveries.c.due_at > func.now())
    return select(
        deliveries.c.id,
        deliveries.c.endpoint_id,
        deliveries.c.event_id,
        deliveries.c.type,
        case((is_sending, "sending"), else_="pending").label("state"),
        null().cast(Text).label("state_reason"),
        deliveries.c.reason,
        deliveries.c.attempt,
        case((is_sending, None), else_=deliveries.c.due_at).label("due_at"),
        case((deliveries.c.due_at.is_(None), "ordering_key")).label("waiting_for"),
        deliveries.c.created_at,
        null().cast(_Time).label("finished_at"),
    )


def _finished() -> Select[Any]:
    return select(
        finished_deliveries.c.id,
        finished_deliveries.c.endpoint_id,
        finished_deliveries.c.event_id,
        finished_deliveries.c.type,
        finished_deliveries.c.state,
        finished_deliveries.c.state_reason,
        finished_deliveries.c.reason,
        finished_deliveries.c.attempt,
        null().cast(_Time).label("due_at"),
        null().cast(Text).label("waiting_for"),
        finished_deliveries.c.created_at,
        finished_deliveries.c.finished_at,
    )


def _event() -> Select[Any]:
    return select(events.c.id, events.c.type, events.c.occurred_at, events.c.accepted_at, events.c.size)


async def _with_endpoint(connection: AsyncConnection, found: FromClause, limit: int) -> list[RowMapping]:
    """Adds what only the endpoint knows: whose it is, and whether its deliveries wait for it."""
    held_up = case(
        (and_(found.c.state == "pending", endpoints.c.state == "paused"), "endpoint_paused"),
        (and_(found.c.state == "pending", endpoints.c.state == "disabled"), "endpoint_disabled"),
        else_=found.c.waiting_for,
    )
    columns = [column for column in found.c if column.name != "waiting_for"]
    rows = (
        select(*columns, held_up.label("waiting_for"), endpoints.c.subscriber_id)
        .select_from(found.outerjoin(endpoints, endpoints.c.id == found.c.endpoint_id))
        .order_by(found.c.id.desc())
        .limit(limit)
    )
    return await every(connection, rows)


def _narrow(rows: Select[Any], table: FromClause, wanted: Filter, before: UUID | None) -> Select[Any]:
    rows = rows.where(*_owned(table, wanted), *_between(table, wanted.since, wanted.until, before))
    if wanted.endpoint_id is not None:
        rows = rows.where(table.c.endpoint_id == wanted.endpoint_id)
    if wanted.event_id is not None:
        rows = rows.where(table.c.event_id == wanted.event_id)
    if wanted.type is not None:
        rows = rows.where(table.c.type == wanted.type)
    match wanted.state:
        case "sending":
            rows = rows.where(table.c.lease_id.is_not(None), table.c.due_at > func.now())
        case "pending":
            rows = rows.where(or_(table.c.lease_id.is_(None), table.c.due_at <= func.now()))
        case "delivered" | "dead" | "cancelled":
            rows = rows.where(table.c.state == _constant(wanted.state))
        case _:
            pass
    return rows


def _owned(table: FromClause, wanted: Filter) -> list[ColumnElement[bool]]:
    """The tenant's rows, and of those only what goes to the subscriber's endpoints, where there is one."""
    conditions: list[ColumnElement[bool]] = [table.c.tenant_id == wanted.tenant_id]
    if wanted.subscriber_id is not None:
        theirs = select(endpoints.c.id).where(
            endpoints.c.tenant_id == wanted.tenant_id, endpoints.c.subscriber_id == wanted.subscriber_id
        )
        conditions.append(table.c.endpoint_id.in_(theirs))
    return conditions


def _between(
    table: FromClause, since: datetime | None, until: datetime | None, before: UUID | None
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if since is not None:
        conditions.append(table.c.id >= literal(first_id(since), Uuid))
    if until is not None:
        conditions.append(table.c.id < literal(first_id(until), Uuid))
    if before is not None:
        conditions.append(table.c.id < literal(before, Uuid))
    return conditions


def _constant(value: str) -> ColumnElement[str]:
    """In the statement's text, so that a generic plan may use the index of what wasn't delivered."""
    return literal(value, Text, literal_execute=True)
