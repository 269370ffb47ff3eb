"""The driver's connection below a SQLAlchemy one, so that a change and the pipeline can share a transaction."""

from __future__ import annotations

from typing import cast

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from .database import Connection


async def driver_of(connection: AsyncConnection) -> Connection:
    """What statements of the pipeline run on; they become part of the open transaction."""
    # SQLAlchemy begins a transaction with the first statement that it sees itself.
    await connection.execute(text("SELECT"))
    raw = await connection.get_raw_connection()
    return cast("Connection", raw.driver_connection)
