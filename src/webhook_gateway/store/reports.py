"""What operators ask: which deliveries there are, and what became of them.

Ids are UUIDv7, so a range of time is a range of ids: lists read one index backwards, and whole partitions are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    FromClause,
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
    union_all,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from webhook_gateway.rules.waiting import why_in_outbox

from .driver import driver_of
from .finished import NOT_WANTED
from .rows import every, first
from .tables import attempts, deliveries, endpoints, events, finished_deliveries, kept_bodies, outbox
from .waiting import OPEN_STATES, explained, workers_alive

COUNTED = 10_000
"""A count goes no further: a backlog of ten thousand is a backlog."""
FINAL_STATES = ("delivered", "dead", "cancelled")

_NOT_SHOWN = {"response_excerpt", "response_sha256", "tenant_id", "delivery_id", "revision", "body_digest"}

_SHOWN = (
    *("id", "endpoint_id", "event_id", "type", "state", "state_reason", "reason", "attempt", "due_at"),
    *("ordering_key", "in_outbox", "created_at", "finished_at", "replayed_as"),
)
_Time = TIMESTAMP(timezone=True)
_ABSENT: dict[str, TypeEngine[Any]] = {
    "state_reason": Text(),
    "due_at": _Time,
    "created_at": _Time,
    "finished_at": _Time,
    "replayed_as": Uuid(),
}


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

    @property
    def whose(self) -> Filter:
        """All that whoever asks may see."""
        return Filter(self.tenant_id, self.subscriber_id)

    @property
    def sides(self) -> tuple[bool, bool]:
        """Whether it may want what is open, and what has ended."""
        return self.state in (None, *OPEN_STATES), self.state in (None, *FINAL_STATES)


def first_id(moment: datetime) -> UUID:
    """The lowest UUIDv7 of a millisecond: ids made before it are lower (RFC 9562, section 5.7)."""
    milliseconds = min(max(int(moment.timestamp() * 1000), 0), (1 << 48) - 1)
    return UUID(int=milliseconds << 80)


async def delivery(connection: AsyncConnection, wanted: Filter, delivery_id: UUID) -> dict[str, Any] | None:
    """One delivery with what it waits for, also a replay that is still on its way through the outbox."""
    in_outbox = _shown(
        outbox,
        id=outbox.c.delivery_id,
        state=literal("pending", Text),
        attempt=literal_column("0"),
        in_outbox=literal_column("true"),
    ).where(outbox.c.delivery_id == delivery_id, *owned(outbox, wanted))
    both = union_all(
        open_rows().where(deliveries.c.id == delivery_id, *owned(deliveries, wanted)),
        finished_rows().where(finished_deliveries.c.id == delivery_id, *owned(finished_deliveries, wanted)),
        in_outbox,
    ).subquery("d")
    found = await _explained(connection, both, wanted)
    return found[0] if found else None


async def attempts_of(connection: AsyncConnection, tenant_id: UUID, delivery_id: UUID) -> list[RowMapping]:
    """Its requests, first one first, without what partners answered."""
    rows = attempt_columns().where(attempts.c.delivery_id == delivery_id, attempts.c.tenant_id == tenant_id)
    return await every(connection, rows.order_by(attempts.c.id))


def attempt_columns() -> Select[Any]:
    return select(*(column for column in attempts.c if column.name not in _NOT_SHOWN))


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


async def event(connection: AsyncConnection, tenant_id: UUID, event_id: UUID) -> dict[str, Any] | None:
    """One event without its body; ``waiting_for`` says why while it is in the outbox.

    ``kept_apart`` where its day has gone, and only what is open of it may still be sent.
    """
    in_outbox = (
        select(literal_column("1"))
        .where(outbox.c.event_id == event_id, outbox.c.tenant_id == tenant_id, outbox.c.endpoint_id.is_(None))
        .exists()
    )
    for table in (events, kept_bodies):
        found = event_columns(table).add_columns(in_outbox.label("in_outbox"))
        row = await first(connection, found.where(table.c.tenant_id == tenant_id, table.c.id == event_id))
        if row is not None:
            break
    else:
        return None
    waiting = why_in_outbox(await workers_alive(await driver_of(connection))) if row["in_outbox"] else None
    return {**row, "waiting_for": None if waiting is None else waiting.reason, "kept_apart": table is kept_bodies}


async def body(connection: AsyncConnection, tenant_id: UUID, event_id: UUID) -> bytes | None:
    """The sealed body."""
    of_both = (
        select(table.c.body).where(table.c.tenant_id == tenant_id, table.c.id == event_id)
        for table in (events, kept_bodies)
    )
    sealed: bytes | None = await connection.scalar(union_all(*of_both))
    return sealed


@cache
def open_rows() -> Select[Any]:
    is_sending = and_(deliveries.c.lease_id.is_not(None), deliveries.c.due_at > func.now())
    return _shown(deliveries, state=case((is_sending, "sending"), else_="pending"))


@cache
def finished_rows() -> Select[Any]:
    return _shown(finished_deliveries)


def _shown(table: FromClause, **instead: ColumnElement[Any]) -> Select[Any]:
    """A delivery's columns, the same of each table: what one doesn't have is null, or what is given ``instead``."""
    absent: dict[str, ColumnElement[Any]] = {
        name: null().cast(kind) for name, kind in _ABSENT.items() if name not in table.c
    }
    made: dict[str, ColumnElement[Any]] = {"in_outbox": literal_column("false"), **absent, **instead}
    return select(*(made[name].label(name) if name in made else table.c[name] for name in _SHOWN))


def event_columns(table: FromClause = events) -> Select[Any]:
    return select(table.c.id, table.c.type, table.c.occurred_at, table.c.accepted_at, table.c.size, table.c.addressees)


async def _explained(connection: AsyncConnection, found: FromClause, wanted: Filter) -> list[dict[str, Any]]:
    """Newest first, with what each waits for."""
    rows = await every(connection, newest_first(select(*found.c), 1))
    return await explained(await driver_of(connection), rows, unfiltered=wanted.subscriber_id is None)


def newest_first(rows: Select[Any], limit: int) -> Select[Any]:
    return rows.order_by(literal_column("id").desc()).limit(limit)


def narrow(rows: Select[Any], table: FromClause, wanted: Filter, before: UUID | None) -> Select[Any]:
    rows = rows.where(*owned(table, wanted), *between(table, wanted.since, wanted.until, before))
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
            rows = rows.where(table.c.state == constant(wanted.state))
        case _:
            pass
    return rows


def told(wanted: Filter, ended: FromClause = finished_deliveries) -> list[ColumnElement[bool]]:
    """Of finished deliveries: what a filter kept back is unknown to a partner's key, as if it had never been made."""
    return [] if wanted.subscriber_id is None else [ended.c.state_reason.is_distinct_from(NOT_WANTED)]


