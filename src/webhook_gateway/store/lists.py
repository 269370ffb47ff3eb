"""Lists of deliveries and events that stay cheap whatever stands in the tables and whoever asks.

No index has every filter, and one more would cost each event. So a list looks among the newest rows of all, then goes
by the indexes of endpoints, and to what is dead by an index that only that is in. Where a filter may find little, it
walks so many rows at most and says how far it came: the page is then short, or empty, and the next one begins there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Subquery,
    Uuid,
    any_,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from .driver import driver_of
from .reports import (
    Filter,
    asked,
    attempt_columns,
    between,
    constant,
    event_columns,
    finished_rows,
    narrow,
    newest_first,
    open_rows,
    owned,
    told,
)
from .rows import asked_again, every
from .tables import attempts, deliveries, endpoints, events, finished_deliveries
from .waiting import explained

WALKED = 10_000
"""Rows that a page walks over at most, in each table, to find those that a filter wants."""
GLANCED = 1_000
"""The newest rows of all endpoints, among which most pages of a hospital are found whole; unfiltered, among fewer."""
FEW_OPEN = 2_000
"""As many rows are read and sorted rather than walked to."""
ATTEMPTED = 2_000
"""Finished deliveries of an endpoint whose attempts a page looks at."""
FEWEST = 100
"""Rows of each endpoint that are walked over at least, however many endpoints there are."""

Page = tuple[list[Any], UUID | None]
"""Rows, newest first, and the id from which on all were found; None where none is left."""


async def deliveries_page(connection: AsyncConnection, wanted: Filter, *, before: UUID | None, limit: int) -> Page:
    """Open and finished deliveries from below the id ``before``, with what each waits for."""
    found, reached = await _deliveries(connection, wanted, before, limit)
    return await explained(await driver_of(connection), found, unfiltered=wanted.subscriber_id is None), reached


async def _deliveries(connection: AsyncConnection, wanted: Filter, before: UUID | None, limit: int) -> Page:
    theirs = tuple(await endpoint_ids(connection, wanted))
    if not theirs:
        return [], None
    of_all = wanted.subscriber_id is None and wanted.endpoint_id is None
    if wanted.event_id is not None:
        of_it = _of_event(wanted, open_rows().where(*asked(wanted)), finished_rows().where(*told(wanted)))
        return await every(connection, newest_first(_chosen(of_it, wanted, before, None, theirs), limit)), None
    is_open, has_ended = wanted.sides
    is_dead = wanted.state in ("dead", "cancelled")
    if of_all and not is_dead:
        few = (4 * limit,) if wanted.type is None and wanted.state is None else ()
        for most in (*few, GLANCED):
            if len(found := await every(connection, _among_newest(wanted, theirs, before, limit, most))) == limit:
                return found, None
    few_open = is_open and await _few(connection, _open_by_endpoint(theirs, wanted.whose))
    reaches: list[UUID | None] = []
    if is_open and not few_open:
        bounds = between(deliveries, wanted.since, wanted.until, before)
        reaches.append(await _reach(connection, deliveries, bounds))
    if is_dead:
        is_dead, reach = await _reach_of_dead(connection, wanted, theirs, before, of_all=of_all)
        reaches.append(reach)
    elif has_ended and (wanted.type is not None or wanted.state is not None):
        reaches.append(await _reach_of_each(connection, wanted, theirs, before))
    reached = max((reach for reach in reaches if reach is not None), default=None)
    found_so = _by_endpoint(wanted, theirs, before, limit, reached, few=few_open or is_dead)
    return await every(connection, found_so), reached


async def latest_of_event(connection: AsyncConnection, wanted: Filter, theirs: Sequence[UUID]) -> list[dict[str, Any]]:
    """An event's newest delivery to each of these endpoints, with what it waits for."""
    of_it = _of_event(wanted, open_rows().where(*asked(wanted)), finished_rows().where(*told(wanted)))
    newest = select(*of_it.c).ext(distinct_on(of_it.c.endpoint_id)).where(of_it.c.endpoint_id.in_(theirs))
    found = await every(connection, newest.order_by(of_it.c.endpoint_id, of_it.c.id.desc()))
    return await explained(await driver_of(connection), found, unfiltered=wanted.subscriber_id is None)


