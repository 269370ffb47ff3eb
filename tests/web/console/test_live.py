"""What keeps pages current: a stream that says when something was counted, bounded, and over when its process stops."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.web.console.people import OURS, Person
from tests.web.console.test_sign_in import put_back
from tests.web.serving import Api, running
from tests.web.test_connections import serving
from webhook_gateway.store.notifications import STATS, notify
from webhook_gateway.web import live

EVENTS = {"Accept": "text/event-stream"}
PATIENCE = 60.0
"""Seconds after which what has not come will not come."""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "GAP", 0.01)


@asynccontextmanager
async def streaming(client: httpx.AsyncClient) -> AsyncIterator[AsyncIterator[str]]:
    """The lines of a stream that has begun."""
    async with client.stream("GET", "/console/live", headers=EVENTS, timeout=PATIENCE) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        lines = answer.aiter_lines()
        assert await anext(lines) == ": ping"
        yield lines


async def event(lines: AsyncIterator[str]) -> str:
    async with asyncio.timeout(PATIENCE):
        return await anext(line async for line in lines if line.startswith("event:"))


async def test_every_stream_hears_that_something_was_counted_and_nothing_else(api: Api, somebody: Any) -> None:
    one, other = await somebody("deliveries:read"), await somebody("audit:read")
    async with streaming(one) as first, streaming(other) as second:
        await notify(api.database, STATS)
        assert await event(first) == await event(second) == "event: stats"
        assert await anext(first) == "data: 1"


async def test_streams_share_the_one_connection_that_listens(api: Api, somebody: Any) -> None:
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    person = await somebody("admin")
    async with AsyncExitStack() as stack:
        for _ in range(live.MOST_OF_A_SESSION):
            await event_after(api, await stack.enter_async_context(streaming(person)))
        async with api.database.connection() as connection:
            assert await connection.fetchval(count) <= 1  # none where it has been used for something else since


async def event_after(api: Api, lines: AsyncIterator[str]) -> None:
    await notify(api.database, STATS)
    await event(lines)


async def test_a_session_and_a_process_have_so_many_streams_and_who_leaves_makes_room(
    api: Api, somebody: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST", live.MOST_OF_A_SESSION + 1)
    one, other, third = [await somebody("admin") for _ in range(3)]
    async with AsyncExitStack() as stack:
        for _ in range(live.MOST_OF_A_SESSION):
            await stack.enter_async_context(streaming(one))
        assert (await one.get("/console/live", headers=EVENTS)).status_code == 429
        async with streaming(other):
            assert (await third.get("/console/live", headers=EVENTS)).status_code == 429
    async with asyncio.timeout(PATIENCE):
        while (await refused(one)) or (await refused(third)):
            pass


async def refused(person: Person) -> bool:
    """That they have left is heard with what is sent next, or before."""
    async with person.stream("GET", "/console/live", headers=EVENTS, timeout=PATIENCE) as answer:
        return answer.status_code == 429


async def test_who_is_not_signed_in_hears_nothing_and_a_stream_keeps_nobody_signed_in(api: Api, somebody: Any) -> None:
    async with Person(base_url=api.url, trust_env=False) as stranger:
        assert (await stranger.get("/console/live", headers=EVENTS)).status_code == 303
    person = await somebody("admin")
    await put_back(api, "seen_at", 600)
    async with streaming(person), api.database.connection() as connection:
        assert await connection.fetchval("SELECT now() - seen_at > interval '5 minutes' FROM sessions")


async def test_a_stream_ends_after_a_while_so_that_whoever_has_it_is_asked_again(
    somebody: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LASTS", 0.0)
    async with streaming(await somebody("admin")) as lines, asyncio.timeout(PATIENCE):
        assert "".join([line async for line in lines]) == ""


async def test_a_stream_is_no_idle_connection(database_url: str) -> None:
    async with (
        running(database_url, development=True, idle_timeout=0.1, header_timeout=0.1) as api,
        Person(base_url=api.url, trust_env=False, headers=OURS) as person,
    ):
        await person.sign_in(await api.make_key("admin"))
        async with streaming(person) as lines, asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(httpx.URL(api.url).host, httpx.URL(api.url).port)
            assert await reader.read() == b"", "a silent connection is closed"
            writer.close()
            await event_after(api, lines)


async def test_sigterm_ends_open_streams_with_their_last_chunk(database_url: str) -> None:
    async with serving(database_url, development=True) as served:
        url = f"http://127.0.0.1:{served.port}"
        async with Person(base_url=url, trust_env=False, headers=OURS) as person:
            await person.sign_in(served.key)
            async with streaming(person) as lines, asyncio.timeout(PATIENCE):
                os.kill(served.pid, signal.SIGTERM)
                async for _ in lines:  # raises where it is cut off, as by the server's patience
                    pass
