"""Who listens hears whatever breaks, and ends when it is told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from tests.support.hospital import PATIENCE, Hospital
from tests.support.pgbouncer import needs_pgbouncer, pooled
from webhook_gateway.store.database import Database, DatabaseUnavailable
from webhook_gateway.store.notifications import CHANNEL, OUTBOX, Heard, OwnChannel, listen, notify

END_LISTENING = """
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def test_it_ends_though_its_connection_breaks_as_it_is_cancelled(hospital: Hospital) -> None:
    for later in range(20):
        heard, own = Heard(), OwnChannel()
        listening = asyncio.create_task(listen(hospital.database, {OUTBOX: heard}, own=own))
        async with asyncio.timeout(PATIENCE):
            await heard.wait()
        async with hospital.database.connection() as connection:
            await connection.fetch(END_LISTENING)
        time.sleep(later / 1_000)  # it has ended by then, which this loop has not seen
        listening.cancel()
        done, _ = await asyncio.wait([listening], timeout=PATIENCE)
        assert done, f"cancelled {later} ms after its connection ended"


@asynccontextmanager
async def listening_beside(database: Database) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """One who listens on the connection that is used first. What is given waits until it is told, or listens anew."""
    heard = Heard()

    async def hear() -> None:
        async with asyncio.timeout(PATIENCE):
            await heard.wait()
        heard.clear()

    listening = asyncio.create_task(listen(database, {OUTBOX: heard}, beside=True))
    await hear()
    try:
        yield hear
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def _hears_where_all_else_is_asked(database: Database, hear: Callable[[], Awaitable[None]]) -> None:
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT array_agg(channel) FROM pg_listening_channels() channel") == [CHANNEL]
    await notify(database, OUTBOX)
    await hear()


async def test_who_listens_beside_hears_on_the_connection_that_is_used_first(hospital: Hospital) -> None:
    database = hospital.database
    async with (
        database.connection(),  # which was opened before it
        listening_beside(database) as hear,
        database.connection(),  # its own, which others use meanwhile
    ):
        await notify(database, OUTBOX)
        await hear()
    async with listening_beside(database) as hear:
        await _hears_where_all_else_is_asked(database, hear)


async def test_it_goes_on_when_its_connection_was_ended(hospital: Hospital) -> None:
    async with listening_beside(hospital.database) as hear:
        async with hospital.database.connection() as its, hospital.database.connection() as other:
            await other.execute("SELECT pg_terminate_backend($1, 10000)", its.get_server_pid())
        await hear()
        await _hears_where_all_else_is_asked(hospital.database, hear)


async def test_it_goes_to_where_writes_are_taken(database_url: str) -> None:
    database = Database(database_url, patience=2.0)
    try:
        async with listening_beside(database) as hear:
            with suppress(DatabaseUnavailable):
                async with database.connection() as connection:
                    await connection.execute("SET default_transaction_read_only = on")
                    await connection.execute("CREATE TABLE written ()")
            await hear()
            await _hears_where_all_else_is_asked(database, hear)
    finally:
        await database.close()


@needs_pgbouncer
async def test_it_hears_through_a_pooler_that_leaves_it_its_session(database_url: str) -> None:
    with pooled(database_url, "session") as url:
        database = Database(url)
        try:
            async with listening_beside(database) as hear:
                await _hears_where_all_else_is_asked(database, hear)
        finally:
            await database.close()
