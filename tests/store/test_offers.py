"""Deliveries of a lone event are made as it is stored, for a worker that has offered to send them: else never."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from tests.support.hospital import LAB_RESULT, PATIENCE, Hospital
from webhook_gateway.delivery.told import first_attempt
from webhook_gateway.store import configuration, deliveries, offers, outbox, workers
from webhook_gateway.store.notifications import Heard, OwnChannel, listen
from webhook_gateway.store.offers import LEASED, Handed, Offer
from webhook_gateway.store.outbox import Appended

from .test_order import crossing


@dataclass
class Offering:
    """A worker that has offered to send one type, and hears of it."""

    hospital: Hospital
    worker_id: UUID
    own: OwnChannel
    heard: Heard
    listening: asyncio.Task[None]

    async def offer(self, *endpoint_ids: UUID, in_order: bool = True) -> None:
        async with self.hospital.database.connection() as connection:
            version = await configuration.version(connection)
            each = [in_order] * len(endpoint_ids), [30.0] * len(endpoint_ids)
            made = Offer(self.hospital.tenant_id, LAB_RESULT, version, endpoint_ids, *each)
            assert self.own.name is not None
            await offers.offer(connection, self.worker_id, self.own.name, made)

    async def next(self) -> Handed:
        async with asyncio.timeout(PATIENCE):
            await self.heard.wait()
        (words,) = self.heard.take()
        self.heard.clear()
        return offers.read_handed(words)

    async def beat(self, outbox_above: int = 0) -> None:
        async with self.hospital.database.connection() as connection:
            await workers.heartbeat(connection, self.worker_id, "worker", outbox_above)


@asynccontextmanager
async def offering(hospital: Hospital) -> AsyncIterator[Offering]:
    own, heard = OwnChannel(), Heard()
    listening = asyncio.create_task(listen(hospital.database, {LEASED: heard}, own=own))
    async with asyncio.timeout(PATIENCE):
        await heard.wait()
    heard.clear()
    worker = Offering(hospital, uuid7(), own, heard, listening)
    await worker.beat()
    try:
        yield worker
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def post(hospital: Hospital, key: str | None = None, event: Appended | None = None) -> Appended:
    event = event or hospital.prepared(key)
    async with hospital.database.connection() as connection:
        await offers.append(connection, [event], time.time())
    return event


async def waits_in_outbox(hospital: Hospital, event: Appended) -> bool:
    """It took the long way: no delivery was made of it."""
    (row,) = await hospital.rows(
        "SELECT EXISTS (SELECT FROM outbox WHERE event_id = $1) AS waits, "
        "EXISTS (SELECT FROM deliveries WHERE event_id = $1) AS is_made, "
        "EXISTS (SELECT FROM events WHERE id = $1) AS is_stored",
        event.id,
    )
    assert row["is_stored"]
    assert row["waits"] is not row["is_made"]
    return bool(row["waits"])


async def test_an_event_is_stored_with_its_deliveries_which_are_leased_to_who_has_offered(hospital: Hospital) -> None:
    first, second = await hospital.endpoint(), await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(first, second)
        event = await post(hospital, "a")
        handed = await worker.next()
    rows = await hospital.rows("SELECT *, due_at - now() AS lease FROM deliveries ORDER BY endpoint_id")
    assert [row["id"] for row in rows] == [deliveries.id_of(event.id, one) for one in sorted([first, second])]
    assert {(row["attempt"], row["lease_id"], row["ordering_key"], row["type"]) for row in rows} == {
        (1, handed.lease_id, event.ordering_key, LAB_RESULT)
    }
    assert all(29 < row["lease"].total_seconds() <= 30 for row in rows)
    assert (handed.event_id, handed.tenant_id, handed.type) == (event.id, event.tenant_id, LAB_RESULT)
    assert set(handed.endpoint_ids) == {first, second}
    assert (handed.body, handed.waits, handed.ordering_key) == (event.body, False, event.ordering_key)
    assert abs(handed.leased_at - time.time()) < PATIENCE
    assert await hospital.count("outbox") == 0


@pytest.mark.parametrize("endpoint", range(20))
async def test_ids_are_those_that_fan_out_would_give(hospital: Hospital, endpoint: int) -> None:
    endpoint_id = await hospital.endpoint(id=UUID(bytes=bytes([endpoint * 12] * 16)))
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        event = await post(hospital)
    (row,) = await hospital.rows("SELECT id FROM deliveries")
    assert row["id"] == deliveries.id_of(event.id, endpoint_id)


async def test_without_an_offer_the_event_waits_in_the_outbox_and_workers_are_told(hospital: Hospital) -> None:
    await hospital.endpoint()
    assert await waits_in_outbox(hospital, await post(hospital, "a"))


async def _listens_no_more(hospital: Hospital, worker: Offering) -> None:
    worker.listening.cancel()
    await asyncio.wait([worker.listening])


async def _is_cut_off(hospital: Hospital, worker: Offering) -> None:
    await hospital.rows(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks JOIN pg_database AS d ON d.oid = database"
        " WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND datname = current_database()"
    )


async def _is_silent(hospital: Hospital, worker: Offering) -> None:
    await hospital.rows("UPDATE workers SET seen_at = now() - interval '6 seconds' RETURNING id")


async def _scans_slowly(hospital: Hospital, worker: Offering) -> None:
    await worker.beat(-1)


async def _has_left(hospital: Hospital, worker: Offering) -> None:
    async with hospital.database.connection() as connection:
        await workers.deregister(connection, worker.worker_id)


async def _was_withdrawn(hospital: Hospital, worker: Offering) -> None:
    async with hospital.database.connection() as connection:
        await offers.withdraw(connection, worker.worker_id, hospital.tenant_id, LAB_RESULT)


async def _another_endpoint(hospital: Hospital, worker: Offering) -> None:
    endpoint_id = await hospital.endpoint()
    await hospital.change("UPDATE endpoints SET name = 'another' WHERE id = $1", endpoint_id)


async def _something_waits(hospital: Hospital, worker: Offering) -> None:
    async with hospital.database.connection() as connection:
        await outbox.append(connection, [hospital.prepared("b")])


CHANGES = [
    _listens_no_more,
    _is_cut_off,
    _is_silent,
    _scans_slowly,
    _has_left,
    _was_withdrawn,
    _another_endpoint,
    _something_waits,
]


@pytest.mark.parametrize("happens", CHANGES)
async def test_where_anything_has_changed_since_the_event_waits_in_the_outbox(
    hospital: Hospital, happens: Callable[[Hospital, Offering], Awaitable[None]]
) -> None:
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        assert not await waits_in_outbox(hospital, await post(hospital, "a"))
        await happens(hospital, worker)
        assert await waits_in_outbox(hospital, await post(hospital, "c"))


async def test_no_offer_is_made_beside_a_worker_that_would_not_wait_for_an_append(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        await hospital.rows("INSERT INTO workers (id, name, protocol) VALUES ($1, 'old', 1) RETURNING id", uuid7())
        await worker.offer(endpoint_id)
        assert await hospital.count("offers") == 0


async def test_what_was_stored_under_the_same_key_before_is_not_made_again(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        event = hospital.prepared("a")
        again = Appended(
            **{**{f: getattr(event, f) for f in event.__struct_fields__}, "key": b"k", "fingerprint": b"f"}
        )
        async with hospital.database.connection() as connection:
            assert list(await offers.append(connection, [again], time.time())) == [event.id]
            assert await offers.append(connection, [again], time.time()) == {}
    assert await hospital.count("deliveries") == 1
    assert await hospital.count("events") == 1


async def test_nothing_is_made_while_the_clock_is_in_doubt(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        event = hospital.prepared(None)
        async with hospital.database.connection() as connection:
            await offers.append(connection, [event], time.time() - 3_600)
        assert await waits_in_outbox(hospital, event)


async def test_a_long_body_is_left_to_be_asked_for(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        event = hospital.prepared(None)
        await post(hospital, event=replace(event, body=b"x" * 5_001))
        assert (await worker.next()).body is None


async def test_as_much_as_may_be_said_fits_into_a_notification(hospital: Hospital) -> None:
    endpoint_ids = [await hospital.endpoint() for _ in range(16)]
    async with offering(hospital) as worker:
        await worker.offer(*endpoint_ids)
        event = hospital.prepared("a")
        await post(hospital, event=replace(event, body=b"x" * 5_000))
        handed = await worker.next()
    assert (len(handed.endpoint_ids), handed.body) == (16, b"x" * 5_000)


async def test_only_the_first_of_a_key_is_leased_and_the_next_is_not_stranded_by_its_end(
    hospital: Hospital,
) -> None:
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        await post(hospital, "a")
        first = await worker.next()
        second = await post(hospital, "a")
        handed = await worker.next()
        assert (handed.event_id, handed.endpoint_ids, handed.waits) == (second.id, [], True)
        assert await hospital.claim(endpoint_id) == []
        head = first_attempt(first, endpoint_id, first.lease_id, True)
        await hospital.finish(head)
        assert [one.event_id for one in await hospital.claim(endpoint_id)] == [second.id]


async def test_keys_of_an_endpoint_without_order_are_not_looked_at(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint(ordering="none")
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id, in_order=False)
        for _ in range(2):
            await post(hospital, "a")
            assert (await worker.next()).endpoint_ids == [endpoint_id]
    assert await hospital.count("deliveries WHERE ordering_key IS NULL AND lease_id IS NOT NULL") == 2


async def test_an_append_does_not_wait_for_the_end_of_the_delivery_before(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        first = await post(hospital, "a")
        async with hospital.database.connection() as connection, connection.transaction():
            await connection.fetch("SELECT FROM deliveries WHERE event_id = $1 FOR UPDATE", first.id)
            assert await waits_in_outbox(hospital, await post(hospital, "a"))
            assert await waits_in_outbox(hospital, await post(hospital, "b"))  # it goes behind


async def test_a_settle_that_waited_for_an_append_finds_what_it_made(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    await hospital.post("a")
    await hospital.fan_out()
    (head,) = await hospital.claim(endpoint_id)
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        second = hospital.prepared("a")
        await crossing(
            hospital, lambda connection: offers.append(connection, [second], time.time()), hospital.finish(head)
        )
        assert not await waits_in_outbox(hospital, second)
    assert [one.event_id for one in await hospital.claim(endpoint_id)] == [second.id]


async def test_fan_out_waits_for_an_append_and_sees_what_it_made(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        first = hospital.prepared("a")
        second: list[UUID] = []

        async def append(connection: asyncpg.Connection) -> None:
            await offers.append(connection, [first], time.time())
            second.extend(await hospital.post("a"))

        await crossing(hospital, append, hospital.fan_out())
    rows = await hospital.rows("SELECT event_id, due_at FROM deliveries ORDER BY sequence")
    assert [(row["event_id"], row["due_at"] is None) for row in rows] == [(first.id, False), (second[0], True)]


async def test_of_two_appends_at_once_one_makes_its_deliveries_and_the_other_waits_for_nobody(
    hospital: Hospital,
) -> None:
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        first = hospital.prepared("a")
        async with hospital.database.connection() as connection, connection.transaction():
            await offers.append(connection, [first], time.time())
            assert await waits_in_outbox(hospital, await post(hospital, "a"))
        assert not await waits_in_outbox(hospital, first)


async def test_who_stops_listening_has_heard_all_that_was_leased_to_it(hospital: Hospital) -> None:
    """Though a transaction that has much to delete lets go of its locks well before it tells what it said."""
    tables = [f"left_{number}" for number in range(300)]
    async with hospital.database.connection() as connection:
        await connection.execute("; ".join(f"CREATE TABLE {table} (id bigint PRIMARY KEY)" for table in tables))
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        event = hospital.prepared("a")

        async def append(connection: asyncpg.Connection) -> None:
            await offers.append(connection, [event], time.time())
            await connection.execute(f"DROP TABLE {', '.join(tables)}")

        await crossing(hospital, append, _listens_no_more(hospital, worker))
        (words,) = worker.heard.take()
    assert offers.read_handed(words).event_id == event.id
