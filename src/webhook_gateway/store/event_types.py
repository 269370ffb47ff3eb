"""The event types that tenants made themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, func, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from .rows import every, first, one
from .tables import event_types


async def create(connection: AsyncConnection, tenant_id: UUID, values: Mapping[str, Any]) -> RowMapping | None:
    """The new type, or None where the tenant has one of that name."""
    statement = (
        insert(event_types).values(tenant_id=tenant_id, **values).on_conflict_do_nothing().returning(event_types)
    )
    return await first(connection, statement)


async def get(connection: AsyncConnection, tenant_id: UUID, name: str, *, lock: bool = False) -> RowMapping | None:
    found = select(event_types).where(event_types.c.tenant_id == tenant_id, event_types.c.name == name)
    if lock:
        found = found.with_for_update()
    return await first(connection, found)


async def all_of(connection: AsyncConnection, tenant_id: UUID) -> list[RowMapping]:
    rows = select(event_types).where(event_types.c.tenant_id == tenant_id).order_by(event_types.c.name)
    return await every(connection, rows)


async def change(connection: AsyncConnection, tenant_id: UUID, name: str, changes: Mapping[str, Any]) -> RowMapping:
    """The changed type. The caller holds its row."""
    statement = (
        update(event_types)
        .where(event_types.c.tenant_id == tenant_id, event_types.c.name == name)
        .values(**changes, updated_at=func.now())
        .returning(event_types)
    )
    return await one(connection, statement)


async def delete(connection: AsyncConnection, tenant_id: UUID, name: str) -> bool:
    statement = delete_from(event_types).where(event_types.c.tenant_id == tenant_id, event_types.c.name == name)
    return bool((await connection.execute(statement)).rowcount)
