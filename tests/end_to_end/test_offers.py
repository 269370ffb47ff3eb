"""Lone events on the short way: a worker offers to send their type, and they come leased to it, with their bodies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.support.hospital import LAB_RESULT, PAYMENT, Hospital
from tests.support.partner import OK, Partner, Received
from webhook_gateway.delivery import offers as delivery_offers
from webhook_gateway.rules import ids
from webhook_gateway.store import offers
from webhook_gateway.store.clock import id_at

Open = Callable[..., Awaitable[Partner]]
IS_OFFERED = "SELECT FROM offers WHERE type = $1"
DELIVERED = "SELECT FROM finished_deliveries WHERE event_id = $1 AND state = 'delivered'"


async def post(hospital: Hospital, key: str | None = None) -> UUID:
    event = hospital.prepared(key)
    async with hospital.database.connection() as connection:
        assert list(await offers.append(connection, [event], time.time())) == [event.id]
    return event.id


async def offered(hospital: Hospital) -> None:
    """A first event has come the long way, so that the next one need not."""
    await post(hospital)
    await hospital.until(IS_OFFERED, LAB_RESULT)
    await hospital.until("SELECT FROM workers WHERE outbox_above >= 0")


@asynccontextmanager
async def no_fan_out(hospital: Hospital) -> AsyncIterator[None]:
    """Nothing becomes a delivery by the outbox meanwhile."""
    connection = await hospital.database.connect()
    try:
        await connection.execute("SELECT pg_advisory_lock(hashtextextended('webhook_gateway.fan_out', 0))")
        yield
    finally:
        await connection.close()


async def test_what_comes_after_an_offer_is_sent_without_the_outbox(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    await hospital.endpoint(url=partner.url())
    async with hospital.worker():
        await offered(hospital)
        async with no_fan_out(hospital):
            posted = [await post(hospital, key) for key in ("a", "b", None, "c")]
            for event_id in posted:
                await hospital.until(DELIVERED, event_id)
    assert sorted(one.id for one in partner.received[1:]) == [ids.render(ids.EVENT, event_id) for event_id in posted]
    assert {row["attempt"] for row in await hospital.rows("SELECT attempt FROM finished_deliveries")} == {1}


async def test_what_comes_together_is_sent_without_the_outbox_once_its_types_were_offered_together(
    hospital: Hospital, open_partner: Open
) -> None:
    partner = await open_partner()
    await hospital.endpoint(url=partner.url())
    types = [LAB_RESULT, PAYMENT, LAB_RESULT]
    async with hospital.worker():
        for way in (nullcontext(), no_fan_out(hospital)):
            async with way, hospital.database.connection() as connection:
                events = [hospital.prepared(str(n), kind) for n, kind in enumerate(types)]
                await offers.append(connection, events, time.time())
                for event in events:
                    await hospital.until(DELIVERED, event.id)
                for kind in (LAB_RESULT, PAYMENT):
                    await hospital.until(IS_OFFERED, kind)
                await hospital.until("SELECT FROM workers WHERE outbox_above >= 0")
    assert len(partner.received) == 6


async def test_a_body_that_is_too_long_for_a_notification_is_fetched(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    await hospital.endpoint(url=partner.url())
    async with hospital.worker():
        await offered(hospital)
        async with no_fan_out(hospital):
            event_id = await hospital.accept("lab_result.final", comment="x" * 20_000)
            await hospital.until(DELIVERED, event_id)
    assert len(partner.received[1].body) > 20_000


def held() -> tuple[asyncio.Event, asyncio.Event, Callable[[Received], Awaitable[bytes]]]:
    """An answer that says when it is asked for, and comes once it is let go."""
    asked, let_go = asyncio.Event(), asyncio.Event()

    async def answer(_: Received) -> bytes:
        asked.set()
        await let_go.wait()
        return OK

    return asked, let_go, answer


async def test_what_finds_no_slot_is_given_back_uncounted_and_comes_once_in_its_turn(
    hospital: Hospital, open_partner: Open
) -> None:
    asked, let_go, answer = held()
    partner = await open_partner(OK, otherwise=answer)
    await hospital.endpoint(url=partner.url(), slots=1)
    async with hospital.worker():
        await offered(hospital)
        await hospital.until("SELECT FROM finished_deliveries")
        first = await post(hospital)
        await asked.wait()
        second = await post(hospital)
        await hospital.until("SELECT FROM deliveries WHERE event_id = $1 AND attempt = 0 AND lapsed = 0", second)
        assert await hospital.count("offers") == 0
        let_go.set()
        for event_id in (first, second):
            await hospital.until(DELIVERED, event_id)
    assert len(partner.received) == 3
    assert await hospital.count("attempts") == 3


async def test_what_comes_with_its_body_waits_for_no_round(
    hospital: Hospital, open_partner: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: object) -> float:
        return 3_600.0

    monkeypatch.setattr(delivery_offers.Offers, "round", never)
    partner = await open_partner()
    await hospital.endpoint(url=partner.url())
    async with hospital.worker():
        await offered(hospital)
        async with no_fan_out(hospital):
            await hospital.until(DELIVERED, await post(hospital))


async def test_where_there_is_room_for_one_endpoint_only_it_gets_its_own_and_the_other_one_later(
    hospital: Hospital, open_partner: Open
) -> None:
    asked, let_go, answer = held()
    busy, free = await open_partner(OK, otherwise=answer), await open_partner()
    await hospital.endpoint(url=busy.url(), slots=1)
    await hospital.endpoint(url=free.url())
    async with hospital.worker() as worker:
        await offered(hospital)
        await hospital.until("SELECT FROM finished_deliveries HAVING count(*) = 2")
        await post(hospital)
        await asked.wait()
        second = await post(hospital)
        await free.got(3)
        await hospital.until("SELECT FROM deliveries WHERE event_id = $1 AND attempt = 0 AND lapsed = 0", second)
        let_go.set()
        await hospital.until("SELECT FROM finished_deliveries HAVING count(*) = 6")
        assert worker._slots.in_flight == 0
    assert (len(busy.received), len(free.received)) == (3, 3)
    assert await hospital.count("attempts") == 6


async def test_a_worker_that_is_behind_with_writing_down_takes_no_more_at_once(
    hospital: Hospital, open_partner: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    partner = await open_partner()
    await hospital.endpoint(url=partner.url())
    async with hospital.worker():
        await offered(hospital)
        await hospital.until("SELECT FROM finished_deliveries")
        monkeypatch.setattr(delivery_offers, "BEHIND", 0)
        await hospital.until(DELIVERED, await post(hospital))
        await hospital.until("SELECT WHERE NOT EXISTS (SELECT FROM offers)")
    assert len(partner.received) == 2
    assert {row["attempt"] for row in await hospital.rows("SELECT attempt FROM attempts")} == {1}


async def test_what_comes_too_late_is_given_back(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    endpoint_id = await hospital.endpoint(url=partner.url())
    lease_id = uuid4()
    async with hospital.worker() as worker:
        await offered(hospital)
        await hospital.until("SELECT FROM finished_deliveries")
        (event_id,) = await hospital.post()
        await hospital.until(DELIVERED, event_id)
        late = f"{lease_id} {time.time() - 7:.6f} 1 {endpoint_id} {hospital.tenant_id} {event_id} {LAB_RESULT} -"
        worker._offers.handed.tell(late)
        async with asyncio.timeout(20):
            while await hospital.count("offers"):  # noqa: ASYNC110 - a row gives no signal
                await asyncio.sleep(0.01)
    assert len(partner.received) == 2


@pytest.mark.parametrize("words", ["", "x", "1 2 3 4 5 6 7 8 9"])
async def test_what_another_version_says_is_left_alone(hospital: Hospital, open_partner: Open, words: str) -> None:
    partner = await open_partner()
    await hospital.endpoint(url=partner.url())
    async with hospital.worker() as worker:
        await offered(hospital)
        worker._offers.handed.tell(words)
        async with no_fan_out(hospital):
            await hospital.until(DELIVERED, await post(hospital))


@pytest.mark.parametrize(
    "columns", [{"ordering": "strict"}, {"ordering": "latest"}, {"rate": 5.0}], ids=["strict", "latest", "rate"]
)
async def test_no_offer_is_made_where_more_than_the_type_counts(
    hospital: Hospital, open_partner: Open, columns: dict[str, Any]
) -> None:
    partner = await open_partner()
    await hospital.endpoint(url=partner.url(), **columns)
    async with hospital.worker() as worker:
        for _ in range(2):
            await hospital.until(DELIVERED, await post(hospital, "a"))
            await worker._offers.poll()
        assert await hospital.count("offers") == 0


async def test_a_worker_that_stops_leaves_nothing_leased_and_no_offer(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    await hospital.endpoint(url=partner.url())
    posted: list[UUID] = []
    stopped = asyncio.Event()

    async def go_on_posting() -> None:
        while not stopped.is_set():
            posted.append(await post(hospital))

    async with hospital.worker():
        await offered(hospital)
        posting = asyncio.create_task(go_on_posting())
        async with asyncio.timeout(20):
            while len(partner.received) < 20:  # noqa: ASYNC110 - the partner gives no signal
                await asyncio.sleep(0.01)
    stopped.set()
    await posting
    assert await hospital.count("offers") == 0
    assert await hospital.count("deliveries WHERE lease_id IS NOT NULL") == 0
    async with hospital.worker():
        for event_id in posted:
            await hospital.until(DELIVERED, event_id)
    assert len({one.id for one in partner.received}) == len(posted) + 1
    assert len(partner.received) == len(posted) + 1


async def test_the_next_worker_takes_over_offers_of_one_that_was_killed(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    await hospital.endpoint(url=partner.url())
    async with hospital.database.connection() as connection:
        dead, chance = uuid4(), id_at(0.0)
        await connection.execute(
            "INSERT INTO workers (id, name, protocol, outbox_above, seen_at)"
            " VALUES ($1, 'dead', 1, 0, now() - interval '1 minute')",
            dead,
        )
        made = offers.Offer(hospital.tenant_id, LAB_RESULT, 1 << 40, [chance], [True], [30.0])
        await offers.offer(connection, dead, "nobody has this lock", made)
    async with hospital.worker():
        await hospital.until(DELIVERED, await post(hospital))
        await hospital.until(f"{IS_OFFERED} AND worker_id <> $2", LAB_RESULT, dead)
        await hospital.until("SELECT FROM workers WHERE outbox_above >= 0 AND id <> $1", dead)
        async with no_fan_out(hospital):
            await hospital.until(DELIVERED, await post(hospital))
    assert len(partner.received) == 2