def asked(wanted: Filter) -> list[ColumnElement[bool]]:
    """Of open deliveries: the same of what a filter has yet to be asked about."""
    return [] if wanted.subscriber_id is None else [deliveries.c.unfiltered.is_distinct_from(True)]


def owned(table: FromClause, wanted: Filter) -> list[ColumnElement[bool]]:
    """The tenant's rows, and of those only what goes to the subscriber's endpoints, where there is one."""
    conditions: list[ColumnElement[bool]] = [table.c.tenant_id == wanted.tenant_id]
    if wanted.subscriber_id is not None:
        theirs = select(endpoints.c.id).where(
            endpoints.c.tenant_id == wanted.tenant_id, endpoints.c.subscriber_id == wanted.subscriber_id
        )
        conditions.append(table.c.endpoint_id.in_(theirs))
    if table is finished_deliveries:
        conditions += told(wanted)
    return conditions + (asked(wanted) if table is deliveries else [])


def between(
    table: FromClause, since: datetime | None, until: datetime | None, before: UUID | None
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if since is not None:
        conditions.append(table.c.id >= literal(first_id(since), Uuid))
    if until is not None:
        conditions.append(table.c.id < _end(table, first_id(until)))
    if before is not None:
        conditions.append(table.c.id < _end(table, before))
    return conditions


def _end(table: FromClause, id: UUID) -> ColumnElement[UUID]:
    """A subquery, which the planner can't look into: between two ids that it knows, and no bound of its histogram, it
    expects one row, and may walk over all that are there for each endpoint. Events have no other index."""
    end = literal(id, Uuid)
    return end if table is events else select(end).scalar_subquery()


def constant(value: str) -> ColumnElement[str]:
    """In the statement's text, so that a generic plan may use the index of what wasn't delivered."""
    return literal(value, Text, literal_execute=True)
