"""Faults of PostgreSQL and of the way to it: what it has committed stays, and the gateway waits for it, alive."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import monotonic

import aiohttp
import asyncpg

from .house import House
from .on_api import expect_honest_refusals
from .producer import TYPE, data
from .report import Report
from .stage import LEASE, PATIENCE, Skip, Stage, moment, until

BACK_WITHIN = 10.0
GRACE = 5.0
BATCH = 250
SLOWEST_ALLOWED = 0.7
"""Of the clean throughput."""


async def f7_kill_postgres(house: House) -> Report:
    """kill -9 the whole Postgres"""
    server = house.postgres()
    async with house.stage() as stage:
        async with stage.load(rate=50):
            for _ in range(stage.length.times(5)):
                await moment()
                await asyncio.to_thread(server.kill)
                stage.disturbances += 1
                await moment(1.5)
                await asyncio.to_thread(server.restart)
                stage.resumed.append(await stage.wait_for_traffic())
        expect_honest_refusals(stage)
        return await stage.account(resumed_within=BACK_WITHIN)


async def f8_stop_slow_and_silence_postgres(house: House) -> Report:
    """Postgres stopped, 500 ms slower, half-open"""
    server = house.postgres()
    async with house.stage(links=True) as stage:
        links = [link for link in (stage.api_link, stage.worker_link) if link is not None]
        async with stage.load(rate=20):
            await asyncio.to_thread(server.stop)
            await asyncio.sleep(stage.length.seconds(60))
            stage.expect(bool(stage.ledger.refused), "nothing was refused while Postgres was stopped")
            await asyncio.to_thread(server.restart)
            stage.resumed.append(await stage.wait_for_traffic())

            for link in links:
                link.latency = 0.5
            await asyncio.sleep(stage.length.seconds(30))
            for link in links:
                link.heal()
            stage.resumed.append(await stage.wait_for_traffic())

            for link in links:
                link.blackhole()
            await asyncio.sleep(stage.length.seconds(60))
            for link in links:
                link.reset()
                link.heal()
            stage.resumed.append(await stage.wait_for_traffic())
        stage.disturbances = 3
        expect_honest_refusals(stage)
        return await stage.account(resumed_within=BACK_WITHIN)


async def f9_cut_workers_from_postgres(house: House) -> Report:
    """workers and Postgres cut from each other in mid-delivery"""
    async with house.stage(links=True) as stage:
        assert stage.worker_link is not None
        stage.partner.latency = 0.1
        async with stage.load():
            stage.worker_link.blackhole()
            stage.disturbances += 1
            await asyncio.sleep(max(stage.length.seconds(30), LEASE + 2))
            healed_at = monotonic()
            stage.worker_link.heal()
            stage.resumed.append(await stage.wait_for_traffic())
            stage.notes.append(f"what had piled up was delivered {await stage.catch_up(healed_at):.1f} s later")
        return await stage.account(resumed_within=LEASE + GRACE)


async def f11_fill_the_disk(house: House) -> Report:
    """disk full under Postgres"""
    with _small_disk() as (disk, owner):
        space = Path(disk) / "space"
        space.mkdir()
        os.chown(space, owner, -1)
        await house.databases.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
        try:
            return await _fill_it(house, Path(disk) / "ballast")
        finally:
            await house.databases.execute("DROP TABLESPACE small")


async def f20_leave_a_transaction_open(house: House) -> Report:
    """a transaction left open under load"""
    async with house.stage(ordered=False) as stage:
        stage.partner.latency = 0
        await stage.add_endpoint("second")
        events = stage.length.times(8_000)
        await _drain_rate(stage, 500)  # warm
        clean = max([await _drain_rate(stage, events) for _ in range(2)])
        async with _open_transaction(stage):
            began = monotonic()
            while monotonic() - began < stage.length.seconds(120):
                await _drain_rate(stage, events)
            burdened = max([await _drain_rate(stage, events) for _ in range(2)])
        stage.notes.append(f"{clean:.0f} deliveries a second clean, {burdened:.0f} beside the open transaction")
        share = burdened / clean
        stage.expect(share >= SLOWEST_ALLOWED, f"throughput fell to {share:.0%}")
        return await stage.account(allowed=0)


async def _fill_it(house: House, ballast: Path) -> Report:
    async with house.stage(tablespace="small") as stage:
        async with stage.load(rate=40):
            with contextlib.suppress(OSError), ballast.open("wb") as file:
                while True:
                    file.write(bytes(65_536))
                    file.flush()
            full_at = monotonic()
            await until(lambda: _refused_since(stage, full_at), "the API refuses because the disk is full")
            await asyncio.sleep(stage.length.seconds(10))
            ballast.unlink()
            stage.disturbances += 1
            stage.resumed.append(await stage.wait_for_traffic())
        for refused in stage.ledger.refused:
            stage.expect(500 <= refused.status < 600, f"the API answered {refused.status}")
        return await stage.account(resumed_within=BACK_WITHIN)


@contextlib.contextmanager
def _small_disk() -> Iterator[tuple[str, int]]:
    """A file system of 48 MB, and who runs PostgreSQL.

    Raises:
        Skip: only root may mount one.
    """
    if os.geteuid() != 0:
        raise Skip("only root may mount a small disk")
    import pwd

    names = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    owner = names.get("postgres", names.get("nobody", 0))
    with tempfile.TemporaryDirectory(prefix="webhook-gateway-disk-") as disk:
        Path(disk).chmod(0o711)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=711", "tmpfs", disk], check=False)
        if mounted.returncode != 0:
            raise Skip("no small disk can be mounted here")
        try:
            yield disk, owner
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)


async def _refused_since(stage: Stage, at: float) -> bool:
    return any(refused.at > at for refused in stage.ledger.refused)


@contextlib.asynccontextmanager
async def _open_transaction(stage: Stage) -> AsyncIterator[None]:
    connection = await asyncpg.connect(stage.database_url)
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await connection.fetchval("SELECT txid_current() + (SELECT count(*) FROM deliveries)")
        yield
    finally:
        await connection.close()


async def _drain_rate(stage: Stage, events: int) -> float:
    """Deliveries a second, from the first event's acceptance to the last delivery."""
    before, began = stage.partner.calls_of_all, monotonic()
    headers = {"Authorization": f"Bearer {stage.key}"}
    first = len(stage.ledger.receipts)
    async with aiohttp.ClientSession(headers=headers) as session:
        for start in range(first, first + events, BATCH):
            numbers = range(start, min(start + BATCH, first + events))
            batch = {"events": [{"type": TYPE, "data": data(number)} for number in numbers]}
            async with session.post(f"{stage.address}/v1/events/batch", json=batch) as answer:
                told = (await answer.json())["results"]
            now = monotonic()
            for number, result in zip(numbers, told, strict=True):
                stage.ledger.note(f"batch-{number}", result["id"], now, duplicate=False)

    async def delivered() -> bool:
        return stage.partner.calls_of_all - before >= events * len(stage.endpoints)

    await until(delivered, "the batches are delivered", PATIENCE)
    return (stage.partner.calls_of_all - before) / (stage.partner.last_at - began)
