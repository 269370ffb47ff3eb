"""A settle waits for company, and nobody waits for a settle that does. Its wait has no end here: no clock helps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from tests.support.hospital import Hospital
from tests.support.partner import Partner
from webhook_gateway import telemetry
from webhook_gateway.delivery import settling, unsettled
from webhook_gateway.delivery.unsettled import Unsettled
from webhook_gateway.store import outbox, workers
from webhook_gateway.store.database import DatabaseUnavailable
from webhook_gateway.store.notifications import DELIVERIES, notify

Open = Callable[..., Awaitable[Partner]]
SETTLED = "SELECT FROM attempts HAVING count(*) = $1"


@pytest.fixture(autouse=True)
def without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsettled, "COMPANY", 3_600.0)


async def post_one_that_is_settled(hospital: Hospital) -> None:
    await hospital.post()
    await hospital.until(SETTLED, 1)


async def test_what_is_few_is_settled_together_and_at_the_latest_by_the_stop(
    hospital: Hospital, open_partner: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = await open_partner()
    await hospital.endpoint(url=there.url("/hook"))
    async with AsyncExitStack() as stack:
        with monkeypatch.context() as nobody_waits:
            nobody_waits.setattr(Unsettled, "hurry", lambda _: None)
            await stack.enter_async_context(hospital.worker())
            await post_one_that_is_settled(hospital)
            for sent in range(2, 2 + unsettled.FEW - 1):
                await hospital.post()
                await there.got(sent)
            assert await hospital.count("attempts") == 1
            await hospital.post()
            await hospital.until(SETTLED, 1 + unsettled.FEW)
            await hospital.post()
            await there.got(2 + unsettled.FEW)
            assert await hospital.count("attempts") == 1 + unsettled.FEW
    assert await hospital.count("finished_deliveries WHERE state = 'delivered'") == 2 + unsettled.FEW


async def test_the_next_of_an_ordering_key_waits_for_no_company(hospital: Hospital, open_partner: Open) -> None:
    there = await open_partner()
    await hospital.endpoint(url=there.url("/hook"))
    async with hospital.worker():
        await post_one_that_is_settled(hospital)
        await hospital.post("a")
        await there.got(2)
        await hospital.post("a", "a", "a")
        await there.got(5)


async def test_nor_where_another_worker_has_put_it_there(hospital: Hospital, open_partner: Open) -> None:
    there = await open_partner()
    await hospital.endpoint(url=there.url("/hook"))
    async with hospital.worker() as worker:
        await post_one_that_is_settled(hospital)
        await hospital.post("a")
        await there.got(2)
        async with hospital.database.connection() as connection:
            await outbox.append(connection, [hospital.prepared("a")])
            await workers.heartbeat(connection, uuid4(), "another", -1)
        await hospital.fan_out()
        await worker._membership.heartbeat()
        await notify(hospital.database, DELIVERIES)
        await there.got(3)


async def test_a_settle_of_which_nobody_knows_whether_it_was_written_is_written_once(
    hospital: Hospital, open_partner: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = await open_partner()
    await hospital.endpoint(url=there.url("/hook"))
    monkeypatch.setattr(unsettled, "COMPANY", 0.0)
    bugs: list[object] = []
    monkeypatch.setattr(telemetry, "stage_failed", lambda *bug: bugs.append(bug))
    lost: list[str] = []

    def lose(point: str) -> None:
        """Of the first settle the answer is lost."""
        if not lost:
            lost.append(point)
            raise DatabaseUnavailable

    monkeypatch.setattr(settling, "reach", lose)
    async with hospital.worker():
        await post_one_that_is_settled(hospital)
        await hospital.post()
        await there.got(2)
    assert lost == ["within_settle"]
    assert await hospital.count("attempts") == await hospital.count("finished_deliveries") == 2
    assert bugs == []
