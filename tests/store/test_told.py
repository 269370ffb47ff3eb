"""A lone event becomes deliveries by one statement, from what its notification said: exactly once, and in its turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Any
from uuid import uuid4

import pytest
from uuid_utils.compat import uuid7

from tests.support.hospital import PATIENCE, Hospital
from webhook_gateway.delivery.bodies import Bodies
from webhook_gateway.delivery.dispatch import Dispatch, Round
from webhook_gateway.delivery.due import Due
from webhook_gateway.delivery.registry import Registry
from webhook_gateway.delivery.slots import Slots
from webhook_gateway.delivery.told import FanOut
from webhook_gateway.store import configuration, outbox
from webhook_gateway.store.notifications import OUTBOX, listen
from webhook_gateway.store.outbox import ToldDelivery

from .test_order import crossing


@asynccontextmanager
async def told(hospital: Hospital) -> AsyncIterator[FanOut]:
    """The fan-out of a worker that hears of events, and has looked at an outbox that is empty."""
    database, registry = hospital.database, Registry()
    slots = Slots(database.clock, registry, Due(database.clock, registry), concurrency=100)
    bodies = Bodies(database, hospital.vault)
    fan_out = FanOut(database, registry, slots, bodies, Dispatch(database, hospital.vault, registry, slots, bodies))
    async with database.connection() as connection:
        registry.learn(await configuration.snapshot(connection, hospital.vault))
        fan_out.dispatch.low_water_mark.latest_at = inf
        fan_out.dispatch.low_water_mark.latest = await connection.fetchval("SELECT nextval('outbox_sequence_seq')")
        fan_out.dispatch.low_water_mark.scanned(0, 0.0)
    listening = asyncio.create_task(listen(database, {OUTBOX: fan_out.told}))
    await fan_out.told.wait()
    fan_out.told.take()
    fan_out.told.clear()
    try:
        yield fan_out
    finally:
        listening.cancel()


async def heard(fan_out: FanOut) -> list[str]:
    """What notifications said, once they said something."""
    async with asyncio.timeout(PATIENCE):
        await fan_out.told.wait()
    return fan_out.told._words


async def round_of_told(fan_out: FanOut) -> Round:
    """A round that must not look at the outbox."""
    await heard(fan_out)
    done = await fan_out._fan_out(fan_out.told.take())
    assert done is not None
    return done


async def test_a_lone_event_is_leased_with_its_body_from_what_was_told(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    async with told(hospital) as fan_out:
        (event_id,) = await hospital.post("a", told=True)
        (one,) = (await round_of_told(fan_out)).leased
        (row,) = await hospital.rows("SELECT * FROM deliveries")
        assert (one.delivery.id, one.delivery.lease_id) == (row["id"], row["lease_id"])
        assert (one.delivery.event_id, one.delivery.endpoint_id) == (event_id, endpoint_id)
        assert (row["ordering_key"], row["attempt"]) == (one.delivery.ordering_key, 1)
        assert fan_out.bodies.missing([event_id]) == []
        assert await hospital.count("outbox") == 0


async def test_who_comes_second_finds_nothing_and_makes_nothing(hospital: Hospital) -> None:
    await hospital.endpoint()
    async with told(hospital) as first, told(hospital) as second:
        for _ in range(20):
            await hospital.post("a", None, told=True)
            await asyncio.gather(heard(first), heard(second))
            await asyncio.gather(first.round(), second.round())
            first.told.clear()
            second.told.clear()
        while await hospital.count("outbox"):  # both may have met the other at it
            await first.dispatch.fan_out()
    assert await hospital.count("deliveries") == 40
    assert await hospital.count("(SELECT DISTINCT event_id FROM deliveries) AS events") == 40


async def test_what_was_taken_before_is_not_made_again_however_late_its_notification_is(hospital: Hospital) -> None:
    await hospital.endpoint()
    async with told(hospital) as fan_out, told(hospital) as other:
        await hospital.post("a", told=True)
        await heard(fan_out)
        await round_of_told(other)
        assert (await round_of_told(fan_out)).leased == []
        assert fan_out.slots.in_flight == 0
    assert await hospital.count("deliveries") == 1


async def test_an_older_event_of_which_nothing_was_told_goes_first(hospital: Hospital) -> None:
    await hospital.endpoint()
    async with told(hospital) as fan_out:
        older = hospital.prepared("a")
        async with hospital.database.connection() as connection:
            await outbox.append(connection, [older])
        (newer,) = await hospital.post("a", told=True)
        await heard(fan_out)
        assert await fan_out._fan_out(fan_out.told._words) is None
        assert fan_out.slots.in_flight == 0
        assert (await fan_out.round()).dequeued == 2
    in_order = await hospital.rows("SELECT event_id, due_at FROM deliveries ORDER BY sequence")
    assert [row["event_id"] for row in in_order] == [older.id, newer]
    assert [row["due_at"] is None for row in in_order] == [False, True]


async def test_an_endpoint_that_was_there_before_the_event_is_never_missed(hospital: Hospital) -> None:
    await hospital.endpoint()
    async with told(hospital) as fan_out:
        await hospital.endpoint()
        await hospital.post("a", told=True)
        await heard(fan_out)
        await fan_out.round()
    assert await hospital.count("deliveries") == 2


@pytest.mark.parametrize("columns", [{"ordering": "strict"}, {"ordering": "latest"}])
async def test_keys_that_somebody_may_hold_or_replace_are_left_to_a_look_at_the_outbox(
    hospital: Hospital, columns: dict[str, Any]
) -> None:
    await hospital.endpoint(**columns)
    async with told(hospital) as fan_out:
        await hospital.post("a", told=True)
        assert await fan_out._fan_out(await heard(fan_out)) is None
        assert (await fan_out.round()).dequeued == 1


async def test_only_the_first_of_a_key_is_sent_and_what_follows_is_not_stranded_by_its_end(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    async with told(hospital) as fan_out:
        await hospital.post("a", told=True)
        (first,) = (await round_of_told(fan_out)).leased
        fan_out.told.clear()
        (second,) = await hospital.post("a", told=True)
        assert (await round_of_told(fan_out)).leased == []
        assert await hospital.claim(endpoint_id) == []
        await hospital.finish(first.delivery)
        (head,) = await hospital.claim(endpoint_id)
        assert head.event_id == second
        fan_out.told.clear()
        (third,) = await hospital.post("a", told=True)

        async def settle_under_way(connection: Any) -> None:
            await connection.fetch("SELECT FROM deliveries WHERE id = $1 FOR UPDATE", head.id)
            await connection.execute("DELETE FROM deliveries WHERE id = $1", head.id)

        await crossing(hospital, settle_under_way, round_of_told(fan_out))
    (row,) = await hospital.rows("SELECT event_id, lease_id FROM deliveries")
    assert row["event_id"] == third
    assert row["lease_id"] is not None


async def test_a_settle_that_waited_for_the_statement_finds_what_it_made(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    await hospital.post("a")
    await hospital.fan_out()
    (head,) = await hospital.claim(endpoint_id)
    (second,) = await hospital.post("a")
    (waiting,) = await hospital.rows("SELECT sequence, tenant_id, event_id, type, ordering_key FROM outbox")
    event = outbox.read_told(" ".join(map(str, waiting)))
    new = ToldDelivery(event.sequence, uuid7(), endpoint_id, in_order=True, lease=30.0)

    async def fan_out(connection: Any) -> None:
        made = await outbox.fan_out(connection, 1 << 40, 0, [event], [new], uuid4(), [], hospital.database.clock.now())
        assert made is not None
        assert [row["lease_id"] for row in made[0]] == [None]

    await crossing(hospital, fan_out, hospital.finish(head))
    assert [delivery.event_id for delivery in await hospital.claim(endpoint_id)] == [second]
