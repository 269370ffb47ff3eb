"""How long an orderly stop waits. Only the event loop's clock is moved on; worker, sockets and database are real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from tests.support.hospital import Hospital
from tests.support.partner import OK, PATIENCE, Partner, Received
from tests.web.test_guesses import locked, until_asked
from webhook_gateway import telemetry
from webhook_gateway.delivery.registry import Leased
from webhook_gateway.delivery.worker import Worker
from webhook_gateway.host import supervisor
from webhook_gateway.rules.credentials import ClientCredentials, as_stored
from webhook_gateway.rules.deadlines import (
    API_KILLED_AFTER,
    LONGEST_DEADLINE,
    SETTLING,
    TOKEN_DEADLINE,
    WORKER_DRAINS_WITHIN,
    WORKER_KILLED_AFTER,
)
from webhook_gateway.store.configuration import seal_column

Open = Callable[..., Awaitable[Partner]]
MOMENT = 1.0


class Slow:
    """A token server and the API behind it, each of which answers when it is let."""

    def __init__(self) -> None:
        self.token, self.answer = asyncio.Event(), asyncio.Event()

    async def __call__(self, got: Received) -> bytes:
        if got.target != "/token":
            await self.answer.wait()
            return OK
        await self.token.wait()
        body = json.dumps({"access_token": "token", "token_type": "Bearer"}).encode()
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def add(hospital: Hospital, there: Partner, deadline: float) -> None:
    endpoint_id = await hospital.endpoint(url=there.url("/hook"), deadline=deadline, schedule=[0.01] * 9)
    wanted = as_stored(ClientCredentials(there.url("/token"), "gateway", "secret"))
    sealed = seal_column(hospital.vault, hospital.tenant_id, endpoint_id, "authorization", wanted)
    await hospital.change('UPDATE endpoints SET "authorization" = $1', sealed)


async def stop(worker: Worker, then: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tells it to stop, and lets so many seconds pass on the loop's clock once it waits for its requests."""
    worker._stopping.set()
    await rounds()
    loop = asyncio.get_running_loop()
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + then)
    await rounds()


async def rounds() -> None:
    """Some rounds of the event loop: whatever is due in it has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_request_of_a_minute_with_its_token_survives_an_orderly_stop(
    hospital: Hospital, open_partner: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow()
    there = await open_partner(otherwise=slow)
    await add(hospital, there, LONGEST_DEADLINE)
    async with hospital.worker() as worker:
        await hospital.post()
        await there.got(1, "/token")
        await stop(worker, WORKER_DRAINS_WITHIN - MOMENT, monkeypatch)
        slow.token.set()
        await there.got(1, "/hook")
        slow.answer.set()
    assert [(row["outcome"], row["attempt"]) for row in await hospital.rows("SELECT * FROM attempts")] == [
        ("accepted", 1)
    ]
    assert await hospital.count("finished_deliveries WHERE state = 'delivered'") == 1
    assert len(there.received) == 2


@pytest.mark.parametrize("deadline", [5.0, 15.0, LONGEST_DEADLINE])
async def test_a_stop_waits_no_longer_than_what_is_under_way_may_take(
    hospital: Hospital, open_partner: Open, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    slow = Slow()
    there = await open_partner(otherwise=slow)
    await add(hospital, there, deadline)
    async with hospital.worker() as worker:
        await hospital.post()
        await there.got(1, "/token")
        await stop(worker, TOKEN_DEADLINE + deadline + SETTLING + MOMENT, monkeypatch)
    assert await hospital.count("deliveries WHERE lease_id IS NOT NULL") == 1, "it is sent again when its lease ends"
    assert not await hospital.rows("SELECT FROM attempts")
    slow.token.set()


async def test_attempts_that_a_stop_leaves_unsettled_are_logged_and_counted(
    hospital: Hospital, open_partner: Open, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = await open_partner()
    await hospital.endpoint(url=there.url("/hook"))
    told: list[object] = []
    monkeypatch.setattr(telemetry, "attempt_made", lambda *attempt: told.append(attempt))
    async with locked(database_url, "attempts") as connection, hospital.worker() as worker:
        await hospital.post()
        await until_asked(connection, "attempts", 1)
        await hospital.post()
        async with asyncio.timeout(PATIENCE):
            while len(worker._sending.unsettled) < 2:
                await connection.execute("SELECT")
        assert len(told) == 1
        await stop(worker, SETTLING + MOMENT, monkeypatch)
    assert len(told) == 2


async def test_a_stop_goes_on_where_what_is_to_be_given_back_cannot_be(hospital: Hospital, database_url: str) -> None:
    endpoint_id = await hospital.endpoint()
    await hospital.post()
    await hospital.fan_out()
    (delivery,) = await hospital.claim(endpoint_id)
    async with locked(database_url, "deliveries"), hospital.worker() as worker:
        worker._offers._refused.append(Leased(worker._registry.of(endpoint_id), delivery))
    assert await hospital.count("workers") == 0


def test_a_supervisor_gives_each_process_the_time_that_it_may_take_to_stop() -> None:
    with supervisor.listen_on("127.0.0.1", 0) as listener:
        assert {program.patience for program in supervisor.api(2, listener)} == {API_KILLED_AFTER}
    assert {program.patience for program in supervisor.workers(2)} == {WORKER_KILLED_AFTER}
