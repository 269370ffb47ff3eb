"""What an endpoint may have is asked before each attempt, also for what was leased ahead, and counts at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from uuid_utils.compat import uuid7

from tests.support.hospital import PATIENCE, Hospital
from tests.support.partner import OK, Partner, Received, status
from webhook_gateway.delivery.worker import Worker
from webhook_gateway.store import configuration

Open = Callable[..., Awaitable[Partner]]
NARROW = "UPDATE subscribers SET event_types = '{payment.*}'"
CANCELLED = "SELECT * FROM finished_deliveries WHERE state = 'cancelled' AND state_reason = 'not_permitted'"


def waits(answer: bytes) -> tuple[asyncio.Event, asyncio.Event, Callable[[Received], Awaitable[bytes]]]:
    """An answer that comes once the second event is set; the first says that the request is there."""
    came, let_go = asyncio.Event(), asyncio.Event()

    async def later(_: Received) -> bytes:
        came.set()
        await let_go.wait()
        return answer

    return came, let_go, later


async def narrow(hospital: Hospital, worker: Worker) -> None:
    """Returns once the worker knows it."""
    await hospital.change(NARROW)
    async with hospital.database.connection() as connection:
        version = await configuration.version(connection)
    async with asyncio.timeout(PATIENCE):
        while worker._registry.snapshot.version < version:  # noqa: ASYNC110 - a worker gives no signal
            await asyncio.sleep(0.01)


async def test_what_is_under_way_ends_and_is_not_retried_and_what_waits_is_not_sent(
    hospital: Hospital, open_partner: Open
) -> None:
    came, let_go, answer = waits(status(503))
    partner = await open_partner(OK, OK, OK, otherwise=answer)
    await hospital.endpoint(url=partner.url(), slots=1)
    async with hospital.worker() as worker:
        await hospital.post(times=3)
        await partner.got(3)
        await hospital.post(times=20)
        async with asyncio.timeout(PATIENCE):
            await came.wait()
        await narrow(hospital, worker)
        let_go.set()
        await hospital.until(f"{CANCELLED} OFFSET 19")
        await hospital.post(type="payment.processed")
        received = await partner.got(5)
    assert [b"payment.processed" in request.body for request in received] == [False] * 4 + [True]
    sent = await hospital.rows(f"SELECT a.status FROM attempts a JOIN ({CANCELLED}) f ON f.id = a.delivery_id")
    assert sorted(row["status"] or 0 for row in sent) == [0] * 19 + [503]


async def test_an_ordering_key_goes_on_with_what_is_permitted(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    await hospital.endpoint(url=partner.url(), state="paused", ordering="strict")
    for _ in range(2):
        await hospital.post("one key")
        await hospital.post("one key", type="payment.processed")
    async with hospital.worker() as worker:
        await hospital.until("SELECT FROM deliveries OFFSET 3")
        await narrow(hospital, worker)
        await hospital.change("UPDATE endpoints SET state = 'enabled'")
        received = await partner.got(2)
        await hospital.until("SELECT FROM finished_deliveries OFFSET 3")
    assert all(b"payment.processed" in request.body for request in received)
    assert len(await hospital.rows(CANCELLED)) == 2


async def test_a_paused_endpoint_of_many_is_cut_off_in_slices_without_an_attempt(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint(state="paused")
    await hospital.rows(
        "INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, due_at)"
        " SELECT id, $1, $2, id, 'lab_result.final', n, now() + interval '1 day'"
        " FROM unnest($3::uuid[]) WITH ORDINALITY AS d(id, n)",
        *(hospital.tenant_id, endpoint_id, [uuid7() for _ in range(12_000)]),
    )
    await hospital.post(type="payment.processed")
    await hospital.fan_out()
    await hospital.change(NARROW)
    await hospital.change("UPDATE endpoints SET cut_off_at = now()")
    async with hospital.worker():
        await hospital.until("SELECT FROM endpoints WHERE cut_off_at IS NULL")
    assert await hospital.count(f"({CANCELLED} AND attempt = 0) AS f") == 12_000
    assert [row["type"] for row in await hospital.rows("SELECT type FROM deliveries")] == ["payment.processed"]
