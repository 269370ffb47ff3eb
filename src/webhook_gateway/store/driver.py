"""The driver's connection below a SQLAlchemy one, so that a change and the pipeline can share a transaction."""

from __future__ import annotations

from typing import cast

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from .database import Connection


async def driver_of(connection: AsyncConnection) -> Connection:
    """What statements of the pipeline run on; they become part of the open transaction."""
    driver = cast("Connection", (await connection.get_raw_connection()).driver_connection)
    if not driver.is_in_transaction():  # SQLAlchemy begins one with the first statement that it sees itself
        await connection.execute(text("SELECT"))
    return driver
