"""What one commit and one bare POST take while the machine is under load: the floor under a delivery's delay.

Now and then, on its own schedule: inserts one row and commits, then POSTs to the receiver with the sender's client and
waits for the answer. Prints the milliseconds of each pair, added.

    python -m bench.probe DATABASE_URL PORT SECONDS
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp
import asyncpg
import uvloop

from .client import HEADERS

PACE = 0.02
"""Seconds between two probes."""


async def measure(url: str, port: int, seconds: float) -> list[float]:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE IF NOT EXISTS bench_probe (id bigint, body bytea)")
    insert = await connection.prepare("INSERT INTO bench_probe VALUES ($1, $2)")
    took: list[float] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        begun = time.monotonic()
        for number in range(int(seconds / PACE)):
            await asyncio.sleep(max(0.0, begun + number * PACE - time.monotonic()))
            at = time.perf_counter()
            await insert.fetch(number, bytes(500))
            async with session.post(f"http://127.0.0.1:{port}/ok/probe", data=bytes(500), headers=HEADERS) as answer:
                await answer.read()
            took.append((time.perf_counter() - at) * 1000)
    await connection.close()
    return took


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))), flush=True)
