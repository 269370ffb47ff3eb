"""Of a few events that are stored together deliveries are made at once: each by itself, or of all of them or none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from tests.support.hospital import LAB_RESULT, PATIENCE, PAYMENT, Hospital
from webhook_gateway.delivery.told import first_attempt
from webhook_gateway.store import configuration, deliveries, offers
from webhook_gateway.store.offers import Handed, Offer
from webhook_gateway.store.outbox import Appended

from .test_offers import CHANGES, Offering, offering, waits_in_outbox


@pytest.fixture(autouse=True, params=[1, offers.BY_ITSELF])
def by_itself(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many events are stored by a call each."""
    monkeypatch.setattr(offers, "BY_ITSELF", request.param)
    return int(request.param)


async def post(hospital: Hospital, *events: Appended) -> None:
    async with hospital.database.connection() as connection:
        assert set(await offers.append(connection, events, time.time())) == {event.id for event in events}


async def heard(worker: Offering, count: int) -> list[Handed]:
    words: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while len(words) < count:
            await worker.heard.wait()
            worker.heard.clear()
            words += worker.heard.take()
    return [offers.read_handed(some) for some in words]


async def all_wait(hospital: Hospital, *events: Appended) -> bool:
    wait = {await waits_in_outbox(hospital, event) for event in events}
    assert len(wait) == 1
    return wait == {True}


async def test_each_is_stored_with_its_deliveries_which_are_leased_to_who_has_offered(hospital: Hospital) -> None:
    first, second = await hospital.endpoint(), await hospital.endpoint()
    events = [hospital.prepared("a", n=1), hospital.prepared("b", n=2), hospital.prepared(None, n=3)]
    async with offering(hospital) as worker:
        await worker.offer(first, second)
        await post(hospital, *events)
        handed = {one.event_id: one for one in await heard(worker, 3)}
    for event in events:
        one = handed[event.id]
        assert (one.body, one.ordering_key, one.waits, one.type) == (event.body, event.ordering_key, False, LAB_RESULT)
        assert set(one.endpoint_ids) == {first, second}
        rows = await hospital.rows(
            "SELECT * FROM deliveries WHERE event_id = $1 AND due_at BETWEEN now() + '20 s' AND now() + '30 s'",
            event.id,
        )
        assert {row["id"] for row in rows} == {deliveries.id_of(event.id, first), deliveries.id_of(event.id, second)}
        assert {(row["attempt"], row["lease_id"], row["ordering_key"]) for row in rows} == {
            (1, one.lease_id, event.ordering_key)
        }
    assert await hospital.count("outbox") == 0
    assert await hospital.count("events") == 3


