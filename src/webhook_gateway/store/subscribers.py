"""Subscribers: partner organisations. One that is deleted stays as a row, since deliveries name its endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

import uuid_utils.compat as uuid_utils
from sqlalchemy import RowMapping, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from . import endpoints, keys
from .rows import every, first, one
from .tables import subscribers


async def create(connection: AsyncConnection, tenant_id: UUID, values: Mapping[str, Any]) -> RowMapping:
    """The new subscriber; ``values`` are columns.

    Raises:
        sqlalchemy.exc.IntegrityError: another one has the name, or the external id.
    """
    statement = insert(subscribers).values(id=uuid_utils.uuid7(), tenant_id=tenant_id, **values).returning(subscribers)
    return await one(connection, statement)


async def get(
    connection: AsyncConnection, tenant_id: UUID, subscriber_id: UUID, *, lock: bool = False
) -> RowMapping | None:
    """``lock`` keeps it from being deleted until the transaction ends."""
    found = select(subscribers).where(
        subscribers.c.tenant_id == tenant_id, subscribers.c.id == subscriber_id, subscribers.c.deleted_at.is_(None)
    )
    if lock:
        found = found.with_for_update(read=True)
    return await first(connection, found)


async def page(
    connection: AsyncConnection,
    tenant_id: UUID,
    *,
    only: UUID | None,
    among: Iterable[UUID] | None = None,
    called: str | None = None,
    before: UUID | None,
    limit: int,
) -> list[RowMapping]:
    """Subscribers, newest first; ``only`` leaves that one, ``among`` those, and ``called`` those with this in their
    names, in capitals or not: before all whoever is called just so."""
    rows = select(subscribers).where(subscribers.c.tenant_id == tenant_id, subscribers.c.deleted_at.is_(None))
    if only is not None:
        rows = rows.where(subscribers.c.id == only)
    if among is not None:
        rows = rows.where(subscribers.c.id.in_(list(among)))
    if called is not None:
        rows = rows.where(subscribers.c.name.icontains(called, autoescape=True))
        rows = rows.order_by((func.lower(subscribers.c.name) == func.lower(called)).desc())
    if before is not None:
        rows = rows.where(subscribers.c.id < before)
    return await every(connection, rows.order_by(subscribers.c.id.desc()).limit(limit))


async def holder(connection: AsyncConnection, tenant_id: UUID, column: str, value: str) -> RowMapping | None:
    """Who has the ``name``, or the ``external_id``."""
    theirs = subscribers.c.tenant_id == tenant_id, subscribers.c.deleted_at.is_(None)
    return await first(connection, select(subscribers).where(*theirs, subscribers.c[column] == value))


async def lock_all(connection: AsyncConnection, tenant_id: UUID) -> list[RowMapping]:
    """All of the tenant's, which nobody else changes until the transaction ends."""
    rows = select(subscribers).where(subscribers.c.tenant_id == tenant_id, subscribers.c.deleted_at.is_(None))
    return await every(connection, rows.order_by(subscribers.c.id).with_for_update(key_share=True))


async def names(connection: AsyncConnection, tenant_id: UUID, subscriber_ids: Iterable[UUID]) -> dict[UUID, str]:
    """Of those given, the deleted ones, too."""
    rows = select(subscribers.c.id, subscribers.c.name).where(
        subscribers.c.tenant_id == tenant_id, subscribers.c.id.in_(list(subscriber_ids))
    )
    return dict(tuple(row) for row in await connection.execute(rows))


async def change(
    connection: AsyncConnection, tenant_id: UUID, subscriber_id: UUID, changes: Mapping[str, Any]
) -> RowMapping | None:
    """The changed subscriber.

    Raises:
        sqlalchemy.exc.IntegrityError: another one has the name, or the external id.
    """
    statement = (
        update(subscribers)
        .where(
            subscribers.c.tenant_id == tenant_id, subscribers.c.id == subscriber_id, subscribers.c.deleted_at.is_(None)
        )
        .values(**changes, updated_at=func.now())
        .returning(subscribers)
    )
    return await first(connection, statement)


async def delete(connection: AsyncConnection, tenant_id: UUID, subscriber_id: UUID) -> dict[str, Any] | None:
    """Takes its endpoints, their open deliveries and its keys with it; says how many, or None where it isn't there."""
    gone = await change(connection, tenant_id, subscriber_id, {"deleted_at": func.now()})
    if gone is None:
        return None
    found = await endpoints.of_subscriber(connection, tenant_id, subscriber_id)
    cancelled = 0
    for row in found:
        cancelled += await endpoints.delete(connection, tenant_id, row["id"]) or 0
    return {
        "name": gone["name"],
        "endpoints": len(found),
        "cancelled": cancelled,
        "keys": await keys.revoke_of_subscriber(connection, tenant_id, subscriber_id),
    }
