"""Endpoints with their secrets and their health, as administrators see and change them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import uuid_utils.compat as uuid_utils
from sqlalchemy import RowMapping, Select, case, func, insert, literal, or_, select, text, update
from sqlalchemy import delete as delete_from
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.rules.model import EndpointState, Signing

from . import deliveries, ordering
from .driver import driver_of
from .finished import NOT_WANTED
from .rows import asked_again, every, first, one
from .tables import deliveries as deliveries_table
from .tables import endpoint_health, endpoint_secrets, endpoints, finished_deliveries, held_keys, subscribers

MOST_CALLED = 1_000
"""Endpoints that are named at once."""
DELETED = "endpoint_deleted"
"""The reason that deliveries of a deleted endpoint are cancelled with."""


async def create(connection: AsyncConnection, values: Mapping[str, Any]) -> RowMapping:
    """``values`` are columns, with an ``id``: headers are sealed for it.

    Raises:
        sqlalchemy.exc.IntegrityError: another one of its subscriber has the name.
    """
    await connection.execute(insert(endpoints).values(**values))
    return await one(connection, _live(values["tenant_id"], None).where(endpoints.c.id == values["id"]))


async def get(
    connection: AsyncConnection,
    tenant_id: UUID,
    endpoint_id: UUID,
    *,
    subscriber_id: UUID | None = None,
    lock: bool = False,
) -> RowMapping | None:
    """An endpoint that isn't deleted, with what its subscriber may have; with a subscriber, only if it is theirs."""
    found = _one(tenant_id, endpoint_id, subscriber_id)
    return await first(connection, found.with_for_update(key_share=True, of=endpoints) if lock else found)


async def page(
    connection: AsyncConnection,
    tenant_id: UUID,
    *,
    subscriber_id: UUID | None,
    state: str | None,
    before: UUID | None,
    limit: int,
) -> list[RowMapping]:
    """Endpoints, newest first."""
    rows = _live(tenant_id, subscriber_id)
    if state is not None:
        rows = rows.where(endpoints.c.state == state)
    if before is not None:
        rows = rows.where(endpoints.c.id < before)
    return await every(connection, rows.order_by(endpoints.c.id.desc()).limit(limit))


async def ever(
    connection: AsyncConnection, tenant_id: UUID, subscriber_id: UUID | None, *, before: UUID, limit: int
) -> list[RowMapping]:
    """Endpoints, newest first, the deleted ones, too; ``permitted_at`` is when their subscriber was last changed."""
    times = subscribers.c.updated_at.label("permitted_at"), func.now().label("now")
    rows = _with_permission(tenant_id, subscriber_id).add_columns(*times)
    return await every(connection, rows.where(endpoints.c.id < before).order_by(endpoints.c.id.desc()).limit(limit))


async def lock_filters(connection: AsyncConnection, tenant_id: UUID) -> None:
    """Until the transaction ends nobody else sets a filter, or asks whether there is one. Taken before any row."""
    lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:filters, 0))")
    await connection.execute(lock, {"filters": f"filters {tenant_id}"})


async def was_filtered(connection: AsyncConnection, subscriber_id: UUID) -> bool:
    """Whether any endpoint of the subscriber has a filter, or had one when it was deleted."""
    found = select(endpoints.c.id).where(endpoints.c.subscriber_id == subscriber_id, endpoints.c.filter.is_not(None))
    return await connection.scalar(found.limit(1)) is not None


async def of_subscriber(connection: AsyncConnection, tenant_id: UUID, subscriber_id: UUID) -> list[RowMapping]:
    """All of them, in the order in which all lock them."""
    return await every(connection, _live(tenant_id, subscriber_id).order_by(endpoints.c.id))


async def change(
    connection: AsyncConnection, tenant_id: UUID, endpoint_id: UUID, changes: Mapping[str, Any]
) -> RowMapping:
    """The endpoint as a new revision. The caller holds its row.

    Raises:
        sqlalchemy.exc.IntegrityError: another one of its subscriber has the name.
    """
    statement = (
        update(endpoints)
        .where(endpoints.c.tenant_id == tenant_id, endpoints.c.id == endpoint_id)
        .values(**changes, revision=endpoints.c.revision + 1, updated_at=func.now())
    )
    await connection.execute(statement)
    return await one(connection, _live(tenant_id, None).where(endpoints.c.id == endpoint_id))


async def set_state(
    connection: AsyncConnection, tenant_id: UUID, endpoint_id: UUID, state: EndpointState, reason: str | None, by: str
) -> RowMapping:
    """One that is enabled again starts with a clean health, or the failures of last week would disable it at once.

    What waits for a retry is brought forward. A silence that the partner asked for stays.
    """
    if state is EndpointState.ENABLED:
        # Not deleted: workers look for what has changed since they last asked.
        await connection.execute(
            update(endpoint_health)
            .where(endpoint_health.c.endpoint_id == endpoint_id)
            .values(
                failures_in_a_row=0,
                failing_since=None,
                failing_days=0,
                open_until=None,
                openings=0,
                forward_at=func.now(),
                forwarded_due_at=None,
                changed_at=func.clock_timestamp(),
            )
        )
    return await change(
        connection,
        tenant_id,
        endpoint_id,
        {"state": state, "state_reason": reason, "state_changed_by": by, "state_changed_at": func.now()},
    )


