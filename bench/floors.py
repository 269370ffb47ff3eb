"""What this machine can do at most, measured in the same run: client, server and disk, each alone."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from contextlib import suppress

import asyncpg

from . import children
from .gateway import Gateway
from .hospital import TYPES
from .load import Plan, Posting
from .report import Report


async def measure_floors(gateway: Gateway, report: Report, seconds: float) -> None:
    """The bare client, the bare server and the bare commit."""
    await measure_client(gateway, report, seconds)
    await measure_echo(gateway, report, seconds)
    await measure_commits(gateway, report, seconds / 2)


async def measure_client(gateway: Gateway, report: Report, seconds: float) -> None:
    """The sender's own client, and the fastest that a library offers; of each the best of two depths."""
    for client, name, what in (
        ("ours", "floor_client", "POSTs/s by a bare loop of the sender's client to the same receiver"),
        ("aiohttp", "floor_aiohttp", "POSTs/s by a bare loop of aiohttp"),
    ):
        rates = []
        for in_flight in (16, 64):  # more in flight is not always faster
            port = str(gateway.receiver.port)
            command = (sys.executable, "-m", "bench.client", client, port, str(in_flight), str(seconds / 4))
            process = children.spawn(command, stdout=subprocess.PIPE)
            output, _ = await asyncio.to_thread(process.communicate)
            made, took = output.split()
            rates.append(int(made) / float(took))
        gateway.receiver.take()
        report.note(name, max(rates), what)


async def measure_echo(gateway: Gateway, report: Report, seconds: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = children.spawn((sys.executable, "-m", "bench.echo", str(port)))
    try:
        await _answers(port)
        plan = Plan(port=port, notes=str(gateway.directory / "echo"), seconds=seconds, types=list(TYPES))
        posting = Posting(plan)
        notes = await posting.notes_after_begun()
        report.note(
            "floor_echo", notes.rate(), "POSTs/s to a bare ASGI app that checks the body (jiter, msgspec, schema)"
        )
    finally:
        children.end(process)


async def measure_commits(gateway: Gateway, report: Report, seconds: float) -> None:
    """Rows of an event's size, each its own durable commit: one connection, then sixteen."""
    url = gateway.postgres.url
    await gateway.connection.execute("CREATE TABLE bench_commits (id bigint, body bytea)")

    async def commit(until: float) -> int:
        connection = await asyncpg.connect(url)
        insert = await connection.prepare("INSERT INTO bench_commits VALUES ($1, $2)")
        made = 0
        while time.monotonic() < until:
            await insert.fetch(made, bytes(500))
            made += 1
        await connection.close()
        return made

    for connections, name in ((1, "floor_commits_1"), (16, "floor_commits_16")):
        made = await asyncio.gather(*(commit(time.monotonic() + seconds) for _ in range(connections)))
        report.note(name, sum(made) / seconds, f"commits/s, {connections} connection{'s' * (connections > 1)}")
    await gateway.connection.execute("DROP TABLE bench_commits")


async def _answers(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise RuntimeError("the echo server did not start")
