"""What one commit and one bare POST take while the machine is under load: the floor under a delivery's delay.

Now and then, on its own schedule: inserts one row and commits, then POSTs to the receiver with the sender's client and
waits for the answer. Prints "ready" once all is open, waits for a line with the seconds to go on for, and prints the
milliseconds of each pair, added.

    python -m bench.probe DATABASE_URL PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import asyncpg
import uvloop
from uuid_utils.compat import uuid7

from webhook_gateway.outbound.policy import policy_from
from webhook_gateway.outbound.sender import Request, Sender
from webhook_gateway.settings import Settings

from .client import HEADERS

PACE = 0.02
"""Seconds between two probes."""


async def measure(url: str, port: int) -> list[float]:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE IF NOT EXISTS bench_probe (id bigint, body bytea)")
    insert = await connection.prepare("INSERT INTO bench_probe VALUES ($1, $2)")
    sender = Sender(policy_from(Settings(development=True)))
    request = Request(uuid7(), 1, f"http://127.0.0.1:{port}/ok/probe", HEADERS, bytes(500))
    await insert.fetch(-1, bytes(500))
    await sender.post(request)
    print("ready", flush=True)
    seconds = float(await asyncio.to_thread(sys.stdin.readline))
    took: list[float] = []
    begun = time.monotonic()
    for number in range(int(seconds / PACE)):
        await asyncio.sleep(max(0.0, begun + number * PACE - time.monotonic()))
        at = time.perf_counter()
        await insert.fetch(number, bytes(500))
        await sender.post(request)
        took.append((time.perf_counter() - at) * 1000)
    await sender.aclose()
    await connection.close()
    return took


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(sys.argv[1], int(sys.argv[2])))), flush=True)
