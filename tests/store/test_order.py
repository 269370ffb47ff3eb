"""In order, where asked: for one endpoint and one ordering key, n+1 is not attempted until n is finished."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from tests.support.hospital import Hospital
from webhook_gateway.delivery.registry import LONG_AGO
from webhook_gateway.store import deliveries, ordering, outbox, stats
from webhook_gateway.store.database import Connection
from webhook_gateway.store.deliveries import Retried

from .plans import explain


async def test_only_the_head_of_a_key_is_claimable_and_other_keys_never_wait(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    posted = await hospital.post("a", "a", "b", None, "a", "b", None)
    await hospital.fan_out()
    heads = await hospital.claim(endpoint_id)
    assert [delivery.event_id for delivery in heads] == [posted[0], posted[2], posted[3], posted[6]]
    await hospital.finish(heads[0])
    assert [delivery.event_id for delivery in await hospital.claim(endpoint_id)] == [posted[1]]


async def test_a_retry_keeps_its_successors_waiting(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    await hospital.post("a", "a")
    await hospital.fan_out()
    (head,) = await hospital.claim(endpoint_id)
    async with hospital.database.connection() as connection, connection.transaction():
        await deliveries.settle(connection, [], [], [Retried(head, 3600.0)])
    await hospital.post("a")
    await hospital.fan_out()
    assert await hospital.claim(endpoint_id) == []


async def test_an_endpoint_without_ordering_gets_everything_at_once(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint(ordering="none")
    await hospital.post("a", "a", "a")
    await hospital.fan_out()
    assert len(await hospital.claim(endpoint_id)) == 3


async def test_relaxed_goes_on_after_a_dead_delivery_and_says_which_one_was_skipped(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    posted = await hospital.post("a", "a", "a")
    await hospital.fan_out()
    (head,) = await hospital.claim(endpoint_id)
    await hospital.finish(head, state="dead")
    (second,) = await hospital.claim(endpoint_id)
    assert (second.event_id, second.skipped_event_id) == (posted[1], posted[0])
    await hospital.finish(second)
    (third,) = await hospital.claim(endpoint_id)
    assert third.skipped_event_id is None


async def test_strict_holds_the_key_until_an_operator_decides(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint(ordering="strict")
    posted = await hospital.post("a", "a")
    await hospital.fan_out()
    (head,) = await hospital.claim(endpoint_id)
    await hospital.finish(head, state="dead", hold=True)
    await hospital.post("a", "b")
    await hospital.fan_out()
    (other,) = await hospital.claim(endpoint_id)
    assert other.ordering_key != head.ordering_key
    async with hospital.database.connection() as connection, connection.transaction():
        assert head.ordering_key is not None
        assert await ordering.unhold(
            connection, tenant_id=hospital.tenant_id, endpoint_id=endpoint_id, ordering_key=head.ordering_key
        )
    (next_one,) = await hospital.claim(endpoint_id)
    assert (next_one.event_id, next_one.skipped_event_id) == (posted[1], posted[0])


async def test_strict_holds_a_key_that_had_no_successor_when_it_died(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint(ordering="strict")
    await hospital.post("a")
    await hospital.fan_out()
    (head,) = await hospital.claim(endpoint_id)
    await hospital.finish(head, state="dead", hold=True)
    await hospital.post("a")
    await hospital.fan_out()
    assert await hospital.claim(endpoint_id) == []


async def test_latest_sends_only_the_newest_that_nobody_is_sending_yet(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint(ordering="latest")
    await hospital.post("a")
    await hospital.fan_out()
    (sending,) = await hospital.claim(endpoint_id)
    posted = await hospital.post("a", "a", "b", "a")
    await hospital.fan_out()
    assert await hospital.count("finished_deliveries WHERE state_reason = 'superseded'") == 2
    (other,) = await hospital.claim(endpoint_id)
    assert other.event_id == posted[2]
    await hospital.finish(sending)
    (newest,) = await hospital.claim(endpoint_id)
    assert newest.event_id == posted[3]


async def test_latest_drops_a_retry_that_a_newer_one_follows(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint(ordering="latest")
    await hospital.post("a")
    await hospital.fan_out()
    (sending,) = await hospital.claim(endpoint_id)
    (newer,) = await hospital.post("a")
    await hospital.fan_out()
    async with hospital.database.connection() as connection, connection.transaction():
        await deliveries.settle(connection, [], [], [Retried(sending, 3600.0, latest=True)])
    assert [delivery.event_id for delivery in await hospital.claim(endpoint_id)] == [newer]


async def test_latest_drops_nothing_for_a_newer_one_that_its_filter_was_not_asked_about(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint(ordering="latest")
    posted = await hospital.post("a", "a", "a")
    await hospital.rows("DELETE FROM outbox WHERE event_id <> $1", posted[0])
    await hospital.fan_out()
    (wanted,) = await hospital.rows("SELECT * FROM deliveries")
    for event_id, sequence in zip(posted[1:], (1, 2), strict=True):
        await hospital.rows(
            "INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, unfiltered)"
            " VALUES (gen_random_uuid(), $1, $2, $3, 'lab_result.final', $4, $5, true)",
            *(hospital.tenant_id, endpoint_id, event_id, wanted["sequence"] + sequence, wanted["ordering_key"]),
        )
    key = (endpoint_id, wanted["ordering_key"])
    for event_id in posted:
        async with hospital.database.connection() as connection, connection.transaction():
            await ordering.supersede(connection, [key])
        (head,) = await hospital.claim(endpoint_id)
        assert head.event_id == event_id, "one after the other, and none is stranded"
        await hospital.finish(head)


async def test_cancelling_the_head_lets_the_next_go(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    posted = await hospital.post("a", "a")
    await hospital.fan_out()
    async with hospital.database.connection() as connection, connection.transaction():
        head = await connection.fetchval("SELECT id FROM deliveries WHERE event_id = $1", posted[0])
        await deliveries.cancel(
            connection, tenant_id=hospital.tenant_id, ids=[head], endpoint_id=None, reason="cancelled"
        )
    assert [delivery.event_id for delivery in await hospital.claim(endpoint_id)] == [posted[1]]


@pytest.mark.parametrize("seed", range(4))
async def test_however_posts_fan_outs_and_settles_race_each_key_keeps_its_order_and_none_is_stranded(
    hospital: Hospital, seed: int
) -> None:
    """Several workers and dispatchers at once; some attempts fail, some deliveries die, some leases are abandoned."""
    chance = random.Random(seed)
    endpoints = [await hospital.endpoint() for _ in range(2)]
    keys, rounds = "abcde", 30
    accepted: dict[str, list[UUID]] = defaultdict(list)
    tried: dict[tuple[UUID, int], list[int]] = defaultdict(list)
    posting_done = asyncio.Event()

    async def produce() -> None:
        for _ in range(rounds):
            batch = [chance.choice(keys) for _ in range(chance.randint(1, 6))]
            for key, event_id in zip(batch, await hospital.post(*batch), strict=True):
                accepted[key].append(event_id)
        posting_done.set()

    async def dispatch() -> None:
        mine = replace(hospital)
        while not posting_done.is_set() or await hospital.count("outbox"):
            await mine.dispatch.fan_out()

    async def work() -> None:
        while not posting_done.is_set() or await hospital.count("outbox") or await hospital.count("deliveries"):
            for endpoint_id in endpoints:
                claimed = await hospital.claim(endpoint_id, free=3, lease=0.3)
                for delivery in claimed:
                    assert delivery.ordering_key is not None
                    seen = tried[endpoint_id, delivery.ordering_key]
                    if delivery.sequence not in seen:
                        seen.append(delivery.sequence)
                fate = chance.random()
                if fate < 0.15:
                    continue  # this worker is gone: the lease ends by itself
                if fate < 0.3:
                    async with hospital.database.connection() as connection, connection.transaction():
                        await deliveries.settle(connection, [], [], [Retried(d, 0.01) for d in claimed])
                else:
                    await hospital.finish(*claimed, state="dead" if fate < 0.4 else "delivered")

    async with asyncio.timeout(60):
        await asyncio.gather(produce(), dispatch(), dispatch(), *(work() for _ in range(4)))
    total = sum(len(events) for events in accepted.values())
    assert await hospital.count("finished_deliveries") == 2 * total
    assert len(tried) == 2 * len(accepted)
    for (_, _), sequences in tried.items():
        assert sequences == sorted(sequences)


MORE_OF_THE_KEY = """
INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, created_at)
SELECT uuidv7(), tenant_id, endpoint_id, event_id, type, sequence + n, ordering_key, created_at
FROM (SELECT * FROM deliveries WHERE endpoint_id = $1 ORDER BY sequence DESC LIMIT 1) AS last
CROSS JOIN generate_series(1, $2) AS n
"""


async def test_a_hot_key_stays_cheap(hospital: Hospital) -> None:
    """Every step reads a few pages, however many pending and finished ones the key has; so does a claim beside it."""
    hot, beside = await hospital.endpoint("lab_result.final"), await hospital.endpoint("payment.processed")
    await hospital.post("hot", times=1_000)
    await hospital.post(times=100, type="payment.processed")
    await hospital.fan_out()
    await hospital.rows(MORE_OF_THE_KEY, hot, 99_000)
    for _ in range(50):
        await hospital.finish(*await hospital.claim(hot))
    for endpoint_id in hot, beside:
        wanted = [endpoint_id], [1], [LONG_AGO], [30.0]
        assert await pages(hospital, "deliveries_due", deliveries.CLAIM, *wanted, uuid4(), None) < 100
    assert await pages(hospital, "deliveries_due", deliveries.READY) < 100
    (head,) = await hospital.claim(hot)
    key = [hot], [head.ordering_key]
    following = *key, [head.sequence], [None], [30.0], uuid4(), None
    assert await pages(hospital, "release_next", ordering.RELEASE, *following) < 100
    assert await pages(hospital, "deliveries_in_order", ordering.BUSY_KEYS, *key) < 100
    # By what waits alone: where keys are busy, most of what has a key has gone, and vacuum has yet to come.
    assert await pages(hospital, "deliveries_waiting", stats.BACKLOG, [hot, beside], 50, True) < 300


async def pages(hospital: Hospital, found_by: str, statement: str, *arguments: object) -> int:
    """How many pages a statement touches that uses this index or function; what it does is undone."""
    async with hospital.database.connection() as connection:
        plan, touched = await explain(connection, statement, *arguments)
    assert found_by in plan, plan
    return touched


async def crossing(
    hospital: Hospital, first: Callable[[Connection], Awaitable[object]], then: Awaitable[object]
) -> None:
    """``first`` is about to commit when ``then`` begins: it has done its work, and ``then`` runs into its locks."""
    async with hospital.database.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await first(connection)
        other = asyncio.ensure_future(then)
        async with hospital.database.connection() as watcher:
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            async with asyncio.timeout(3):
                while not other.done() and not await watcher.fetchval(waiting):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        await transaction.commit()
        await other


async def test_a_cancel_that_crosses_a_settle_strands_nobody(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    posted = await hospital.post("a", "a", "a")
    await hospital.fan_out()
    (head,) = await hospital.claim(endpoint_id)
    (second,) = await hospital.rows("SELECT id FROM deliveries WHERE event_id = $1", posted[1])

    def cancel_second(connection: Connection) -> Awaitable[object]:
        return deliveries.cancel(
            connection, tenant_id=hospital.tenant_id, ids=[second["id"]], endpoint_id=None, reason="cancelled"
        )

    await crossing(hospital, cancel_second, hospital.finish(head))
    assert [delivery.event_id for delivery in await hospital.claim(endpoint_id)] == [posted[2]]


async def test_letting_a_held_key_go_while_its_next_is_fanned_out_strands_nobody(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint(ordering="strict")
    await hospital.post("a")
    await hospital.fan_out()
    (head,) = await hospital.claim(endpoint_id)
    await hospital.finish(head, state="dead", hold=True)
    (second,) = await hospital.post("a")
    key = (endpoint_id, head.ordering_key or 0)

    async def fan_out_by_hand(connection: Connection) -> None:
        (waiting,) = (await outbox.dequeue(connection, 0, 10)).events
        busy = await ordering.busy_keys(connection, [key], [key], [])
        new = outbox.NewDelivery(
            uuid4(),
            waiting.tenant_id,
            endpoint_id,
            second,
            waiting.type,
            waiting.sequence,
            key[1],
            key not in busy,
        )
        await outbox.insert_deliveries(connection, [new], uuid4())

    async def let_go() -> None:
        async with hospital.database.connection() as connection, connection.transaction():
            await ordering.unhold(
                connection, tenant_id=hospital.tenant_id, endpoint_id=endpoint_id, ordering_key=key[1]
            )

    await crossing(hospital, fan_out_by_hand, let_go())
    assert [delivery.event_id for delivery in await hospital.claim(endpoint_id)] == [second]


async def test_a_newest_that_is_fanned_out_while_its_predecessor_finishes_is_not_stranded(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint(ordering="latest")
    await hospital.post("a")
    await hospital.fan_out()
    (head,) = await hospital.claim(endpoint_id)
    await hospital.post("a")
    await hospital.fan_out()
    (newest,) = await hospital.post("a")
    key = (endpoint_id, head.ordering_key or 0)

    async def fan_out_by_hand(connection: Connection) -> None:
        (waiting,) = (await outbox.dequeue(connection, 0, 10)).events
        busy = await ordering.busy_keys(connection, [], [], [key])
        new = outbox.NewDelivery(
            uuid4(),
            waiting.tenant_id,
            endpoint_id,
            newest,
            waiting.type,
            waiting.sequence,
            key[1],
            key not in busy,
        )
        await outbox.insert_deliveries(connection, [new], uuid4())
        await ordering.supersede(connection, [key])

    await crossing(hospital, fan_out_by_hand, hospital.finish(head))
    assert [delivery.event_id for delivery in await hospital.claim(endpoint_id)] == [newest]


async def test_an_event_whose_commit_was_slow_is_not_stranded_behind_a_later_one(hospital: Hospital) -> None:
    """Its number in the outbox is lower than that of an event which was fanned out before it was seen."""
    endpoint_id = await hospital.endpoint()
    slow = hospital.prepared("a")
    async with hospital.database.connection() as connection, connection.transaction():
        await outbox.append(connection, [slow])
        (later,) = await hospital.post("a")
        await hospital.fan_out()
    (head,) = await hospital.claim(endpoint_id)
    assert head.event_id == later
    await hospital.fan_out()
    await hospital.finish(head)
    assert [delivery.event_id for delivery in await hospital.claim(endpoint_id)] == [slow.id]
