"""Faults of one machine among several: the others take over what it had, and it works again when it is back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from urllib.parse import urlsplit

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from .house import House
from .link import Link
from .producer import TYPES
from .report import Report
from .stage import LEASE, Stage, free_port, until

ADDRESSES = ("127.0.0.2", "127.0.0.3")
GRACE = 5.0
SETTLED_IN = 6.0
"""Seconds of load before a cut; its throughput is that of the second half, when what had piled up is gone."""
SHORTEST_CUT = 20.0
"""Seconds: more than the other machine has to take over in."""
WINDOW = 2.0
STEP = 0.25
ENOUGH = 0.9
"""Of the throughput before the cut."""
SHARE = 0.1
"""Of the requests, which a machine that works makes at least."""

ATTEMPTS = "webhook_gateway_attempts_total"


@dataclass(frozen=True, slots=True)
class Machine:
    """A worker with a link to PostgreSQL of its own; it shows its metrics on ``port``."""

    link: Link
    port: int

    async def attempts(self) -> float:
        """How many requests its worker has made."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/") as answer:
            families = text_string_to_metric_families(await answer.text())
        return sum(sample.value for family in families for sample in family.samples if sample.name == ATTEMPTS)


async def f21_cut_one_machine_off(house: House) -> Report:
    """one of two machines cut off under load"""
    async with house.stage(workers=0) as stage, AsyncExitStack() as stack:
        stage.partner.latency = 0.05
        machines = [await stack.enter_async_context(_machine(stage, address)) for address in ADDRESSES]
        async with stage.load(types=TYPES):
            for _ in range(stage.length.times(4)):
                await _cut(stage, machines)
        return await stage.account(resumed_within=LEASE + GRACE)


@asynccontextmanager
async def _machine(stage: Stage, address: str) -> AsyncIterator[Machine]:
    """A worker that reaches PostgreSQL through a link on an address of its own."""
    parts = urlsplit(stage.database_url)
    link, port = Link(str(parts.hostname), parts.port or 5432), free_port()
    await link.start(address)
    try:
        await stage.start_worker(link, WEBHOOK_GATEWAY_WORKER_METRICS_PORT=str(port))
        yield Machine(link, port)
    finally:
        await link.close()


async def _cut(stage: Stage, machines: list[Machine]) -> None:
    """Nothing gets between one machine and Postgres for a while, and nobody is told; everybody else works on."""
    await asyncio.sleep(SETTLED_IN)
    lost = random.choice(machines)
    cut_at = monotonic()
    before = _rate(_times(stage), cut_at - SETTLED_IN / 2, cut_at)
    lost.link.blackhole()
    stage.disturbances += 1
    await asyncio.sleep(max(stage.length.seconds(30), SHORTEST_CUT))
    stage.resumed.append(await stage.catch_up(cut_at))
    made = [await machine.attempts() for machine in machines]
    healed_at = monotonic()
    lost.link.heal()

    times = _times(stage)
    taken_over = _back_after(times, cut_at, healed_at, ENOUGH * before)
    since = _rate(times, cut_at + taken_over, healed_at)
    stage.resumed.append(taken_over)
    stage.expect(since >= ENOUGH * before, f"only {since:.0f} deliveries a second while one machine was cut off")
    stage.notes.append(
        f"{before:.0f} deliveries a second before the cut, {since:.0f} from {taken_over:.1f} s after it until it healed"
    )
    await _wait_for_both(stage, machines, made)
    stage.notes.append(f"both machines worked again {monotonic() - healed_at:.1f} s after the healing")


async def _wait_for_both(stage: Stage, machines: list[Machine], made: list[float]) -> None:
    """Each makes requests again, and from then on its part of them: who was away needs long to have made it of all."""

    async def each_makes(least: float) -> bool:
        new = [await machine.attempts() - before for machine, before in zip(machines, made, strict=True)]
        return min(new) > 0 and min(new) >= least * sum(new)

    await until(partial(each_makes, 0.0), "both machines make requests", LEASE + GRACE)
    made = [await machine.attempts() for machine in machines]
    await until(partial(each_makes, SHARE), "both machines make their part of the requests", GRACE)


def _times(stage: Stage) -> list[float]:
    """When each delivery first reached its endpoint."""
    return [min(call.at for call in calls) for name in stage.endpoints for calls in stage.partner.calls[name].values()]


def _rate(times: list[float], begin: float, end: float) -> float:
    """Deliveries a second."""
    return sum(begin <= at < end for at in times) / max(end - begin, STEP)


def _back_after(times: list[float], cut_at: float, healed_at: float, wanted: float) -> float:
    """Seconds from the cut to the first window that has the throughput that is wanted, or to the healing."""
    at = cut_at
    while at + WINDOW <= healed_at:
        if _rate(times, at, at + WINDOW) >= wanted:
            return at - cut_at
        at += STEP
    return healed_at - cut_at