async def delete(connection: AsyncConnection, tenant_id: UUID, endpoint_id: UUID) -> int | None:
    """Cancels its open deliveries and says how many, or None where it isn't there.

    A delivery that is being sent just now is left to its worker, which settles it or finds the endpoint gone.
    """
    statement = (
        update(endpoints)
        .where(endpoints.c.tenant_id == tenant_id, endpoints.c.id == endpoint_id, endpoints.c.deleted_at.is_(None))
        .values(
            deleted_at=func.now(),
            updated_at=func.now(),
            headers=None,
            tls=None,
            authorization=None,
            revision=endpoints.c.revision + 1,
        )
    )
    if not (await connection.execute(statement)).rowcount:
        return None
    await connection.execute(delete_from(held_keys).where(held_keys.c.endpoint_id == endpoint_id))
    return await deliveries.cancel(
        await driver_of(connection), tenant_id=tenant_id, ids=None, endpoint_id=endpoint_id, reason=DELETED
    )


async def add_secret(
    connection: AsyncConnection, tenant_id: UUID, endpoint_id: UUID, secret_id: UUID, sealed: bytes
) -> None:
    await connection.execute(
        insert(endpoint_secrets).values(id=secret_id, tenant_id=tenant_id, endpoint_id=endpoint_id, secret=sealed)
    )


async def expire_secrets(connection: AsyncConnection, endpoint_id: UUID, overlap: float) -> None:
    """The live secrets stop signing after ``overlap`` seconds; what was to end sooner still does."""
    ends = func.now() + timedelta(seconds=overlap)
    await connection.execute(
        update(endpoint_secrets)
        .where(endpoint_secrets.c.endpoint_id == endpoint_id, _unexpired())
        .values(expires_at=func.least(func.coalesce(endpoint_secrets.c.expires_at, ends), ends))
    )


async def secrets_of(connection: AsyncConnection, endpoint_ids: Sequence[UUID]) -> list[RowMapping]:
    """The live secrets' ids and times, newest first; not the secrets."""
    its = endpoint_secrets.c
    live = select(its.endpoint_id, its.id, its.created_at, its.expires_at)
    live = live.where(its.endpoint_id.in_(endpoint_ids), _unexpired())
    return await every(connection, live.order_by(its.id.desc()))


async def signing_keys(connection: AsyncConnection, endpoint_id: UUID, signing: Signing) -> list[RowMapping]:
    """The live secrets of an endpoint that signs so, sealed, newest first."""
    live = (
        select(endpoint_secrets.c.id, endpoint_secrets.c.tenant_id, endpoint_secrets.c.secret)
        .join(endpoints, endpoints.c.id == endpoint_secrets.c.endpoint_id)
        .where(endpoints.c.id == endpoint_id, endpoints.c.deleted_at.is_(None), endpoints.c.signing == signing)
        .where(_unexpired())
        .order_by(endpoint_secrets.c.id.desc())
    )
    return await every(connection, live)


async def health_of(connection: AsyncConnection, endpoint_ids: Sequence[UUID]) -> list[RowMapping]:
    """What workers have written down of the endpoints that failed lately."""
    known = select(endpoint_health, (endpoint_health.c.open_until > func.now()).label("is_open"))
    return await every(connection, known.where(endpoint_health.c.endpoint_id.in_(endpoint_ids)))


async def held_page(
    connection: AsyncConnection, endpoint_id: UUID, *, after: int | None, limit: int, unfiltered: bool
) -> list[RowMapping]:
    """Ordering keys of an endpoint that wait for an operator, see `_held`."""
    return await every(connection, _held_of(endpoint_id, after, limit, unfiltered=unfiltered))


@asked_again
def _held_of(endpoint_id: UUID, after: int | None, limit: int, *, unfiltered: bool) -> Select[Any]:
    rows = select(held_keys).where(held_keys.c.endpoint_id == endpoint_id)
    if after is not None:
        rows = rows.where(held_keys.c.ordering_key > after)
    return _held(rows.order_by(held_keys.c.ordering_key).limit(limit), "ordering_key", unfiltered)


async def held_everywhere(
    connection: AsyncConnection, tenant_id: UUID, subscriber_id: UUID | None, *, limit: int
) -> list[RowMapping]:
    """Those of all endpoints, the longest held first."""
    rows = select(held_keys).where(held_keys.c.tenant_id == tenant_id)
    if subscriber_id is not None:
        theirs = select(endpoints.c.id).where(endpoints.c.subscriber_id == subscriber_id)
        rows = rows.where(held_keys.c.endpoint_id.in_(theirs))
    rows = rows.order_by(held_keys.c.held_at).limit(limit)
    return await every(connection, _held(rows, "held_at", subscriber_id is None))


