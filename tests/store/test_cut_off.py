"""A process that is cut off in the middle of a transaction keeps what it has locked for moments only."""

import asyncio

import pytest

from webhook_gateway.store.database import Database, DatabaseUnavailable

LOCK = "SELECT pg_advisory_xact_lock(1)"


async def test_who_goes_silent_in_a_transaction_loses_its_locks_to_the_others(database_url: str) -> None:
    silent, other = Database(database_url, patience=0.3), Database(database_url, patience=20)
    locked, taken_over = asyncio.Event(), asyncio.Event()

    async def go_silent() -> None:
        async with silent.connection() as connection, connection.transaction():
            await connection.execute(LOCK)
            locked.set()
            await taken_over.wait()
            await connection.execute("SELECT 1")

    try:
        gone = asyncio.create_task(go_silent())
        await locked.wait()
        async with other.connection() as connection, connection.transaction():
            await connection.execute(LOCK)
        taken_over.set()
        with pytest.raises(DatabaseUnavailable):
            await gone
    finally:
        await silent.close()
        await other.close()
