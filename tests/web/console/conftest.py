"""Somebody at the console, with and without a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.web.console.people import Person, person_at
from tests.web.serving import Api, running
from tests.web.world import World, make_world
from webhook_gateway.store.database import Database
from webhook_gateway.store.partitions import make_all


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    async with running(database_url, development=True) as found:
        async with found.database.connection() as connection:
            await make_all(connection)
        yield found


@pytest.fixture
async def admin(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client(await api.make_key("admin")) as client:
        yield client


@pytest.fixture
async def world(api: Api, admin: httpx.AsyncClient) -> World:
    return await make_world(api, admin, api.tenant_id)


@pytest.fixture
async def arrive(api: Api) -> AsyncIterator[Callable[[], Person]]:
    """Somebody new each time, who is not signed in: `arrive()`."""
    async with AsyncExitStack() as leaving:

        def arrived() -> Person:
            person = person_at(api.url)
            leaving.push_async_callback(person.aclose)
            return person

        yield arrived


@pytest.fixture
async def somebody(api: Api, arrive: Callable[[], Person]) -> Any:
    """Signs somebody in with a key of these scopes: `await somebody("admin")`."""

    async def sign_in(*scopes: str, **restrictions: Any) -> Person:
        client = arrive()
        await client.sign_in(await api.make_key(*scopes, **restrictions))
        return client

    return sign_in


@asynccontextmanager
async def own(url: str) -> AsyncIterator[Database]:
    database = Database(url, connections=2)
    try:
        yield database
    finally:
        await database.close()