def _held(rows: Select[Any], by: str, unfiltered: bool) -> Select[Any]:
    """How many wait behind each key, with ``unfiltered`` ones or without, and what became of the dead delivery: that is
    told where no filter may have kept it back."""
    held = rows.subquery("held")
    dead, again = finished_deliveries.alias("dead"), finished_deliveries.alias("again")
    behind = (
        select(func.count())
        .select_from(deliveries_table)
        .where(
            deliveries_table.c.endpoint_id == held.c.endpoint_id,
            deliveries_table.c.ordering_key == held.c.ordering_key,
            or_(literal(unfiltered), deliveries_table.c.unfiltered.is_distinct_from(True)),
        )
        .scalar_subquery()
    )
    is_told = or_(literal(unfiltered), dead.c.state_reason.is_distinct_from(NOT_WANTED))
    about = (held.c.delivery_id, held.c.event_id, dead.c.type, dead.c.replayed_as, again.c.state.label("replay_state"))
    shown = [case((is_told, column)).label(column.name) for column in about]
    joined = held.join(dead, dead.c.id == held.c.delivery_id, isouter=True)
    joined = joined.join(again, again.c.id == dead.c.replayed_as, isouter=True)
    kept = (held.c.endpoint_id, held.c.ordering_key, held.c.held_at)
    told = select(*kept, *shown, behind.label("waiting")).select_from(joined)
    return told.order_by(held.c[by])


async def in_trouble(
    connection: AsyncConnection, tenant_id: UUID, subscriber_id: UUID | None, *, limit: int
) -> list[RowMapping]:
    """Endpoints that are off, fail, or are left alone, the longest in trouble first."""
    health = endpoint_health.c
    fails = (health.failures_in_a_row > 0) | (health.open_until > func.now()) | (health.held_until > func.now())
    rows = (
        select(*_called, endpoints.c.state, endpoints.c.state_reason, endpoints.c.state_changed_at)
        .add_columns(health.failures_in_a_row, health.failing_since, health.open_until, health.held_until)
        .select_from(_with_subscriber.join(endpoint_health, health.endpoint_id == endpoints.c.id, isouter=True))
        .where(endpoints.c.tenant_id == tenant_id, endpoints.c.deleted_at.is_(None))
        .where((endpoints.c.state != EndpointState.ENABLED) | fails)
    )
    if subscriber_id is not None:
        rows = rows.where(endpoints.c.subscriber_id == subscriber_id)
    since = func.coalesce(health.failing_since, endpoints.c.state_changed_at)
    return await every(connection, rows.order_by(since, endpoints.c.id).limit(limit))


async def called(
    connection: AsyncConnection,
    tenant_id: UUID,
    endpoint_ids: Iterable[UUID] | None = None,
    *,
    subscriber_id: UUID | None = None,
) -> dict[UUID, RowMapping]:
    """What people call endpoints, the deleted ones, too: subscriber, host and description, in the order of names. Those
    given, or all that are live, of a subscriber or of all."""
    rows = select(*_called).select_from(_with_subscriber).where(endpoints.c.tenant_id == tenant_id)
    if endpoint_ids is not None:
        rows = rows.where(endpoints.c.id.in_(list(endpoint_ids)))
    else:
        rows = rows.where(endpoints.c.deleted_at.is_(None)).limit(MOST_CALLED)
    if subscriber_id is not None:
        rows = rows.where(endpoints.c.subscriber_id == subscriber_id)
    return {row["id"]: row for row in await every(connection, rows.order_by(subscribers.c.name, endpoints.c.id))}


async def release_key(connection: AsyncConnection, tenant_id: UUID, endpoint_id: UUID, ordering_key: int) -> bool:
    """Lets a held key go on; false where it isn't held."""
    return await ordering.unhold(
        await driver_of(connection), tenant_id=tenant_id, endpoint_id=endpoint_id, ordering_key=ordering_key
    )


_with_subscriber = endpoints.join(subscribers, subscribers.c.id == endpoints.c.subscriber_id)
_called = (
    endpoints.c.id,
    endpoints.c.subscriber_id,
    subscribers.c.name.label("subscriber"),
    func.split_part(endpoints.c.url, "?", 1).label("url"),
    endpoints.c.description,
    endpoints.c.deleted_at,
)


def new_id() -> UUID:
    return uuid_utils.uuid7()


@asked_again
def _one(tenant_id: UUID, endpoint_id: UUID, subscriber_id: UUID | None) -> Select[Any]:
    return _live(tenant_id, subscriber_id).where(endpoints.c.id == endpoint_id)


def _live(tenant_id: UUID, subscriber_id: UUID | None) -> Select[Any]:
    return _with_permission(tenant_id, subscriber_id).where(endpoints.c.deleted_at.is_(None))


def _with_permission(tenant_id: UUID, subscriber_id: UUID | None) -> Select[Any]:
    permitted = subscribers.c.event_types.label("permitted_types"), subscribers.c.content.label("permitted_content")
    rows = select(endpoints, *permitted).select_from(_with_subscriber)
    rows = rows.where(endpoints.c.tenant_id == tenant_id)
    return rows if subscriber_id is None else rows.where(endpoints.c.subscriber_id == subscriber_id)


def _unexpired() -> Any:
    return func.coalesce(endpoint_secrets.c.expires_at > func.now(), True)
