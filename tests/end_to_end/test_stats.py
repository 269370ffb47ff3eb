"""What attempts come to is counted by the workers, and is there whatever becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.hospital import PATIENCE, Hospital
from tests.support.partner import Partner, status
from webhook_gateway.delivery.stats import IDLE, Stats
from webhook_gateway.operations import stats
from webhook_gateway.operations.change import local_actor
from webhook_gateway.store.database import Database
from webhook_gateway.store.notifications import STATS, listen

from .test_ledger import worker

Open = Callable[..., Awaitable[Partner]]
SUMS = """
SELECT outcome, status, detail, sum(attempts) AS attempts, sum(died) AS died FROM attempt_stats
WHERE about_id = $1 GROUP BY 1, 2, 3 ORDER BY 1, 2
"""


async def test_attempts_are_counted_by_endpoint_and_outcome_and_for_the_hospital(
    hospital: Hospital, open_partner: Open
) -> None:
    there = await open_partner(status(503), status(422))
    endpoint_id = await hospital.endpoint(url=there.url("/hook"), schedule=[0.01] * 3)
    await hospital.post(times=2)
    async with hospital.worker():
        await hospital.until("SELECT FROM finished_deliveries HAVING count(*) = 2")
    assert [tuple(row) for row in await hospital.rows(SUMS, endpoint_id)] == [
        ("accepted", None, None, 2, 0),
        ("rejected", 422, None, 1, 0),
        ("rejected", 503, None, 1, 0),
    ]
    assert [tuple(row) for row in await hospital.rows(SUMS, hospital.tenant_id)] == [
        ("accepted", None, None, 2, 0),
        ("rejected", None, None, 2, 0),
    ]


async def test_what_a_worker_counted_is_there_before_it_stops_and_is_told_once_a_flush(
    hospital: Hospital, open_partner: Open
) -> None:
    there, told = await open_partner(), asyncio.Event()
    await hospital.endpoint(url=there.url("/hook"))
    listening = asyncio.create_task(listen(hospital.database, {STATS: told}))
    async with asyncio.timeout(PATIENCE):
        await told.wait()  # it listens
    told.clear()
    async with hospital.worker():
        await hospital.post()
        async with asyncio.timeout(PATIENCE):
            await told.wait()
        assert await hospital.count("attempt_stats WHERE outcome = 'accepted'") == 2
    listening.cancel()


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_a_worker_that_is_killed_loses_what_it_counted_since_it_last_wrote_and_no_more(
    hospital: Hospital, open_partner: Open
) -> None:
    there = await open_partner()
    endpoint_id = await hospital.endpoint(url=there.url("/hook"))

    async def post() -> None:
        while True:
            sent = len(there.received)
            await hospital.post("one key, so that each is sent when the one before is settled", times=20)
            await there.got(sent + 20)

    async with worker(hospital) as killed:
        posting = asyncio.create_task(post())
        written = "SELECT FROM attempt_stats WHERE about_id = $1 HAVING count(*) > 1"
        await hospital.until(written, endpoint_id)
        attempts = await hospital.count("attempts")
        await hospital.until("SELECT FROM attempts HAVING count(*) > $1", attempts)
        killed.kill()
        await killed.wait()
        posting.cancel()
    rows = "SELECT sum(attempts) AS attempts, max(last_at) AS last_at FROM attempt_stats WHERE about_id = $1"
    ((counted, last_at),) = await hospital.rows(rows, endpoint_id)
    ((before,),) = await hospital.rows("SELECT count(*) FROM attempts WHERE started_at <= $1", last_at)
    assert 0 <= counted - before <= 1, "the last one may have been counted, and not settled"
    assert 0 <= len(there.received) - await hospital.count("attempts") <= 1, "what was sent and not settled"


async def test_while_nothing_is_sent_nothing_is_written_and_nobody_asks_the_database() -> None:
    idle = Stats(Database("postgresql://nobody@127.0.0.1:1/nowhere"))
    assert await idle.poll() == IDLE
    await idle.flush()


async def test_a_failure_is_a_problem_until_the_endpoint_takes_something_again(
    hospital: Hospital, open_partner: Open
) -> None:
    there = await open_partner(status(500), status(500), status(404))
    endpoint_id = await hospital.endpoint(url=there.url("/hook"), schedule=[3_600.0])
    deliveries = await hospital.post(times=2)
    async with hospital.worker():
        await hospital.until("SELECT FROM attempts HAVING count(*) = 2")
    (problem,) = await problems(hospital)
    assert (problem["endpoint_id"], problem["status"], problem["attempts"]) == (endpoint_id, 500, 2)
    assert problem["first_at"] <= problem["last_at"]
    made = await hospital.rows("SELECT id FROM deliveries")
    assert problem["delivery_id"] in [row["id"] for row in made]
    assert len(deliveries) == 2

    await hospital.change("UPDATE deliveries SET due_at = now()")
    async with hospital.worker():
        await hospital.until("SELECT FROM attempts HAVING count(*) = 4")
    assert await problems(hospital) == []


async def test_a_test_that_succeeds_ends_a_problem_and_one_that_fails_is_none(
    hospital: Hospital, open_partner: Open
) -> None:
    there = await open_partner(status(500), status(500))
    endpoint_id = await hospital.endpoint(url=there.url("/hook"), schedule=[3_600.0])
    async with hospital.worker():
        await hospital.test(endpoint_id)
        await hospital.until("SELECT FROM attempts HAVING count(*) = 1")
    assert await problems(hospital) == []
    async with hospital.worker():
        await hospital.post()
        await hospital.until("SELECT FROM attempts HAVING count(*) = 2")
    assert len(await problems(hospital)) == 1
    async with hospital.worker():
        await hospital.test(endpoint_id)
        await hospital.until("SELECT FROM attempts HAVING count(*) = 3")
    assert await problems(hospital) == []
    assert [tuple(row) for row in await hospital.rows(SUMS, endpoint_id)] == [
        ("accepted", None, None, 0, 0),
        ("rejected", 500, None, 1, 0),
    ]  # no test is an attempt


async def problems(hospital: Hospital) -> list[dict[str, Any]]:
    async with hospital.database.reading() as connection:
        return [dict(row) for row in await stats.problems(connection, local_actor(hospital.tenant_id))]
