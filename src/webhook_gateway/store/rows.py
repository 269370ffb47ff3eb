"""Rows of a statement by column name, and rows and columns for one that takes arrays (``unnest``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec
from sqlalchemy import Executable, RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

asked_again = lru_cache(maxsize=64)
"""Statements that pages which are kept current ask again and again: to write one down takes longer than to ask it."""


async def first(connection: AsyncConnection, statement: Executable) -> RowMapping | None:
    return (await connection.execute(statement)).mappings().first()


async def one(connection: AsyncConnection, statement: Executable) -> RowMapping:
    """The row of a statement that always has one."""
    return (await connection.execute(statement)).mappings().one()


async def every(connection: AsyncConnection, statement: Executable) -> list[RowMapping]:
    return list((await connection.execute(statement)).mappings())


def records(rows: Sequence[msgspec.Struct]) -> list[tuple[object, ...]]:
    """For an array of a composite type, whose attributes are in the order of the struct's fields. The driver looks at
    each row whether it is an array itself; of columns at each value, which costs more than all the rest."""
    return list(map(msgspec.structs.astuple, rows))


def columns(kind: type[msgspec.Struct], rows: Sequence[msgspec.Struct]) -> list[Sequence[object]]:
    """An array for each field of the struct, in the order of its fields."""
    return list(zip(*records(rows), strict=True)) or [()] * len(kind.__struct_fields__)
