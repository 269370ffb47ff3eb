"""Partitions: made ahead, filled from the default one unnoticed, dropped only when nothing needs them."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from tests.support.hospital import Hospital
from webhook_gateway.store import bodies, migrate, partitions
from webhook_gateway.store.partitions import EVENTS, make_all

from .plans import explain_prepared


def today() -> date:
    return datetime.now(UTC).date()


async def test_migrating_makes_the_days_to_come(hospital: Hospital, database_url: str) -> None:
    await asyncio.to_thread(migrate.upgrade, database_url)  # the template may be of yesterday
    async with hospital.database.connection() as connection:
        names = {row["relname"] for row in await connection.fetch(partitions.EXISTING, "events")}
        assert EVENTS.name(today()) in names
        assert EVENTS.name(today() + timedelta(days=7)) in names
        assert await make_all(connection) == []


async def test_rows_move_from_the_default_partition_while_others_read_them(hospital: Hospital) -> None:
    """No reader misses a row that is there, whenever it looks."""
    async with hospital.database.connection() as connection:
        await connection.execute(f"DROP TABLE {EVENTS.name(today())}")
    posted = await hospital.post(times=200)
    moved = asyncio.Event()
    looks = 0

    async def read() -> None:
        nonlocal looks
        while not moved.is_set():
            async with hospital.database.connection() as connection:
                found = await bodies.bodies(connection, posted)
            assert len(found) == len(posted)
            looks += 1

    readers = [asyncio.create_task(read()) for _ in range(4)]
    while looks < 20:  # noqa: ASYNC110 - each look is a round trip
        await asyncio.sleep(0)
    async with hospital.database.connection() as connection:
        assert await make_all(connection) == [EVENTS.name(today())]
    before = looks
    while looks < before + 20:  # noqa: ASYNC110
        await asyncio.sleep(0)
    moved.set()
    await asyncio.gather(*readers)
    assert await hospital.count("events_default") == 0
    assert await hospital.count(EVENTS.name(today())) == 200


async def test_bodies_are_looked_for_in_their_own_days_only(hospital: Hospital) -> None:
    posted = await hospital.post(times=3)
    async with hospital.database.connection() as connection:
        assert len(await bodies.bodies(connection, posted[::-1])) == 3
        plan, _ = await explain_prepared(connection, bodies.BODIES, posted)
    assert EVENTS.name(today()) in plan
    assert EVENTS.name(today() + timedelta(days=1)) not in plan


async def test_whole_partitions_are_dropped_once_they_have_ended(hospital: Hospital) -> None:
    old, gone = today() - timedelta(days=400), today().replace(day=1)
    async with hospital.database.connection() as connection:
        await partitions.make_ahead(connection, partitions.ATTEMPTS, old, 1)
        dropped = await partitions.drop_before(connection, partitions.ATTEMPTS, old.replace(day=28))
        assert dropped == []
        dropped = await partitions.drop_before(connection, partitions.ATTEMPTS, gone)
        names = [partitions.ATTEMPTS.name(day) for day in (old, partitions.ATTEMPTS.next(old))]
        assert dropped == names
        left = {row["relname"] for row in await connection.fetch(partitions.EXISTING, "attempts")}
    assert partitions.ATTEMPTS.name(today()) in left


def test_a_days_ids_begin_at_midnight_utc() -> None:
    low = partitions.lowest_id(date(2026, 11, 23))
    assert low == UUID(int=int(datetime(2026, 11, 23, tzinfo=UTC).timestamp() * 1000) << 80)
