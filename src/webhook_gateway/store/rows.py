"""Rows of a statement, by column name."""

from __future__ import annotations

from sqlalchemy import Executable, RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection


async def first(connection: AsyncConnection, statement: Executable) -> RowMapping | None:
    return (await connection.execute(statement)).mappings().first()


async def one(connection: AsyncConnection, statement: Executable) -> RowMapping:
    """The row of a statement that always has one."""
    return (await connection.execute(statement)).mappings().one()


async def every(connection: AsyncConnection, statement: Executable) -> list[RowMapping]:
    return list((await connection.execute(statement)).mappings())
