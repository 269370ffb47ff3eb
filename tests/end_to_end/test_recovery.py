"""An endpoint that answers again gets what waits, at once: nobody waits for a schedule made while it was down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from tests.support.hospital import Hospital
from tests.support.partner import Partner, status
from webhook_gateway.operations import deliveries, endpoint_lifecycle
from webhook_gateway.operations.change import changing, local_actor

Open = Callable[..., Awaitable[Partner]]
HOURS = [100_000.0] * 9
FINISHED = "SELECT FROM finished_deliveries WHERE state = 'delivered'"
WAITS = "SELECT id FROM deliveries WHERE due_at > now() + interval '20 hours' AND lease_id IS NULL"
HALF_OPEN = """
INSERT INTO endpoint_health (endpoint_id, tenant_id, failing_since, open_until, openings)
SELECT id, tenant_id, now(), now() + $1::interval, 7 FROM endpoints
ON CONFLICT (endpoint_id) DO UPDATE SET open_until = excluded.open_until, openings = 7, changed_at = clock_timestamp()
"""


async def test_the_head_of_a_key_goes_out_as_soon_as_its_endpoint_answers_again(
    hospital: Hospital, open_partner: Open
) -> None:
    partner = await down(hospital, open_partner, "a", "a", "b")
    await hospital.change(HALF_OPEN.replace("$1", "'-1 s'"))
    async with hospital.worker():
        await hospital.post(None)
        await hospital.until(f"{FINISHED} OFFSET 3")
    assert len(partner.received) == 2 + 4
    assert [row["attempt"] for row in await hospital.rows("SELECT attempt FROM finished_deliveries")] == [1] * 4


async def test_who_is_resumed_gets_what_failed_before(hospital: Hospital, open_partner: Open) -> None:
    await down(hospital, open_partner, "a", "a")
    await hospital.change("UPDATE endpoints SET state = 'disabled'")
    (endpoint_id,) = [row["id"] for row in await hospital.rows("SELECT id FROM endpoints")]
    async with changing(hospital.database, local_actor(hospital.tenant_id)) as change:
        await endpoint_lifecycle.resume(change, hospital.vault, endpoint_id)
    async with hospital.worker():
        await hospital.until(f"{FINISHED} OFFSET 1")


@pytest.mark.parametrize("silent", [False, True])
async def test_one_that_is_tried_now_goes_out_though_its_endpoint_is_left_alone_and_all_others_follow(
    hospital: Hospital, open_partner: Open, silent: bool
) -> None:
    await down(hospital, open_partner, "a", "a", "b")
    await hospital.change(HALF_OPEN.replace("$1", "'1 day'"))
    if silent:
        await hospital.change("UPDATE endpoint_health SET held_until = now() + interval '1 day'")
    first: UUID = (await hospital.rows(f"{WAITS} ORDER BY sequence LIMIT 1"))[0]["id"]
    async with hospital.worker():
        async with changing(hospital.database, local_actor(hospital.tenant_id)) as change:
            tried = await deliveries.try_now(change, first)
        assert isinstance(tried, dict)
        await hospital.until(f"{FINISHED} OFFSET 2")


async def test_one_that_is_tried_now_and_fails_waits_as_before(hospital: Hospital, open_partner: Open) -> None:
    await down(hospital, open_partner, None, answers=2)
    (before,) = await hospital.rows("SELECT id, due_at, attempt FROM deliveries")
    async with hospital.worker():
        async with changing(hospital.database, local_actor(hospital.tenant_id)) as change:
            await deliveries.try_now(change, before["id"])
        await hospital.until("SELECT FROM attempts OFFSET 1")
    assert await hospital.rows("SELECT id, due_at, attempt FROM deliveries") == [before]


async def down(hospital: Hospital, open_partner: Open, *keys: str | None, answers: int | None = None) -> Partner:
    """A partner who was down: the heads of the keys have failed once, and wait for more than a day."""
    heads = len({*keys})
    partner = await open_partner(*[status(500)] * (answers or heads))
    await hospital.endpoint(url=partner.url(), schedule=HOURS)
    async with hospital.worker():
        await hospital.post(*keys)
        await hospital.until(f"{WAITS} OFFSET {heads - 1}")
    return partner
