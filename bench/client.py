"""The floor under delivery: a bare loop of the sender's HTTP client, in a process of its own.

It POSTs bodies and headers of a delivery's size to the receiver, with so many requests in flight, for a while; nothing
is signed, stored, or checked. Prints how many it made, and in how many seconds.

    python -m bench.client PORT IN_FLIGHT SECONDS
"""

from __future__ import annotations

import asyncio
import sys
import time

import aiohttp
import uvloop

from .hospital import data_of, fill, templates

HEADERS = {
    "content-type": "application/json",
    "webhook-id": "evt_00000000000000000000000000",
    "webhook-timestamp": "1750000000",
    "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
}


async def measure(port: int, in_flight: int, seconds: float) -> tuple[int, float]:
    """How many POSTs, and in how many seconds."""
    body = b'{"id":"evt_00000000000000000000000000","type":"lab_result.final","timestamp":"2026-01-01T00:00:00.000Z",'
    body += b'"data":' + data_of(fill(templates(["lab_result.final"])[0], 0)) + b"}"
    made, until = 0, time.monotonic() + seconds

    async def post(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal made
        url = f"http://127.0.0.1:{port}/ok/{number}"
        while time.monotonic() < until:
            async with session.post(url, data=body, headers=HEADERS, allow_redirects=False) as answer:
                await answer.read()
            made += 1

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        began = time.monotonic()
        await asyncio.gather(*(post(session, number) for number in range(in_flight)))
        return made, time.monotonic() - began


if __name__ == "__main__":
    made_, seconds_ = uvloop.run(measure(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
    print(made_, seconds_, flush=True)
