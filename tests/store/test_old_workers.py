"""Two versions run together during an upgrade: what an old worker would send too much of waits until there is none."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from tests.support.hospital import Hospital
from webhook_gateway.store import workers

JOIN = "INSERT INTO workers (id, name) VALUES ($1, 'old') ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()"
"""How a worker of the version before registers."""


async def require(hospital: Hospital) -> bool:
    async with hospital.database.connection() as connection:
        return await workers.require_current(connection)


async def test_an_old_worker_that_is_alive_stands_in_the_way_until_it_has_left(hospital: Hospital) -> None:
    old = uuid7()
    async with hospital.database.connection() as connection:
        await connection.execute(JOIN, old)
        transaction = connection.transaction()
        await transaction.start()
        assert not await workers.require_current(connection)
        await transaction.rollback()
        await connection.execute(JOIN, old)
        await workers.deregister(connection, old)
    assert await require(hospital)


async def test_one_that_is_silent_may_only_be_suspended_and_counts_for_15_minutes(hospital: Hospital) -> None:
    async with hospital.database.connection() as connection:
        await connection.execute(JOIN, uuid7())
    await hospital.change("UPDATE workers SET seen_at = now() - interval '14 minutes'")
    assert not await require(hospital)
    await hospital.change("UPDATE workers SET seen_at = now() - interval '16 minutes'")
    assert await require(hospital)


async def test_once_it_is_required_no_old_worker_joins_and_those_of_this_version_do(hospital: Hospital) -> None:
    assert await require(hospital)
    async with hospital.database.connection() as connection:
        with pytest.raises(asyncpg.RaiseError, match="too old"):
            await connection.execute(JOIN, uuid7())
        mine = uuid7()
        for _ in range(2):
            assert (await workers.heartbeat(connection, mine, "new", -1))[0] == [mine]


async def test_an_old_worker_that_joins_just_then_waits_and_is_refused(hospital: Hospital) -> None:
    async with hospital.database.connection() as first, hospital.database.connection() as second:
        transaction = first.transaction()
        await transaction.start()
        assert await workers.require_current(first)
        joining = asyncio.create_task(second.execute(JOIN, uuid7()))
        await hospital.until("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%workers%'")
        await transaction.commit()
        with pytest.raises(asyncpg.RaiseError, match="too old"):
            await joining


async def test_a_new_version_that_asks_just_then_waits_and_sees_the_old_worker(hospital: Hospital) -> None:
    async with hospital.database.connection() as first, hospital.database.connection() as second:
        transaction = first.transaction()
        await transaction.start()
        await first.execute(JOIN, uuid7())
        asking = second.transaction()
        await asking.start()
        answer = asyncio.create_task(workers.require_current(second))
        await hospital.until(
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%configuration FOR UPDATE'"
        )
        await transaction.commit()
        assert not await answer
        await asking.rollback()
