"""Faults of the workers: a delivery is always somebody's, and never finished twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from time import monotonic, time

from .house import House
from .partner import Hook
from .report import Report
from .stage import HERE, LEASE, QUICK, Never, Stage, moment, until

GRACE = 5.0
FAILPOINTS = ("after_lease", "while_signing", "within_settle", "after_answer")
GONE_WITHIN = 30.0


async def f3_kill_workers(house: House) -> Report:
    """kill -9 a worker at random"""
    async with house.stage() as stage:
        async with stage.load():
            for _ in range(stage.length.times(20)):
                await moment()
                killed_at = await stage.kill(stage.any_worker())
                await stage.start_worker()
                stage.resumed.append(await stage.catch_up(killed_at))
        return await stage.account(resumed_within=LEASE + GRACE)


async def f4_kill_workers_at_failpoints(house: House) -> Report:
    """kill -9 a worker at failpoints"""
    async with house.stage(workers=1) as stage:
        async with stage.load(rate=40):
            for failpoint in FAILPOINTS[-stage.length.times(16) :]:
                armed = await stage.start_worker(WEBHOOK_GATEWAY_FAILPOINT=f"{failpoint}:{random.randint(2, 9)}")
                for other in stage.workers[:-1]:  # events of one type that come alone are sent by one of them
                    await stage.terminate(other)
                died_at = await stage.dies(armed)
                await stage.start_worker()
                stage.resumed.append(await stage.catch_up(died_at))
                await stage.finished()
            if stage.length != QUICK:
                await _kill_when_connected(stage)
        more_than_one = sum(len(calls) > 2 for name in stage.endpoints for calls in stage.partner.calls[name].values())
        stage.expect(not more_than_one, f"{more_than_one} deliveries had more than one duplicate")
        return await stage.account(resumed_within=LEASE + GRACE)


async def f5_terminate_workers(house: House) -> Report:
    """SIGTERM during load"""
    async with house.stage(settings={"WEBHOOK_GATEWAY_LEASE_MARGIN": "15"}) as stage:
        stage.partner.latency = 0.2
        async with stage.load():
            for _ in range(stage.length.times(10)):
                await moment()
                (status, seconds), _ = await asyncio.gather(stage.terminate(stage.any_worker()), stage.start_worker())
                stage.expect(status == 0, f"a worker ended with status {status}")
                stage.expect(seconds <= GONE_WITHIN, f"a worker took {seconds:.1f} s to end")
                stage.resumed.append(await stage.wait_for_traffic())
        return await stage.account(allowed=0)


async def f6_freeze_a_worker(house: House) -> Report:
    """SIGSTOP a worker for longer than its lease"""
    async with house.stage() as stage:
        stage.partner.latency = 0.1
        async with stage.load():
            frozen = stage.any_worker()
            os.kill(frozen.pid, signal.SIGSTOP)
            mark = monotonic()
            stage.disturbances += 1
            try:
                await asyncio.sleep(LEASE + 2)
                stage.resumed.append(await stage.catch_up(mark))
            finally:
                os.kill(frozen.pid, signal.SIGCONT)
            await stage.wait_for_traffic()
        await stage.settle()
        await _expect_truthful_attempts(stage)
        return await stage.account(resumed_within=LEASE + GRACE)


async def f15_set_the_clock_wrong(house: House) -> Report:
    """a worker's clock is an hour off"""
    async with house.stage(workers=0) as stage:
        stage.partner.hook = _fail_every_fourth()
        # The API's clock is right, so that it is the workers' alone that could move the schedule.
        await stage.start_worker(PYTHONPATH=f"{HERE / 'clock_off'}:{stage.code}")
        async with stage.load(rate=30):
            await asyncio.sleep(stage.length.seconds(60) / 2)
        await stage.settle()
        first_delay, jitter, slack = 0.3, 0.2, 1.0
        for name in stage.endpoints:
            for calls in stage.partner.calls[name].values():
                stage.expect(abs(calls[0].timestamp - time()) < 120, "a signature's timestamp is off")
                if calls[0].status < 300:
                    continue
                stage.expect(len(calls) == 2, f"an event was attempted {len(calls)} times instead of 2")
                waited = calls[-1].at - calls[0].at
                late = waited - stage.partner.latency - first_delay * (1 + jitter)
                early = first_delay * (1 - jitter) - waited
                stage.expect(late < slack and early < 0.01, f"a retry came after {waited:.2f} s")
        stage.wrong[:] = list(dict.fromkeys(stage.wrong))[:5]
        return await stage.account(allowed=0)


def _fail_every_fourth() -> Hook:
    """Of each endpoint every fourth first attempt: if half of some ten failed, the breaker would stand between."""
    firsts: Counter[str] = Counter()

    async def answer(endpoint: str, _event_id: str, earlier: int) -> int:
        if earlier:
            return 200
        firsts[endpoint] += 1
        return 500 if firsts[endpoint] % 4 == 0 else 200

    return answer


async def _kill_when_connected(stage: Stage) -> None:
    """The partner has the request, the worker will never have the answer. The other worker takes over."""
    for worker in list(stage.workers):
        await stage.terminate(worker)
    doomed = await stage.start_worker()
    asked = asyncio.Event()

    async def ask(_endpoint: str, _event_id: str, _earlier: int) -> int:
        if not asked.is_set():
            os.kill(doomed.pid, signal.SIGKILL)
            asked.set()
        return 200

    stage.partner.hook = ask
    died_at = await stage.dies(doomed)
    stage.partner.hook = None
    await stage.start_worker()
    stage.resumed.append(await stage.catch_up(died_at))


async def _expect_truthful_attempts(stage: Stage) -> None:
    """Every request that the partner got is written down, though whoever made it had lost the lease."""
    got = sum(len(calls) for name in stage.endpoints for calls in stage.partner.calls[name].values())
    written = 0

    async def all_written() -> bool:
        nonlocal written
        written = int(await stage.value("SELECT count(*) FROM attempts"))
        return written >= got

    try:
        await until(all_written, "every request is written down", LEASE)
    except Never:
        stage.expect(False, f"the partner got {got} requests and {written} are written down")
