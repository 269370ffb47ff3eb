"""How the pipeline drains when there is much of everything: deliveries, of one key too, endpoints, workers, time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from .backlog import expect_some_left, fill_backlog, fill_for, fill_key
from .gateway import Gateway
from .hospital import TYPES
from .load import Posting
from .machine import peak_megabytes
from .pipeline import RAMP, WINDOW, plan
from .report import Report

SMALL = 10_000
DEEP = 100_000
"""Open deliveries at least that a deep backlog begins with, so that it lasts while it is measured."""
ENDPOINTS = 100
SLOW = 64
"""Requests in flight of one worker where partners take 100 ms: what binds, so that workers should add up."""
MEASURED = (0.2, 0.95)
"""The part of a small backlog whose drain is timed: without the start, and without the last stragglers."""
FEW = 100
"""Pending deliveries of an ordering key that is not hot."""
HOT = "/ok/hot"


@dataclass(frozen=True, slots=True)
class Beside:
    """Deliveries a second of ten endpoints and of one key beside them.

    And µs a delivery: PostgreSQL's time in claims, and the processor time of PostgreSQL and worker: it says more than a
    rate where others use the machine.
    """

    others: float
    key: float
    claim: float
    processor: float


async def measure_depth(gateway: Gateway, report: Report, large: int) -> None:
    """The same stretch of deliveries, drained from a small backlog and from a large one; small before and after."""
    endpoints = await gateway.set_endpoints(ENDPOINTS)
    rates = [await _drain_small(gateway, endpoints)]
    await gateway.empty()
    began = time.monotonic()
    await fill_backlog(gateway, endpoints, large)
    report.say(f"{large:,} open deliveries made in {time.monotonic() - began:.0f} s")
    await gateway.start_api()
    rate = await _drain(gateway, SMALL)
    longer = await _rate(gateway, 4.0)
    assert gateway.api is not None
    memory = max(peak_megabytes(gateway.api.pid), peak_megabytes(gateway.workers[0].pid))
    gateway.kill_workers()
    gateway.stop_api()
    await gateway.empty()
    rates.append(await _drain_small(gateway, endpoints))
    report.note("drain_small", sum(rates) / len(rates), f"deliveries/s drained with {SMALL:,} open")
    report.note("drain_large", rate, f"deliveries/s drained with {large:,} open ({longer:,.0f} in the seconds after)")
    report.note("memory_large", memory, f"MB at most in one process with {large:,} open")
    report.details["drain_small"] = rates


async def measure_endpoints(gateway: Gateway, report: Report, counts: Sequence[int], seconds: float) -> None:
    """A backlog spread over few and over many endpoints."""
    for count in counts:
        rate = await measure_drain(gateway, await gateway.set_endpoints(count), seconds)
        report.note(f"drain_endpoints_{count}", rate, f"deliveries/s drained over {count:,} endpoints")
    await gateway.empty()


async def measure_drain(gateway: Gateway, endpoints: Sequence[UUID], seconds: float) -> float:
    """Deliveries a second of one worker, with nothing else to do."""
    await gateway.empty()
    await fill_for(gateway, endpoints, seconds + 2)
    await gateway.start_workers()
    await _begun(gateway)
    await asyncio.sleep(1.0)
    rate = await _rate(gateway, seconds)
    await expect_some_left(gateway, endpoints)
    gateway.kill_workers()
    return rate


async def measure_workers(gateway: Gateway, report: Report, counts: Sequence[int], seconds: float) -> None:
    """Partners that take 100 ms, and workers whose concurrency binds."""
    endpoints = await gateway.set_endpoints(ENDPOINTS, path="/100ms")
    for count in counts:
        await gateway.empty()
        await fill_backlog(gateway, endpoints, int((seconds + 4) * 1_000 * count))
        await gateway.start_workers(count, {"WEBHOOK_GATEWAY_CONCURRENCY": str(SLOW)})
        await _begun(gateway)
        await asyncio.sleep(2.5)  # until each has learnt of the others
        rate = await _rate(gateway, seconds)
        report.note(
            f"drain_workers_{count}", rate, f"deliveries/s with {count} worker(s), 100 ms, {SLOW} in flight each"
        )
        gateway.kill_workers()
    await gateway.empty()


async def measure_hot_key(gateway: Gateway, report: Report, pending: int, seconds: float) -> None:
    """One ordering key with very many pending deliveries: how it drains, and what its neighbours notice of it.

    A key is sent one by one. So its bound is what the same key does with few pending, and where the partner takes
    20 ms, 50 a second. Neighbours that keep the worker busy slow it down, so beside them it is compared with few, too.
    """
    for partner, path, bound in (("at once", "/ok", 200), ("after 20 ms", "/20ms", 50)):
        (endpoint_id,) = await gateway.set_endpoints(1, path=path)
        few = [await _drain_key(gateway, endpoint_id, FEW, FEW) for _ in range(2)]
        many = await _drain_key(gateway, endpoint_id, pending, min(int(bound * seconds), pending))
        few += [await _drain_key(gateway, endpoint_id, FEW, FEW) for _ in range(2)]
        name = path.strip("/")
        report.note(f"key_few_{name}", _mean(few), f"deliveries/s of a key with {FEW} pending, answered {partner}")
        report.note(f"key_hot_{name}", many, f"deliveries/s of a key with {pending:,} pending")
        report.details[f"key_{name}"] = {"few": few, "many": many}
    neighbours = await gateway.set_endpoints(10, path="/ok/beside")
    (endpoint_id,) = await gateway.add_endpoints(1, path=HOT)
    first, few_beside, beside, last = [
        await _drain_beside(gateway, neighbours, endpoint_id, count, seconds) for count in (0, FEW, pending, 0)
    ]
    report.note("beside_none", _mean([first.others, last.others]), "deliveries/s of ten endpoints without a hot key")
    report.note("beside_hot", beside.others, f"deliveries/s of ten endpoints beside a key with {pending:,} pending")
    report.note("key_few_beside", few_beside.key, f"deliveries/s of a key with {FEW} pending beside them")
    report.note("key_hot_beside", beside.key, f"deliveries/s of a key with {pending:,} pending beside them")
    report.note("claim_none", _mean([first.claim, last.claim]), "µs of PostgreSQL a claimed delivery without it")
    report.note("claim_hot", beside.claim, "µs of PostgreSQL a claimed delivery beside it")
    report.note("processor_none", _mean([first.processor, last.processor]), "µs of processor a delivery without it")
    report.note("processor_hot", beside.processor, "µs of processor a delivery beside it")
    report.details["beside"] = [first, few_beside, beside, last]
    await gateway.empty()


async def measure_old_transaction(gateway: Gateway, report: Report, seconds: float) -> None:
    """The full path at its most, clean at first, then with a transaction left open that can see every dead row."""
    await gateway.empty()
    await gateway.set_endpoints(10, types=TYPES)
    await gateway.start_api()
    await gateway.start_workers()
    clean = min(10.0, seconds / 3)
    posting = Posting(plan(gateway, "old", RAMP + clean + seconds + 1, window=WINDOW))
    await posting.begun()
    await asyncio.sleep(RAMP)
    before = await _rate(gateway, clean)
    stranger = await asyncpg.connect(gateway.postgres.url)
    await stranger.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await stranger.fetchval("SELECT pg_current_xact_id()::text")
    course = [await _rate(gateway, 2.0) for _ in range(int(seconds / 2))]
    await stranger.close()
    last = course[-max(1, int(clean / 2)) :]
    await posting.notes()
    report.note("clean", before, "deliveries/s without it")
    report.note("old_transaction", sum(last) / len(last), f"deliveries/s with a transaction open for {seconds:.0f} s")
    report.details["old_transaction"] = {"clean": before, "every_2_seconds": course}
    gateway.kill_workers()
    gateway.stop_api()
    await gateway.empty()


async def _drain_small(gateway: Gateway, endpoints: Sequence[UUID]) -> float:
    await gateway.empty()
    await fill_backlog(gateway, endpoints, SMALL)
    rate = await _drain(gateway, SMALL)
    gateway.kill_workers()
    return rate


async def _drain(gateway: Gateway, count: int) -> float:
    """Deliveries a second of a new worker, over the middle of its first ``count``."""
    gateway.receiver.take()
    await gateway.start_workers()
    await _reached(gateway, gateway.receiver.count() + int(count * MEASURED[1]))
    times = gateway.receiver.take().times
    first, last = int(count * MEASURED[0]), min(int(count * MEASURED[1]), len(times) - 1)
    return (last - first) / ((times[last] - times[first]) / 1e9)


async def _drain_key(gateway: Gateway, endpoint_id: UUID, pending: int, count: int) -> float:
    await gateway.empty()
    await fill_key(gateway, endpoint_id, pending)
    rate = await _drain(gateway, count)
    gateway.kill_workers()
    return rate


async def _drain_beside(
    gateway: Gateway, neighbours: Sequence[UUID], endpoint_id: UUID, pending: int, seconds: float
) -> Beside:
    await gateway.empty()
    await fill_for(gateway, neighbours, seconds + RAMP + 1)
    await fill_key(gateway, endpoint_id, pending)
    await gateway.start_workers()
    await _begun(gateway)
    await asyncio.sleep(RAMP)
    meter = await gateway.meter()
    gateway.receiver.take()
    began = time.monotonic()
    await asyncio.sleep(seconds)
    paths, took = gateway.receiver.take().paths, time.monotonic() - began
    cost = await meter.read()
    await expect_some_left(gateway, neighbours)
    gateway.kill_workers()
    hot = sum(path.startswith(HOT.encode()) for path in paths)
    claims = [row for row in cost.dearest if row["query"].startswith("WITH picked")]
    claim = sum(row["ms"] for row in claims) * 1_000 / sum(row["rows"] for row in claims)
    processor = (cost.used.groups["postgres"] + cost.used.groups["worker"]) * 1e6 / len(paths)
    return Beside((len(paths) - hot) / took, hot / took, claim, processor)


async def _rate(gateway: Gateway, seconds: float) -> float:
    before, at = gateway.receiver.count(), time.monotonic()
    await asyncio.sleep(seconds)
    return (gateway.receiver.count() - before) / (time.monotonic() - at)


def _mean(figures: Sequence[float]) -> float:
    return sum(figures) / len(figures)


async def _begun(gateway: Gateway) -> None:
    """Returns when deliveries come."""
    await _reached(gateway, gateway.receiver.count() + 1)


async def _reached(gateway: Gateway, count: int) -> None:
    """Waits, a minute at most, until the receiver got so many in all."""
    deadline = time.monotonic() + 60
    while gateway.receiver.count() < count and time.monotonic() < deadline:  # noqa: ASYNC110 - another process counts
        await asyncio.sleep(0.05)