async def events_page(
    connection: AsyncConnection,
    tenant_id: UUID,
    *,
    type: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before: UUID | None = None,
    only: Sequence[UUID] | None = None,
    limit: int,
) -> Page:
    """Accepted events, without their bodies; of ``only`` these."""
    bounds = between(events, since, until, before)
    if only is not None:
        bounds.append(events.c.id.in_(only))
    reached = None if only is not None else await _reach(connection, events, bounds)
    rows = _from(event_columns(), events, reached).where(events.c.tenant_id == tenant_id, *bounds)
    if type is not None:
        rows = rows.where(events.c.type == type)
    return await every(connection, rows.order_by(events.c.id.desc()).limit(limit)), reached


async def with_deliveries(connection: AsyncConnection, wanted: Filter, event_ids: Sequence[UUID]) -> set[UUID]:
    """Those of the events that have deliveries, open or finished, which the filter's subscriber may see."""
    sides = [
        select(table.c.event_id, table.c.endpoint_id).where(table.c.event_id.in_(event_ids), *owned(table, wanted))
        for table in (deliveries, finished_deliveries)
    ]
    return set(await connection.scalars(union_all(*(select(side.subquery().c.event_id) for side in sides))))


async def attempts_page(
    connection: AsyncConnection,
    wanted: Filter,
    *,
    outcome: str | None,
    status: int | None,
    before: UUID | None,
    limit: int,
) -> Page:
    """Requests to the filter's endpoint, of its newest deliveries first, and the id of the last one of these.

    Those of one delivery are on one page, which may be longer than ``limit`` for it.
    """
    theirs = await endpoint_ids(connection, wanted)
    if not theirs:
        return [], None
    ended_rows, rows = finished_rows().where(*told(wanted)), open_rows().where(*asked(wanted))
    reached = await _reach_of_each(connection, wanted, theirs, before, ATTEMPTED)
    is_open = _open_by_endpoint(tuple(theirs), wanted.whose)
    if not await _few(connection, is_open):
        of_open = await _reach(connection, deliveries, between(deliveries, wanted.since, wanted.until, before))
        reached = max((reach for reach in (reached, of_open) if reach is not None), default=None)
        is_open = rows.where(_to(deliveries, theirs)).subquery("o")
    ended = narrow(ended_rows, finished_deliveries, replace(wanted, subscriber_id=None, endpoint_id=None), before)
    newest = _from(ended, finished_deliveries, reached).order_by(finished_deliveries.c.id.desc())
    has_ended = of_each(theirs, newest, finished_deliveries, ATTEMPTED + 1)
    sides = (_chosen(side, wanted, before, reached).where(side.c.attempt > 0) for side in (is_open, has_ended))
    both = union_all(*sides).subquery("d")
    of_it = attempt_columns().where(attempts.c.delivery_id == both.c.id, attempts.c.tenant_id == wanted.tenant_id)
    if outcome is not None:
        of_it = of_it.where(attempts.c.outcome == outcome)
    if status is not None:
        of_it = of_it.where(attempts.c.status == status)
    its = of_it.offset(0).lateral("a")
    page = select(both.c.id.label("delivery_id"), both.c.event_id, *its.c).select_from(both.join(its, true()))
    found = await every(connection, page.order_by(both.c.id.desc()).fetch(limit, with_ties=True))
    found.sort(key=lambda row: (row["delivery_id"], row["id"]), reverse=True)
    return found, found[-1]["delivery_id"] if len(found) >= limit else reached


async def waiting(connection: AsyncConnection, wanted: Filter, limit: int, *, unfiltered: bool) -> list[UUID]:
    """Open deliveries that nobody is sending, with ``unfiltered`` ones or without. Those behind others come first: none
    goes on only to be cancelled."""
    theirs = await endpoint_ids(connection, wanted)
    free = or_(deliveries.c.lease_id.is_(None), deliveries.c.due_at <= func.now())
    rows = narrow(open_rows(), deliveries, replace(wanted, endpoint_id=None, subscriber_id=None), None)
    rows = rows.where(*([] if unfiltered else asked(wanted)))
    behind = rows.where(deliveries.c.due_at.is_(None), deliveries.c.ordering_key.is_not(None))
    due = rows.where(deliveries.c.due_at.is_not(None), free)
    sides = [select(of_each(theirs, some, deliveries, limit).c.id).limit(limit).subquery() for some in (behind, due)]
    return list(await connection.scalars(union_all(*(select(side) for side in sides)).limit(limit)))


