"""The floor under delivery: a bare loop of an HTTP client, in a process of its own.

It POSTs bodies and headers of a delivery's size to the receiver, with so many requests in flight, for a while; nothing
is signed, stored, or checked. Prints how many it made, and in how many seconds.

    python -m bench.client CLIENT PORT IN_FLIGHT SECONDS      CLIENT is ours (the sender's) or aiohttp
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp
import uvloop
from uuid_utils.compat import uuid7

from webhook_gateway.outbound.policy import policy_from
from webhook_gateway.outbound.sender import Request, Sender
from webhook_gateway.settings import Settings

from .hospital import data_of, fill, templates

HEADERS = {
    "content-type": "application/json",
    "webhook-id": "evt_00000000000000000000000000",
    "webhook-timestamp": "1750000000",
    "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
}
BODY = (
    b'{"id":"evt_00000000000000000000000000","type":"lab_result.final","timestamp":"2026-01-01T00:00:00.000Z","data":'
    + data_of(fill(templates(["lab_result.final"])[0], 0))
    + b"}"
)


async def measure_ours(port: int, in_flight: int, seconds: float) -> tuple[int, float]:
    """How many POSTs, and in how many seconds."""
    sender = Sender(policy_from(Settings(development=True)))

    def poster(number: int) -> Callable[[], Awaitable[object]]:
        request = Request(uuid7(), 1, f"http://127.0.0.1:{port}/ok/{number}", HEADERS, BODY)
        return lambda: sender.post(request)

    try:
        return await _repeat([poster(number) for number in range(in_flight)], seconds)
    finally:
        await sender.aclose()


async def measure_aiohttp(port: int, in_flight: int, seconds: float) -> tuple[int, float]:
    """How many POSTs, and in how many seconds."""

    def poster(session: aiohttp.ClientSession, number: int) -> Callable[[], Awaitable[object]]:
        async def post() -> None:
            url = f"http://127.0.0.1:{port}/ok/{number}"
            async with session.post(url, data=BODY, headers=HEADERS, allow_redirects=False) as answer:
                await answer.read()

        return post

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        return await _repeat([poster(session, number) for number in range(in_flight)], seconds)


async def _repeat(posters: list[Callable[[], Awaitable[object]]], seconds: float) -> tuple[int, float]:
    made, until = 0, time.monotonic() + seconds

    async def repeat(post: Callable[[], Awaitable[object]]) -> None:
        nonlocal made
        while time.monotonic() < until:
            await post()
            made += 1

    began = time.monotonic()
    await asyncio.gather(*map(repeat, posters))
    return made, time.monotonic() - began


if __name__ == "__main__":
    measure = {"ours": measure_ours, "aiohttp": measure_aiohttp}[sys.argv[1]]
    print(*uvloop.run(measure(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))), flush=True)
