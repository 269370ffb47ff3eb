"""Somebody at the console, with and without a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.web.console.people import OURS, Person
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
async def somebody(api: Api) -> AsyncIterator[Any]:
    """Signs somebody in with a key of these scopes: `await somebody("admin")`."""
    clients: list[httpx.AsyncClient] = []

    async def sign_in(*scopes: str, **restrictions: Any) -> Person:
        client = Person(base_url=api.url, trust_env=False, headers=OURS, verify=False)
        clients.append(client)
        await client.sign_in(await api.make_key(*scopes, **restrictions))
        return client

    yield sign_in
    for client in clients:
        await client.aclose()


@asynccontextmanager
async def own(url: str) -> AsyncIterator[Database]:
    database = Database(url, connections=2)
    try:
        yield database
    finally:
        await database.close()
