"""Whatever partners wrote down is on the ledger, though workers are killed while they send."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from uuid import UUID

import pytest
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from tests.support.command_line import bare_environment, command
from tests.support.hospital import Hospital
from tests.support.partner import OK, Connection, Partner, Received, status
from webhook_gateway.operations import disclosures
from webhook_gateway.operations.change import local_actor
from webhook_gateway.operations.disclosures import Asked, Entry
from webhook_gateway.outbound.policy import policy_from
from webhook_gateway.outbound.sender import Request, Sender
from webhook_gateway.rules import ids
from webhook_gateway.rules.outcome import Phase, Unreachable

EVENTS, ROUNDS = 40, 3
KILLED_AFTER = 12
"""Requests that the slow partner gets of one worker."""
Sent = tuple[str, str]
"""An event, and the endpoint that it went to."""


def every_third(answer: bytes) -> Callable[[Received], bytes]:
    numbers = count(1)
    return lambda _: answer if next(numbers) % 3 == 0 else OK


async def slow(_: Received) -> bytes:
    await asyncio.sleep(0.1)  # so that a kill meets requests under way
    return OK


def hangs_up_on_every_third() -> Callable[[Connection], Awaitable[None]]:
    """Reads the request, says nothing and hangs up."""
    numbers = count(1)

    async def behave(connection: Connection) -> None:
        while await connection.receive():
            if next(numbers) % 3 == 0:
                return
            await connection.send(OK)

    return behave


async def forgets_who_it_knows(connection: Connection) -> None:
    """Answers the first request of a connection, and closes at the second, which is then sent again over a new one."""
    if await connection.receive():
        await connection.send(OK)
        await connection.receive()


@asynccontextmanager
async def five(hospital: Hospital) -> AsyncIterator[dict[str, Partner]]:
    """Partners by their endpoints."""
    partners = (
        Partner(),
        Partner(otherwise=every_third(status(500))),
        Partner(behave=hangs_up_on_every_third()),
        Partner(behave=forgets_who_it_knows),
        Partner(otherwise=slow),
    )
    found = {}
    async with AsyncExitStack() as stack:
        for there in partners:
            await there.open()
            stack.push_async_callback(there.close)
            endpoint_id = await hospital.endpoint(url=there.url(), deadline=1.0, schedule=[0.2] * 50, slots=4)
            found[ids.render(ids.ENDPOINT, endpoint_id)] = there
        yield found


@asynccontextmanager
async def worker(hospital: Hospital) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker process whose leases end soon. It is killed at the end, if it is still there."""
    environment = bare_environment(
        DATABASE_URL=str(hospital.settings.database_url),
        WEBHOOK_GATEWAY_MASTER_KEYS=str(hospital.settings.master_keys),
        WEBHOOK_GATEWAY_DEVELOPMENT="true",
        WEBHOOK_GATEWAY_LEASE_MARGIN="1",
        WEBHOOK_GATEWAY_LOG_LEVEL="error",
    )
    nowhere = asyncio.subprocess.DEVNULL
    started = await asyncio.create_subprocess_exec(
        *command("work", "--processes", "1"), env=environment, stdout=nowhere, stderr=nowhere
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def ledger(hospital: Hospital) -> list[Entry]:
    """Every page of all that the subscriber may have got."""
    found: list[Entry] = []
    parts = (hospital.database, hospital.vault, hospital.settings, local_actor(hospital.tenant_id))
    before: UUID | None = None
    while True:
        asked = Asked(subscriber_id=hospital.subscriber_id, before=before, limit=70)
        page = await disclosures.search(*parts, asked)
        assert isinstance(page, tuple)
        found += page[0]
        before = page[1]
        if before is None:
            return found


def counted(entries: list[Entry], *, recorded: bool) -> Counter[Sent]:
    sent: Counter[Sent] = Counter()
    for entry in entries:
        if entry["recorded"] is recorded:
            sent[entry["event_id"], entry["endpoint_id"]] += entry["times"]
    return sent


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_every_request_that_partners_wrote_down_is_covered_though_workers_are_killed(hospital: Hospital) -> None:
    async with five(hospital) as partners:
        *_, slowest = partners.values()
        for _ in range(ROUNDS):
            async with worker(hospital) as doomed:
                await hospital.post(times=EVENTS)
                await slowest.got(len(slowest.received) + KILLED_AFTER)
                doomed.kill()  # while requests are under way
        async with worker(hospital) as last:
            await hospital.until(f"SELECT FROM finished_deliveries OFFSET {ROUNDS * EVENTS * len(partners) - 1}")
            last.terminate()
            await last.wait()
    assert await hospital.count("deliveries") == 0

    found = await ledger(hospital)
    written = Counter((got.id, endpoint) for endpoint, there in partners.items() for got in there.received)
    recorded, gaps = counted(found, recorded=True), counted(found, recorded=False)
    assert {sent: times for sent, times in written.items() if times > recorded[sent] + gaps[sent]} == {}
    assert {sent: times for sent, times in recorded.items() if times > written[sent]} == {}, "only gaps say too much"
    unrecorded = sum((written - recorded).values())
    print(f"{written.total()} requests, {recorded.total()} recorded, {unrecorded} not, {gaps.total()} told as possible")
    assert 0 < unrecorded <= gaps.total(), "requests were under way when workers were killed"
    assert {entry["reached"] for entry in found if not entry["recorded"]} == {"possible"}
    assert max(entry["times"] for entry in found if entry["recorded"]) == 2, "some were sent again at once"
    assert any(entry["status"] == 500 for entry in found)
    assert any(entry["status"] is None and entry["recorded"] for entry in found), "somebody read and hung up"


async def reads_a_little(connection: Connection) -> None:
    await connection.reader.readexactly(1_000)
    connection.reset()


async def test_a_part_of_a_request_has_left_and_what_met_nobody_has_not(hospital: Hospital) -> None:
    there, sender = Partner(behave=reads_a_little), Sender(policy_from(hospital.settings))
    await there.open(receive_buffer=4_096)
    try:
        whole = Request(uuid7(), 1, there.url(), {}, bytes(32 << 20))
        part = await sender.post(whole)
        assert (part.phase, part.written) == (Phase.CONNECTED, True)
        refused = await sender.post(replace(whole, url="http://127.0.0.1:1/hook"))
        assert (type(refused.outcome), refused.written) == (Unreachable, False)
    finally:
        await sender.aclose()
        await there.close()


async def test_a_lease_that_ended_without_a_word_may_have_been_of_a_worker_that_had_not_heard_of_a_change(
    hospital: Hospital,
) -> None:
    endpoint_id = await hospital.endpoint()
    await hospital.change("UPDATE endpoints SET url = 'https://elsewhere.example/'")
    await hospital.post()
    await hospital.fan_out()
    assert await hospital.claim(endpoint_id, lease=0)
    assert {one["host"] for one in await ledger(hospital)} == {"partner.example", "elsewhere.example"}


async def test_how_much_it_may_have_been_is_told_as_it_was_and_as_it_became_meanwhile(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    await hospital.post()
    await hospital.fan_out()
    assert await hospital.claim(endpoint_id, lease=0)
    await hospital.change("""UPDATE subscribers SET content = '{"level": "thin", "subject": true}'""")
    assert {one["content"] for one in await ledger(hospital)} == {"full", "thin"}
