"""Leases: claimed once, settled by the holder only, due again when they end."""

import asyncio
from collections import Counter
from dataclasses import replace
from uuid import UUID, uuid4

from tests.store.test_order import crossing
from tests.support.hospital import Hospital
from webhook_gateway.delivery.registry import LONG_AGO
from webhook_gateway.store import deliveries
from webhook_gateway.store.database import Connection
from webhook_gateway.store.deliveries import Retried, Wanted


async def test_two_workers_racing_never_claim_the_same_delivery(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    await hospital.post(times=300)
    await hospital.fan_out()

    async def work() -> list[UUID]:
        mine: list[UUID] = []
        while claimed := await hospital.claim(endpoint_id, free=7):
            mine += [delivery.id for delivery in claimed]
            await hospital.finish(*claimed)
        return mine

    claimed = Counter(delivery for mine in await asyncio.gather(*(work() for _ in range(6))) for delivery in mine)
    assert len(claimed) == 300
    assert set(claimed.values()) == {1}
    assert await hospital.count("finished_deliveries WHERE state = 'delivered'") == 300
    assert await hospital.count("deliveries") == 0


async def test_two_dispatchers_racing_make_each_delivery_once(hospital: Hospital) -> None:
    await hospital.endpoint()
    await hospital.endpoint("lab_result.*")
    await hospital.endpoint("payment.*")
    posted = [event_id for _ in range(20) for event_id in await hospital.post(times=100)]
    others = [replace(hospital) for _ in range(3)]

    async def drain(one: Hospital) -> None:
        while await one.count("outbox"):
            await one.fan_out()

    await asyncio.gather(*(drain(one) for one in others))
    assert await hospital.count("deliveries") == 2 * len(posted)
    assert await hospital.count("(SELECT DISTINCT event_id, endpoint_id FROM deliveries) AS pairs") == 2 * len(posted)


async def test_a_lease_that_ended_makes_the_delivery_due_again_and_its_old_holder_changes_nothing(
    hospital: Hospital,
) -> None:
    endpoint_id = await hospital.endpoint()
    await hospital.post()
    await hospital.fan_out()
    (stale,) = await hospital.claim(endpoint_id, lease=0.0)
    (fresh,) = await hospital.claim(endpoint_id)
    assert (stale.id, stale.attempt, fresh.attempt) == (fresh.id, 1, 2)
    assert await hospital.finish(stale, state="dead") == 0
    async with hospital.database.connection() as connection, connection.transaction():
        assert (await deliveries.settle(connection, [], [], [Retried(stale, 0.0)])).ours == set()
    assert await hospital.finish(fresh) == 1


async def test_a_settle_that_waits_for_a_claim_of_what_it_held_changes_nothing(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    await hospital.post("a", "b")
    await hospital.fan_out()
    stale = await hospital.claim(endpoint_id, lease=0.0)

    async def claim(connection: Connection) -> None:
        await deliveries.claim(connection, [Wanted(endpoint_id, 1, LONG_AGO, 30.0)], uuid4())

    finished: list[int] = []

    async def finish() -> None:
        finished.append(await hospital.finish(*stale))

    await crossing(hospital, claim, finish())
    assert finished == [1]
    (row,) = await hospital.rows("SELECT attempt FROM deliveries")
    assert row["attempt"] == 2
    assert await hospital.count("finished_deliveries WHERE state = 'delivered'") == 1
    assert await hospital.count("finished_deliveries WHERE state = 'dead'") == 0


async def test_a_retry_is_due_after_its_delay_and_one_that_does_not_count_gives_the_attempt_back(
    hospital: Hospital,
) -> None:
    endpoint_id = await hospital.endpoint()
    await hospital.post()
    await hospital.fan_out()
    (first,) = await hospital.claim(endpoint_id)
    async with hospital.database.connection() as connection, connection.transaction():
        await deliveries.settle(connection, [], [], [Retried(first, 0.0, counted=False)])
    (second,) = await hospital.claim(endpoint_id)
    assert second.attempt == 1
    async with hospital.database.connection() as connection, connection.transaction():
        await deliveries.settle(connection, [], [], [Retried(second, 3600.0)])
    assert await hospital.claim(endpoint_id) == []
    assert await hospital.count("deliveries WHERE due_at > now() + interval '59 minutes' AND lease_id IS NULL") == 1


async def test_an_endpoint_made_before_an_event_never_misses_it(hospital: Hospital) -> None:
    """The dispatcher's copy of the endpoints is old, and it notices within the fan-out itself."""
    await hospital.endpoint("payment.*")
    await hospital.post()
    await hospital.fan_out()
    late = await hospital.endpoint("lab_result.*")
    await hospital.post()
    await hospital.fan_out()
    assert len(await hospital.claim(late)) == 1


async def test_a_cancelled_delivery_is_kept_as_such_and_one_being_sent_is_left_alone(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    await hospital.post(None, None)
    await hospital.fan_out()
    (sending,) = await hospital.claim(endpoint_id, free=1)
    async with hospital.database.connection() as connection, connection.transaction():
        cancelled = await deliveries.cancel(
            connection, tenant_id=hospital.tenant_id, ids=None, endpoint_id=endpoint_id, reason="endpoint_deleted"
        )
    assert cancelled == 1
    assert await hospital.count("finished_deliveries WHERE state_reason = 'endpoint_deleted'") == 1
    assert await hospital.finish(sending) == 1
