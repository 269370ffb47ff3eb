"""Partitions: made ahead, filled from the default one unnoticed, dropped only when nothing needs them."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from tests.support.hospital import Hospital
from webhook_gateway.store import bodies, migrate, partitions
from webhook_gateway.store.partitions import EVENTS, make_all


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


async def test_retention_drops_old_days_and_never_one_that_an_open_delivery_needs(hospital: Hospital) -> None:
    days = [today() - timedelta(days=n) for n in (40, 39, 38)]
    async with hospital.database.connection() as connection:
        for day in days:
            await partitions.make_ahead(connection, EVENTS, day, 0)
        needed = partitions.lowest_id(days[1])
        dropped = await partitions.drop_before(connection, EVENTS, today() - timedelta(days=30), needed)
        assert dropped == [EVENTS.name(days[0])]
        dropped = await partitions.drop_before(connection, EVENTS, today() - timedelta(days=30), None)
        assert dropped == [EVENTS.name(days[1]), EVENTS.name(days[2])]


async def test_the_oldest_event_that_something_open_refers_to_is_found(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    async with hospital.database.connection() as connection:
        assert await partitions.oldest_needed(connection) is None
    (first,) = await hospital.post()
    await hospital.fan_out()
    await hospital.post()
    async with hospital.database.connection() as connection:
        assert await partitions.oldest_needed(connection) == first
    await hospital.finish(*await hospital.claim(endpoint_id))
    async with hospital.database.connection() as connection:
        second = await partitions.oldest_needed(connection)
    assert second is not None
    assert second > first


def test_a_days_ids_begin_at_midnight_utc() -> None:
    low = partitions.lowest_id(date(2026, 11, 23))
    assert low == UUID(int=int(datetime(2026, 11, 23, tzinfo=UTC).timestamp() * 1000) << 80)
