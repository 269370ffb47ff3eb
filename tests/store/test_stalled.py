"""A process that froze in the middle of a statement, or of its upkeep, keeps others from work for moments only."""

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from webhook_gateway.store import advisory_locks, outbox, workers
from webhook_gateway.store.database import Connection, Database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, patience=20)
    yield database
    await database.close()


FAN_OUT = "SELECT pg_advisory_xact_lock(hashtextextended('webhook_gateway.fan_out', 0))"
LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = $1"


async def ended(connection: Connection, mid_statement: float = 2.0, between_statements: float = 60.0) -> int:
    """By a heartbeat."""
    known = await workers.heartbeat(connection, uuid4(), "here", -1, (mid_statement, between_statements))
    return known.ended


async def wait_for_no_lock(connection: Connection, pid: int) -> None:
    await connection.execute(
        "DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = "
        f"{pid}) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$"
    )


async def test_fan_out_goes_on_when_a_worker_froze_while_it_prepared_a_statement(database: Database) -> None:
    frozen = await database.connect()
    try:
        await frozen.execute("BEGIN")
        await frozen.execute("SET LOCAL idle_in_transaction_session_timeout = 300")
        await frozen.execute(FAN_OUT)
        await frozen.prepare("SELECT 42")  # prepared, and never executed: Postgres doesn't call that idle
        pid = frozen.get_server_pid()
        async with database.connection() as connection:
            await connection.execute("SELECT pg_sleep(0.6)")
            assert await connection.fetchval(LOCKS, pid) == 1  # no timeout of Postgres has ended it
            async with connection.transaction():
                assert not (await outbox.dequeue(connection, 0, 10)).events
            assert await ended(connection, mid_statement=0.5) == 1
            await wait_for_no_lock(connection, pid)
    finally:
        frozen.terminate()


async def test_a_heartbeat_goes_on_though_what_it_writes_is_locked_by_a_worker_that_froze(database: Database) -> None:
    frozen, name = await database.connect(), uuid4()
    try:
        async with database.connection() as connection:
            await workers.heartbeat(connection, name, "here", -1)
            await frozen.execute("BEGIN")
            await frozen.execute("SELECT FROM workers FOR UPDATE")
            await frozen.prepare("SELECT 42")
            await connection.execute("SELECT pg_sleep(0.6)")
            assert (await workers.heartbeat(connection, name, "here", -1, (0.5, 60.0))).ended == 1
    finally:
        frozen.terminate()


async def test_another_takes_over_upkeep_from_a_worker_that_froze_in_it(database: Database) -> None:
    frozen = await database.connect()
    try:
        assert await advisory_locks.try_lock(frozen, advisory_locks.UPKEEP)
        async with database.connection() as connection:
            assert not await advisory_locks.try_lock(connection, advisory_locks.UPKEEP)
            assert await ended(connection) == 0  # it may just be busy with something else
            assert await ended(connection, between_statements=0.0) == 1
            await wait_for_no_lock(connection, frozen.get_server_pid())
            assert await advisory_locks.try_lock(connection, advisory_locks.UPKEEP)
            await advisory_locks.unlock(connection, advisory_locks.UPKEEP)
    finally:
        frozen.terminate()


async def test_sessions_at_rest_and_those_of_other_programs_are_left_alone(
    database: Database, database_url: str
) -> None:
    resting, stranger = await database.connect(), await asyncpg.connect(database_url, timeout=10)
    try:
        await resting.execute("SELECT 1")
        await stranger.execute("BEGIN")
        await stranger.execute("SELECT 1")
        async with database.connection() as connection:
            assert await ended(connection, mid_statement=0.0, between_statements=0.0) == 0
        assert await resting.fetchval("SELECT 1") == await stranger.fetchval("SELECT 1") == 1
    finally:
        resting.terminate()
        stranger.terminate()


async def test_a_transaction_that_nobody_goes_on_with_is_ended(database: Database) -> None:
    frozen = await database.connect()
    try:
        await frozen.execute("BEGIN")
        await frozen.execute(FAN_OUT)
        async with database.connection() as connection:
            assert await ended(connection, between_statements=0.0) == 1
    finally:
        frozen.terminate()