async def recent_events(connection: AsyncConnection) -> UUID | None:
    """The id from which on there are `WALKED` events of all tenants."""
    return await _reach(connection, events, [])


def of_each(theirs: Sequence[UUID], rows: Select[Any], table: FromClause, most: int) -> Subquery:
    """At most so many rows of each endpoint, by an index that begins with the endpoint."""
    one = func.unnest(literal(list(theirs), ARRAY(Uuid))).table_valued("id", name="one").render_derived()
    inner = rows.where(table.c.endpoint_id == one.c.id).limit(most).lateral("of_one")
    return select(*inner.c).select_from(one.join(inner, true())).subquery()


async def endpoint_ids(connection: AsyncConnection, wanted: Filter) -> list[UUID]:
    """Those that the filter is about, the deleted ones, too."""
    rows = select(endpoints.c.id).where(endpoints.c.tenant_id == wanted.tenant_id)
    if wanted.subscriber_id is not None:
        rows = rows.where(endpoints.c.subscriber_id == wanted.subscriber_id)
    if wanted.endpoint_id is not None:
        rows = rows.where(endpoints.c.id == wanted.endpoint_id)
    return list(await connection.scalars(rows))


@asked_again
def _by_endpoint(
    wanted: Filter, theirs: tuple[UUID, ...], before: UUID | None, limit: int, reached: UUID | None, *, few: bool
) -> Select[Any]:
    """What the filter wants, by the indexes of endpoints; with ``few`` what is open, or dead, is read whole."""
    is_open, has_ended = wanted.sides
    of_all = wanted.subscriber_id is None and wanted.endpoint_id is None
    some = replace(wanted, subscriber_id=None, endpoint_id=None)  # `theirs` says both
    sides: list[Select[Any]] = []
    if few and is_open:
        sides.append(_chosen(_open_by_endpoint(theirs, wanted.whose), some, before, reached))
    elif is_open:
        rest = narrow(open_rows().where(*asked(wanted)), deliveries, some, before).where(_to(deliveries, theirs))
        sides.append(_from(rest, deliveries, reached))
    if has_ended:
        ended = narrow(finished_rows().where(*told(wanted)), finished_deliveries, some, before)
        ended = _from(ended, finished_deliveries, reached)
        if few and not is_open:
            rare = ended if of_all else ended.where(_to(finished_deliveries, theirs))
            ids = newest_first(rare.with_only_columns(finished_deliveries.c.id), limit)
            sides.append(finished_rows().where(finished_deliveries.c.id.in_(ids)))
        else:
            ended = ended.order_by(finished_deliveries.c.id.desc())
            sides.append(select(*of_each(theirs, ended, finished_deliveries, limit).c))
    limited = [newest_first(side, limit).subquery() for side in sides]
    both = union_all(*(select(side) for side in limited)).subquery("d")
    return newest_first(select(*both.c), limit)


@asked_again
def _open_by_endpoint(theirs: tuple[UUID, ...], whose: Filter) -> Subquery:
    """Those with a time are in one index, those behind another one in the other."""
    rows = open_rows().where(*asked(whose))
    due = rows.where(deliveries.c.due_at.is_not(None))
    behind = rows.where(deliveries.c.due_at.is_(None), deliveries.c.ordering_key.is_not(None))
    return union_all(*(select(of_each(theirs, some, deliveries, FEW_OPEN + 1)) for some in (due, behind))).subquery("o")


def _of_event(wanted: Filter, rows: Select[Any], ended_rows: Select[Any]) -> Subquery:
    """By the index of events: no more than there are endpoints, and replays."""
    only = Filter(wanted.tenant_id, event_id=wanted.event_id)
    sides = narrow(rows, deliveries, only, None), narrow(ended_rows, finished_deliveries, only, None)
    return union_all(*(select(*side.offset(0).subquery().c) for side in sides)).subquery("o")