async def test_each_worker_hears_of_the_types_that_it_has_offered_to_send(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    result, payment = hospital.prepared("a"), hospital.prepared("b", PAYMENT)
    async with offering(hospital) as worker, offering(hospital) as other:
        await worker.offer(endpoint_id)
        async with hospital.database.connection() as connection:
            version = await configuration.version(connection)
            made = Offer(hospital.tenant_id, PAYMENT, version, [endpoint_id], [True], [30.0])
            assert other.own.name is not None
            await offers.offer(connection, other.worker_id, other.own.name, made)
        await post(hospital, result, payment)
        assert [one.event_id for one in await heard(worker, 1)] == [result.id]
        assert [one.event_id for one in await heard(other, 1)] == [payment.id]


async def test_where_one_has_no_offer_it_waits_in_the_outbox_and_so_do_those_that_go_with_it(
    hospital: Hospital, by_itself: int
) -> None:
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        events = [hospital.prepared("a"), hospital.prepared("b", PAYMENT)]
        await post(hospital, *events)
        assert await all_wait(hospital, *events)
        await hospital.fan_out()
        await worker.offer(endpoint_id)
        events = [hospital.prepared("c"), hospital.prepared("d", PAYMENT), hospital.prepared("e")]
        await post(hospital, *events)
        waiting = events if by_itself == 1 else events[1:]  # none goes past what waits
        rows = await hospital.rows("SELECT event_id FROM outbox ORDER BY sequence")
        assert [row["event_id"] for row in rows] == [event.id for event in waiting]
        made = await hospital.rows("SELECT event_id FROM deliveries WHERE event_id = ANY($1)", [e.id for e in events])
        assert {row["event_id"] for row in made} == {event.id for event in events if event not in waiting}


@pytest.mark.parametrize("happens", CHANGES)
async def test_where_anything_has_changed_since_all_wait_in_the_outbox(
    hospital: Hospital, happens: Callable[[Hospital, Offering], Awaitable[None]]
) -> None:
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        events = [hospital.prepared("a"), hospital.prepared("b")]
        await post(hospital, *events)
        assert not await all_wait(hospital, *events)
        await happens(hospital, worker)
        events = [hospital.prepared("c"), hospital.prepared("d")]
        await post(hospital, *events)
        assert await all_wait(hospital, *events)


async def test_what_is_behind_another_of_its_key_is_not_leased_and_not_stranded(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        await post(hospital, hospital.prepared("a"), hospital.prepared("b"))
        first, _ = await heard(worker, 2)
        second, other = hospital.prepared("a"), hospital.prepared("c")
        await post(hospital, second, other)
        handed = {one.event_id: one for one in await heard(worker, 2)}
        assert (handed[second.id].endpoint_ids, handed[second.id].waits) == ([], True)
        assert (handed[other.id].endpoint_ids, handed[other.id].waits) == ([endpoint_id], False)
        await hospital.finish(first_attempt(first, endpoint_id, first.lease_id, True))
        assert [one.event_id for one in await hospital.claim(endpoint_id)] == [second.id]


@pytest.mark.parametrize("beside", [[], ["b"]])
async def test_of_two_endpoints_only_that_which_has_an_earlier_one_open_is_waited_for(
    hospital: Hospital, beside: list[str]
) -> None:
    first, second = await hospital.endpoint(), await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(first, second)
        await post(hospital, hospital.prepared("a"))
        (earlier,) = await heard(worker, 1)
        await hospital.finish(first_attempt(earlier, first, earlier.lease_id, True))
        await post(hospital, event := hospital.prepared("a"), *map(hospital.prepared, beside))
        handed = {one.event_id: one for one in await heard(worker, 1 + len(beside))}
    assert (handed[event.id].endpoint_ids, handed[event.id].waits) == ([first], True)


async def test_an_append_of_few_waits_for_no_settle(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        await post(hospital, first := hospital.prepared("a"), hospital.prepared("b"))
        async with hospital.database.connection() as connection, connection.transaction():
            await connection.fetch("SELECT FROM deliveries WHERE event_id = $1 FOR UPDATE", first.id)
            events = [hospital.prepared("a"), hospital.prepared("c")]
            await post(hospital, *events)
            assert await all_wait(hospital, *events)


async def test_of_those_stored_before_under_their_key_nothing_is_made_again(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    one, two, three = (replace(hospital.prepared(key), key=key.encode(), fingerprint=b"f") for key in "abc")
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        async with hospital.database.connection() as connection:
            assert set(await offers.append(connection, [two, one], time.time())) == {one.id, two.id}
            assert set(await offers.append(connection, [two, three], time.time())) == {three.id}
            assert await offers.append(connection, [one, three], time.time()) == {}
    assert await hospital.count("deliveries") == 3
    assert await hospital.count("events") == 3


async def test_two_that_store_the_same_keys_in_another_order_end_no_transaction_of_each_other(
    hospital: Hospital,
) -> None:
    one, two = (replace(hospital.prepared(key), key=key.encode(), fingerprint=b"f") for key in "ab")
    again = [replace(event, id=hospital.prepared(None).id) for event in (two, one)]
    async with hospital.database.connection() as first, hospital.database.connection() as second:
        async with first.transaction():
            await offers.append(first, [one], time.time())
            other = asyncio.create_task(offers.append(second, again, time.time()))
            await hospital.until(
                "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            await offers.append(first, [two], time.time())
        assert await other == {}


async def test_nothing_is_made_of_few_while_the_clock_is_in_doubt(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    events = [hospital.prepared("a"), hospital.prepared("b")]
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        async with hospital.database.connection() as connection:
            await offers.append(connection, events, time.time() - 3_600)
        assert await all_wait(hospital, *events)


async def test_what_is_long_is_left_to_be_asked_for_and_sixteen_are_told(hospital: Hospital) -> None:
    endpoint_ids = [await hospital.endpoint() for _ in range(16)]
    events = [replace(hospital.prepared(str(n)), body=b"x" * (5_000 + n % 2)) for n in range(16)]
    async with offering(hospital) as worker:
        await worker.offer(*endpoint_ids)
        await post(hospital, *events)
        handed = {one.event_id: one for one in await heard(worker, 16)}
    for n, event in enumerate(events):
        assert set(handed[event.id].endpoint_ids) == set(endpoint_ids)
        assert handed[event.id].body == (None if n % 2 else event.body)
    assert await hospital.count("deliveries") == 256


async def test_beside_another_append_that_makes_deliveries_all_wait_in_the_outbox(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    async with offering(hospital) as worker:
        await worker.offer(endpoint_id)
        first, second = hospital.prepared("a"), hospital.prepared("b")
        events = [hospital.prepared("a"), hospital.prepared("c")]
        async with hospital.database.connection() as connection, connection.transaction():
            await offers.append(connection, [first, second], time.time())
            await post(hospital, *events)
            assert await all_wait(hospital, *events)
        assert not await all_wait(hospital, first, second)
