"""A process that is cut off in the middle of a transaction keeps what it has locked for moments only."""

import asyncio

import pytest

from tests.faults.link import Link
from webhook_gateway.store.database import Database, DatabaseUnavailable, StatementTimedOut

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


async def test_a_statement_that_takes_too_long_is_told_from_a_database_that_is_not_there(database_url: str) -> None:
    impatient = Database(database_url, patience=0.3)
    nowhere = Database("postgresql://nobody@127.0.0.1:1/nothing", patience=0.3)
    try:
        with pytest.raises(StatementTimedOut):
            async with impatient.connection() as connection:
                await connection.execute("SELECT pg_sleep(60)")
        with pytest.raises(StatementTimedOut):
            async with impatient.connection() as connection:
                await connection.execute("SET statement_timeout = 1; SELECT pg_sleep(60)")
        with pytest.raises(DatabaseUnavailable) as absent:
            async with nowhere.connection():
                pass
        assert not isinstance(absent.value, StatementTimedOut)
    finally:
        await impatient.close()


async def test_a_server_that_is_gone_without_a_word_costs_one_statement_and_not_one_for_each_connection(
    database_url: str,
) -> None:
    login, _, place = database_url.rpartition("@")
    host, _, rest = place.partition(":")
    port, _, name = rest.partition("/")
    link, all_open = Link(host, int(port)), asyncio.Barrier(4)
    await link.start()
    database = Database(f"{login}@{link.address}:{link.port}/{name}", connections=4, patience=0.5)

    async def connect() -> None:
        async with database.connection() as connection:
            await connection.execute("SELECT 1")
            await all_open.wait()

    await asyncio.gather(*[connect() for _ in range(4)])
    link.lose()
    with pytest.raises(StatementTimedOut):
        await database.expect_writable()
    await database.expect_writable()
    await database.close()
    await link.close()