@asked_again
def _among_newest(wanted: Filter, theirs: tuple[UUID, ...], before: UUID | None, limit: int, most: int) -> Select[Any]:
    """Those that the filter wants of the newest rows of each table, down to where all of each were read: of what is
    open only as far as what has ended, since many entries of its index are of what has gone."""
    is_open, has_ended = wanted.sides
    newest: list[Any] = []
    end: ColumnElement[UUID] = literal(UUID(int=0), Uuid)
    for rows, table in [(finished_rows(), finished_deliveries)] * has_ended + [(open_rows(), deliveries)] * is_open:
        bounds = (table.c.id >= end, *between(table, wanted.since, wanted.until, before))
        newest.append(rows.where(*bounds).order_by(table.c.id.desc()).limit(most).cte())
        last = select(newest[-1].c.id).order_by(newest[-1].c.id.desc()).offset(most - 1).scalar_subquery()
        end = func.coalesce(last, end)
    both = union_all(*(select(some) for some in newest)).subquery("d")
    return newest_first(_chosen(both, wanted, theirs=theirs).where(both.c.id >= end), limit)


def _to(rows: FromClause, theirs: Sequence[UUID]) -> ColumnElement[bool]:
    return rows.c.endpoint_id == (theirs[0] if len(theirs) == 1 else any_(literal(list(theirs), ARRAY(Uuid))))


async def _few(connection: AsyncConnection, rows: Subquery) -> bool:
    some = select(literal_column("1")).select_from(rows).limit(FEW_OPEN + 1).subquery()
    return int(await connection.scalar(select(func.count()).select_from(some)) or 0) <= FEW_OPEN


async def _reach(connection: AsyncConnection, table: FromClause, bounds: Sequence[ColumnElement[bool]]) -> UUID | None:
    """The id down to which `WALKED` rows are, or None where there are no more."""
    rows = select(table.c.id).where(*bounds).order_by(table.c.id.desc()).offset(WALKED).limit(1)
    reached: UUID | None = await connection.scalar(rows)
    return reached


async def _reach_of_dead(
    connection: AsyncConnection, wanted: Filter, theirs: Sequence[UUID], before: UUID | None, *, of_all: bool
) -> tuple[bool, UUID | None]:
    """How far a walk comes by the index of what is dead (true), or over all that ended at these endpoints where that is
    further: others have many that are dead, and these few of any."""
    ended = finished_deliveries.c
    not_delivered = [ended.tenant_id == wanted.tenant_id, ended.state != constant("delivered")]
    bounds = between(finished_deliveries, wanted.since, wanted.until, before)
    reach = await _reach(connection, finished_deliveries, [*not_delivered, *bounds])
    if reach is None or of_all:
        return True, reach
    of_theirs = await _reach_of_each(connection, wanted, theirs, before)
    return (False, of_theirs) if of_theirs is None or of_theirs < reach else (True, reach)


async def _reach_of_each(
    connection: AsyncConnection,
    wanted: Filter,
    theirs: Sequence[UUID],
    before: UUID | None,
    most: int = WALKED,
) -> UUID | None:
    """The same of these endpoints' finished deliveries: down to there all of them were walked over."""
    bounds = between(finished_deliveries, wanted.since, wanted.until, before)
    rows = (
        select(finished_deliveries.c.id)
        .where(finished_deliveries.c.tenant_id == wanted.tenant_id, *bounds)
        .order_by(finished_deliveries.c.id.desc())
        .offset(max(most // len(theirs), FEWEST))
    )
    ends = of_each(theirs, rows, finished_deliveries, 1)
    reached: UUID | None = await connection.scalar(select(ends.c.id).order_by(ends.c.id.desc()).limit(1))
    return reached


def _chosen(
    rows: FromClause,
    wanted: Filter,
    before: UUID | None = None,
    reached: UUID | None = None,
    theirs: Sequence[UUID] | None = None,
) -> Select[Any]:
    """Those of a few that the filter wants."""
    chosen = _from(select(*rows.c), rows, reached).where(*between(rows, wanted.since, wanted.until, before))
    if theirs is not None:
        chosen = chosen.where(_to(rows, theirs))
    if wanted.type is not None:
        chosen = chosen.where(rows.c.type == wanted.type)
    return chosen if wanted.state is None else chosen.where(rows.c.state == wanted.state)


def _from(rows: Select[Any], table: FromClause, reached: UUID | None) -> Select[Any]:
    return rows if reached is None else rows.where(table.c.id >= literal(reached, Uuid))
