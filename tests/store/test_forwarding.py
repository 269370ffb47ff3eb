"""What waits for a retry is brought forward when its endpoint answers again: once an opening, and at its rate."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from time import time
from uuid import UUID

import pytest

from tests.support.hospital import Hospital
from webhook_gateway.rules.model import Endpoint, EndpointState, Health
from webhook_gateway.store import configuration, deliveries, endpoints, forwarding
from webhook_gateway.store.deliveries import Retried

LATER = 3_600.0
OPEN, CLOSED = Health(open_until=1.0, openings=1, failing_since=1.0), Health()
NEXT_SLICE = "UPDATE endpoint_health SET forward_at = now() WHERE forward_at < now() + interval '2 s'"
COUNT_CHANGES = (
    "CREATE TABLE changes (id uuid)",
    """
    CREATE FUNCTION count_change() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO changes VALUES (new.id); RETURN new; END $$
    """,
    "CREATE TRIGGER changes AFTER UPDATE ON deliveries FOR EACH ROW EXECUTE FUNCTION count_change()",
)
MOVED = "deliveries WHERE forwarded_from IS NOT NULL"


async def test_whose_breaker_closes_gets_what_waits_from_a_second_on_at_its_rate(hospital: Hospital) -> None:
    endpoint_id = await failing(hospital, times=60, rate=20.0)
    await recover(hospital, endpoint_id)
    assert await slices(hospital) == [20, 20, 20, 0]
    assert await hospital.count(f"{MOVED} AND due_at > now() + interval '1 hour'") == 0
    waits = await hospital.rows(
        "SELECT extract(epoch FROM due_at - min(due_at) OVER ()) AS after FROM deliveries ORDER BY due_at LIMIT 20"
    )
    assert max(float(row["after"]) for row in waits) <= 1.0


async def test_a_slice_is_due_later_than_any_low_water_mark_and_spread_over_a_second(hospital: Hospital) -> None:
    endpoint_id = await failing(hospital, times=10, rate=10.0)
    await recover(hospital, endpoint_id)
    async with hospital.database.connection() as connection, connection.transaction():
        now = await connection.fetchval("SELECT now()")
        await forwarding.forward(connection, time())
        due = [row["due_at"] for row in await connection.fetch("SELECT due_at FROM deliveries ORDER BY due_at")]
    assert [round((moment - now).total_seconds(), 3) for moment in due] == [1 + n / 10 for n in range(10)]


async def test_each_is_moved_once_an_opening_and_by_no_success_in_between(hospital: Hospital) -> None:
    endpoint_id = await failing(hospital, times=3)
    await recover(hospital, endpoint_id)
    assert sum(await slices(hospital)) == 3
    await fail_again(hospital, endpoint_id)
    assert await hospital.count("deliveries WHERE due_at > now() + interval '58 minutes' AND attempt = 1") == 3
    await save(hospital, endpoint_id, Health(failing_since=2.0))
    await save(hospital, endpoint_id, CLOSED)
    assert sum(await slices(hospital)) == 0
    await recover(hospital, endpoint_id)
    assert sum(await slices(hospital)) == 0, "begun five minutes ago at most"
    await hospital.rows("UPDATE endpoint_health SET forward_at = now(), forwarded_at = now() - interval '5 minutes'")
    assert sum(await slices(hospital)) == 3


async def test_what_fails_once_more_is_due_when_it_was_before_and_has_lost_no_attempt(hospital: Hospital) -> None:
    endpoint_id = await failing(hospital)
    (before,) = await hospital.rows("SELECT due_at, attempt FROM deliveries")
    for _ in range(20):
        await hospital.rows("UPDATE endpoint_health SET forwarded_at = NULL")
        await recover(hospital, endpoint_id)
        assert sum(await slices(hospital)) == 1
        await fail_again(hospital, endpoint_id)
        (after,) = await hospital.rows("SELECT due_at, attempt FROM deliveries")
        assert after == before


async def test_nothing_is_due_before_the_partner_has_asked_for(hospital: Hospital) -> None:
    endpoint_id = await failing(hospital, retry_after=600.0)
    await recover(hospital, endpoint_id)
    await slices(hospital)
    (row,) = await hospital.rows("SELECT extract(epoch FROM due_at - now())::float8 AS seconds FROM deliveries")
    assert 590 < row["seconds"] <= 600
    silent = await failing(hospital)
    await save(hospital, silent, OPEN)
    await hospital.rows("UPDATE endpoint_health SET held_until = now() + interval '1 hour'")
    async with hospital.database.begin() as connection:
        await endpoints.set_state(connection, hospital.tenant_id, silent, EndpointState.ENABLED, None, "a test")
    assert sum(await slices(hospital)) == 0
    await hospital.rows("UPDATE endpoint_health SET held_until = now()")
    assert sum(await slices(hospital)) == 1


async def test_of_many_workers_one_moves_each_and_what_one_leaves_the_others_go_on_with(hospital: Hospital) -> None:
    endpoint_ids = [await failing(hospital, times=100, rate=50.0) for _ in range(3)]
    for endpoint_id in endpoint_ids:
        await recover(hospital, endpoint_id)
    for statement in COUNT_CHANGES:
        await hospital.rows(statement)

    async def work() -> None:
        while await hospital.count("changes") < 300:
            async with hospital.database.connection() as connection:
                await forwarding.forward(connection, time())
                await connection.execute(NEXT_SLICE)

    async with hospital.database.connection() as one:
        crashes = one.transaction()
        await crashes.start()
        await forwarding.forward(one, time())
        async with hospital.database.connection() as other:
            assert await forwarding.forward(other, time()) is None
        await crashes.rollback()
    assert await hospital.count(MOVED) == 0
    await asyncio.gather(*(work() for _ in range(5)))
    assert await hospital.count(MOVED) == 300
    assert sum(await slices(hospital)) == 0
    assert await hospital.count("changes") == 300


async def test_what_is_being_sent_due_or_behind_another_of_its_key_stays(hospital: Hospital) -> None:
    endpoint_id = await failing(hospital, "a", "a", None)
    await hospital.post()
    await hospital.fan_out()
    (_sending,) = await hospital.claim(endpoint_id)
    await recover(hospital, endpoint_id)
    assert sum(await slices(hospital)) == 2
    assert await hospital.count("deliveries WHERE due_at IS NULL AND forwarded_from IS NULL") == 1
    assert await hospital.count("deliveries WHERE lease_id IS NOT NULL AND forwarded_from IS NULL") == 1


async def test_a_breaker_that_opens_in_between_ends_it(hospital: Hospital) -> None:
    endpoint_id = await failing(hospital, times=20, rate=10.0)
    await recover(hospital, endpoint_id)
    assert await slices(hospital, most=1) == [10]
    await save(hospital, endpoint_id, OPEN)
    assert await slices(hospital) == [0]


async def test_who_is_resumed_gets_what_waits(hospital: Hospital) -> None:
    endpoint_id = await failing(hospital, times=3)
    await save(hospital, endpoint_id, Health(failing_since=1.0))
    async with hospital.database.begin() as connection:
        await endpoints.set_state(connection, hospital.tenant_id, endpoint_id, EndpointState.ENABLED, None, "a test")
    assert sum(await slices(hospital)) == 3


async def test_while_the_databases_clock_is_a_day_off_nothing_is_moved_and_what_was_put_off_a_day_goes_on(
    hospital: Hospital,
) -> None:
    await recover(hospital, await failing(hospital))
    async with hospital.database.connection() as connection:
        assert await forwarding.forward(connection, time() - 86_400) is None
    assert await hospital.count(MOVED) == 0
    await hospital.rows("UPDATE endpoint_health SET forward_at = now() + interval '1 day'")
    assert sum(await slices(hospital)) == 1


@pytest.mark.parametrize("equal", [False, True])
async def test_none_is_left_out_where_many_are_due_at_the_same_moment(hospital: Hospital, equal: bool) -> None:
    endpoint_id = await failing(hospital, times=25, rate=10.0)
    if equal:
        await hospital.rows("UPDATE deliveries SET due_at = now() + interval '1 hour'")
    await recover(hospital, endpoint_id)
    assert sum(await slices(hospital)) == 25


async def failing(
    hospital: Hospital, *keys: str | None, times: int = 1, rate: float | None = None, retry_after: float | None = None
) -> UUID:
    """An endpoint with deliveries that have failed once and are due in an hour."""
    endpoint_id = await hospital.endpoint(rate=rate)
    await hospital.post(*keys, times=times)
    await hospital.fan_out()
    await retry(hospital, endpoint_id, retry_after)
    return endpoint_id


async def retry(hospital: Hospital, endpoint_id: UUID, retry_after: float | None = None) -> None:
    claimed = await hospital.claim(endpoint_id, free=1_000)
    async with hospital.database.connection() as connection, connection.transaction():
        await deliveries.settle(connection, [], [], [Retried(one, LATER, retry_after) for one in claimed])


async def fail_again(hospital: Hospital, endpoint_id: UUID) -> None:
    """What was brought forward is due, and fails."""
    await hospital.rows(f"UPDATE {MOVED.replace('WHERE', 'SET due_at = now() WHERE')}")
    await retry(hospital, endpoint_id)


async def recover(hospital: Hospital, endpoint_id: UUID) -> None:
    await save(hospital, endpoint_id, OPEN)
    await save(hospital, endpoint_id, CLOSED)


async def save(hospital: Hospital, endpoint_id: UUID, health: Health) -> None:
    endpoint = Endpoint(endpoint_id, hospital.tenant_id, hospital.subscriber_id, 1, "https://x.example", ("*",))
    async with hospital.database.connection() as connection:
        await configuration.save_health(connection, [(endpoint, health)])


async def slices(hospital: Hospital, most: int = 10) -> Sequence[int]:
    """How many each slice moved, until one moves none; no time passes between them."""
    moved: list[int] = []
    while len(moved) < most and moved[-1:] != [0]:
        async with hospital.database.connection() as connection:
            before = await states(hospital)
            await forwarding.forward(connection, time())
            moved.append(sum(due != before[id] for id, due in (await states(hospital)).items()))
            await connection.execute(NEXT_SLICE)
    return moved


async def states(hospital: Hospital) -> dict[UUID, datetime]:
    return {row["id"]: row["due_at"] for row in await hospital.rows("SELECT id, due_at FROM deliveries")}
