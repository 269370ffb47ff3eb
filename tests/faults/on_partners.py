"""Faults of partners and of single messages: nobody waits for somebody else's failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from tests.support.dns_server import OWN_DNS, dns_server
from tests.support.partner import OK, Received, Reply, partner

from .house import House
from .report import Report
from .stage import LEASE_MARGIN, Stage, until

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def f13_hostile_partners(house: House) -> Report:
    """hostile partners beside good ones"""
    async with house.stage() as stage, AsyncExitStack() as hostile:
        async with stage.load(rate=60):
            await _warm_up(stage)
            baseline = await _slowest(stage, stage.length.seconds(30))
            for name, behaviour in BEHAVIOURS.items():
                url = await hostile.enter_async_context(_serve(behaviour))
                await stage.add_endpoint(name, url=url, counts=False)
            await _warm_up(stage)
            beside = await _slowest(stage, stage.length.seconds(60))
        await stage.settle_counted()  # what is fanned out after this would wait for the others, too
        await _give_up_others(stage)
        stage.notes.append(
            f"p99 {baseline * 1000:.0f} ms alone, {beside * 1000:.0f} ms beside {len(BEHAVIOURS)} hostile"
        )
        stage.expect(beside <= max(2 * baseline, baseline + 0.2), f"p99 went from {baseline:.3f} s to {beside:.3f} s")
        return await stage.account(allowed=0)


ONSET = 5.0
"""Seconds from when endpoints begin to hang until nobody else is to notice it any more."""


async def f22_hang(house: House) -> Report:
    """names and endpoints that hang, by the hundred"""
    hang = asyncio.Event()

    async def at_first(_: Received) -> Reply:
        if hang.is_set():
            await asyncio.sleep(3_600)
        return OK

    async with dns_server() as dns, house.stage(workers=0) as stage, partner(otherwise=at_first) as turning:
        for _ in range(2):
            await stage.start_worker(PYTHONPATH=f"{OWN_DNS}:{stage.code}", OWN_DNS=dns.address)
        for number in range(5):
            dns.records[host := f"partner-{number}.example.com"] = ["127.0.0.1"]
            await stage.add_endpoint(f"named-{number}", url=stage.partner.url(f"/named-{number}", host=host))
        names = [f"http://silent-{number}.example.com/" for number in range(150)]
        dns.silent.update(str(urlsplit(name).hostname) for name in names)

        async def turn() -> None:
            await _add_with_backlog(stage, [turning.url(f"/{number}") for number in range(300)], 1)
            await turning.got(300)
            hang.set()
            await _add_with_backlog(stage, [])

        async with stage.load(rate=30):
            await _warm_up(stage)
            alone = await _waits(stage, stage.length.seconds(30))
            for what, begin in {
                "66 hanging names": _add_with_backlog(stage, names[:66]),
                "150 hanging names": _add_with_backlog(stage, names[66:]),
                "300 endpoints that hang, too": turn(),
            }.items():
                await begin
                await asyncio.sleep(ONSET)
                beside = await _waits(stage, stage.length.seconds(60))
                stage.notes.append(f"{_told(beside)} beside {what}, {_told(alone)} alone")
                for part, most in ((0.5, 0.1), (0.99, 0.2)):
                    before, now = _percentile(alone, part), _percentile(beside, part)
                    bound = max(2 * before, before + most)
                    stage.expect(now <= bound, f"p{part * 100:g} went from {before:.3f} s to {now:.3f} s: {what}")
            leased = "SELECT count(*) FROM deliveries WHERE lease_id IS NOT NULL AND endpoint_id <> ALL($1)"
            requests = await stage.value(leased, list(stage.endpoints.values()))
            await _give_up_others(stage)
        stage.expect(requests >= 200, f"only {requests} requests hung")
        stage.expect(dns.silent <= set(dns.asked), "not every name was asked for")
        return await stage.account(allowed=0)


async def _add_with_backlog(stage: Stage, urls: Sequence[str], each: int = 20) -> None:
    """Endpoints that may take a minute for each, and ``each`` event more for all such."""
    async with stage.hospital() as hospital:
        for url in urls:
            await hospital.endpoint("old.event", url=url, deadline=60.0)
        await hospital.post(times=each, type="old.event")


async def _give_up_others(stage: Stage) -> None:
    """Only what counts is sent to from now on."""
    counted = list(stage.endpoints.values())
    await stage.value("UPDATE endpoints SET state = 'paused' WHERE id <> ALL($1)", counted)
    await stage.value("UPDATE configuration SET version = version + 1")
    await stage.value("DELETE FROM deliveries WHERE endpoint_id <> ALL($1)", counted)


async def f14_poison(house: House) -> Report:
    """a poison message: signing raises, or kills"""
    async with house.stage(workers=1, settings={"WEBHOOK_GATEWAY_LEASE_MARGIN": "1"}) as stage:
        schedule = (0.2,) * stage.length.times(8)
        attempts_allowed = len(schedule) + 1
        async with stage.load(rate=30):
            unsignable = await stage.add_endpoint("unsignable", secret="whsec_", schedule=schedule, counts=False)
            await until(lambda: _dead(stage, unsignable, 20), "what can't be signed is dead")
            await stage.value("UPDATE endpoints SET state = 'disabled' WHERE id = $1", unsignable)
            await stage.value("UPDATE configuration SET version = version + 1")
        await stage.settle_counted()
        stage.expect(not stage.partner.calls["unsignable"], "what can't be signed was sent")
        wrong_attempts = await stage.value(
            "SELECT count(*) FROM finished_deliveries WHERE endpoint_id = $1 AND attempt <> $2",
            *(unsignable, attempts_allowed),
        )
        stage.expect(not wrong_attempts, f"{wrong_attempts} died after another number of attempts")
        await stage.value("DELETE FROM deliveries WHERE endpoint_id = $1", unsignable)
        await _kill_with_one_message(stage, attempts_allowed)
        return await stage.account(allowed=0)


async def _kill_with_one_message(stage: Stage, attempts_allowed: int) -> None:
    """A message that kills whoever signs it ends as dead, and the next worker lives."""
    for worker in list(stage.workers):
        await stage.terminate(worker)
    for name, endpoint_id in stage.endpoints.items():
        await stage.value(
            "UPDATE endpoints SET state = 'paused' WHERE id = $1 AND url LIKE '%/' || $2", endpoint_id, name
        )
    killer = await stage.add_endpoint("killer", schedule=(0.2,) * (attempts_allowed - 1), counts=False)
    await stage.value(
        "INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, due_at) "
        "SELECT gen_random_uuid(), tenant_id, $1, id, type, 0, now() FROM events LIMIT 1",
        killer,
    )
    for _ in range(attempts_allowed):
        armed = await stage.start_worker(WEBHOOK_GATEWAY_FAILPOINT="while_signing")
        await stage.dies(armed)
    await stage.start_worker(WEBHOOK_GATEWAY_FAILPOINT="while_signing")
    await until(lambda: _dead(stage, killer, 1), "what kills workers is dead", 10 + LEASE_MARGIN)
    for endpoint_id in stage.endpoints.values():
        await stage.value("UPDATE endpoints SET state = 'enabled' WHERE id = $1", endpoint_id)


async def _dead(stage: Stage, endpoint_id: Any, at_least: int) -> bool:
    dead = "SELECT count(*) FROM finished_deliveries WHERE endpoint_id = $1 AND state = 'dead'"
    return bool(await stage.value(dead, endpoint_id) >= at_least)


async def _warm_up(stage: Stage) -> None:
    await stage.wait_for_traffic()
    await asyncio.sleep(2)


async def _slowest(stage: Stage, seconds: float) -> float:
    """The 99th percentile of `_waits`."""
    return _percentile(await _waits(stage, seconds), 0.99)


def _percentile(waits: Sequence[float], part: float) -> float:
    return waits[int(len(waits) * part)]


def _told(waits: Sequence[float]) -> str:
    return f"p50 {_percentile(waits, 0.5) * 1000:.0f} ms, p99 {_percentile(waits, 0.99) * 1000:.0f} ms"


async def _waits(stage: Stage, seconds: float) -> list[float]:
    """From acceptance to delivery, in seconds, the shortest first, of what is accepted in the seconds to come."""
    begin = monotonic()
    await asyncio.sleep(seconds)
    end = monotonic()
    await stage.catch_up(end)
    waits = []
    for event_id, at in stage.ledger.accepted().items():
        if begin <= at <= end:
            waits += [(stage.partner.had(name, event_id) or at + 60) - at for name in stage.endpoints]
    return sorted(waits)


@asynccontextmanager
async def _serve(behaviour: Behaviour) -> AsyncIterator[str]:
    open_: set[asyncio.StreamWriter] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await behaviour(reader, writer)
        open_.discard(writer)
        writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=256)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/{behaviour.__name__}"
    finally:
        server.close()
        for writer in list(open_):
            writer.transport.abort()


async def _hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(65_536):
        pass


async def _reset(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Accepts and lets go at once."""


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.2)


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + bytes(4_096) + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def _long_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n")
    await writer.drain()


async def _never_reads(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3_600)


async def _fails(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 500 -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        return


BEHAVIOURS: dict[str, Behaviour] = {
    behaviour.__name__: behaviour for behaviour in (_hang, _reset, _drip, _endless, _long_header, _never_reads, _fails)
}
