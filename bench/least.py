"""The floor under an event: three commits and one POST, the least that storing, leasing, sending and settling take.

A bare loop of asyncpg (three inserts, each its own commit, one after the other), then a bare POST over a connection
that stays open; nothing is checked, encrypted, signed or looked up. Arrivals as `load` makes them. Prints "begun".

    python -m bench.least DATABASE_URL PORT RATE SECONDS
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

import asyncpg
import uvloop

from .alarm import arrive
from .client import BODY, HEADERS

HANDS = 8
"""Events at most that are under way; more wait."""
COMMITS = 3
SEED = 7


class Post(asyncio.Protocol):
    """One keep-alive connection, one request at a time; ``answered`` is the answer to come."""

    def __init__(self, port: int) -> None:
        head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        first = f"POST /ok/least HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{head}Content-Length: {len(BODY)}\r\n\r\n"
        self._message = first.encode() + BODY
        self._transport: asyncio.WriteTransport | None = None
        self.answered: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:  # the receiver's answers are a few bytes, so they come whole
        assert self.answered is not None
        self.answered.set_result(None)

    async def send(self) -> None:
        assert self._transport is not None
        self.answered = asyncio.get_running_loop().create_future()
        self._transport.write(self._message)
        await self.answered


async def measure(url: str, port: int, rate: float, seconds: float) -> None:
    arrived: asyncio.Queue[int] = asyncio.Queue()
    setting_up = await asyncpg.connect(url)
    await setting_up.execute("CREATE TABLE IF NOT EXISTS bench_least (id bigint, body bytea)")
    await setting_up.close()

    async def work(connection: asyncpg.Connection, post: Post) -> None:
        insert = await connection.prepare("INSERT INTO bench_least VALUES ($1, $2)")
        while True:
            number = await arrived.get()
            for _ in range(COMMITS):
                await insert.fetch(number, BODY)
            await post.send()

    working = []
    for _ in range(HANDS):
        _, post = await asyncio.get_running_loop().create_connection(lambda: Post(port), "127.0.0.1", port)
        working.append(asyncio.create_task(work(await asyncpg.connect(url), post)))
    print("begun", flush=True)
    await arrive(time.monotonic_ns(), rate, seconds, SEED, lambda due, _: arrived.put_nowait(due))


if __name__ == "__main__":
    uvloop.run(measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
