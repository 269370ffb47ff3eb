"""Connections for the hot statements: never more than there may be, and none that is of no use any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

from webhook_gateway.store.database import Database, DatabaseUnavailable

PID = "SELECT pg_backend_pid()"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, connections=2)
    yield database
    await database.close()


async def _pid(database: Database) -> int:
    async with database.connection() as connection:
        return int(await connection.fetchval(PID))


async def test_the_connection_opened_first_is_used_again_whichever_became_free_last(database: Database) -> None:
    async with AsyncExitStack() as until_last, database.connection() as connection:
        first = await connection.fetchval(PID)
        await until_last.enter_async_context(database.connection())
    assert {await _pid(database) for _ in range(5)} == {first}


async def test_no_more_connections_are_open_than_there_may_be_and_who_waits_gets_the_next(database: Database) -> None:
    using, most, both = 0, 0, asyncio.Event()

    async def use() -> int:
        nonlocal using, most
        async with database.connection() as connection:
            using += 1
            most = max(most, using)
            if most == 2:
                both.set()
            await both.wait()  # however long the second one takes to open
            pid = int(await connection.fetchval(PID))
            using -= 1
        return pid

    assert len(set(await asyncio.gather(*(use() for _ in range(20))))) == most == 2


async def test_who_is_cut_off_in_a_statement_leaves_a_connection_that_works_and_nothing_that_runs(
    database: Database,
) -> None:
    began = asyncio.Event()
    pids: list[int] = []

    async def hang() -> None:
        async with database.connection() as connection:
            pids.append(int(await connection.fetchval(PID)))
            began.set()
            await connection.fetchval("SELECT pg_sleep(3600)")

    hanging = asyncio.create_task(hang())
    await began.wait()
    hanging.cancel()
    with suppress(asyncio.CancelledError):
        await hanging
    async with database.connection() as one, database.connection() as other:
        assert await one.fetchval(PID) != await other.fetchval(PID)
        assert not await one.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'")


async def test_a_connection_that_its_server_has_ended_is_replaced(database: Database) -> None:
    async with database.connection() as other:
        ended = await _pid(database)
        await other.execute("SELECT pg_terminate_backend($1, 10000)", ended)
        with suppress(DatabaseUnavailable):  # it may not be known here yet
            await _pid(database)
        assert await _pid(database) != ended


async def test_a_transaction_that_is_left_open_goes_with_its_connection(database: Database) -> None:
    async with database.connection() as connection:
        left = await connection.fetchval(PID)
        await connection.execute("BEGIN")
    assert await _pid(database) != left


async def test_none_is_had_from_a_database_that_is_closed(database: Database) -> None:
    await _pid(database)
    async with database.connection() as connection:
        await database.close()
        with pytest.raises(DatabaseUnavailable):
            await _pid(database)
        assert connection.is_closed()
