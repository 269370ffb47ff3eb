"""A fresh database and a running API for each test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from uuid_utils.compat import uuid7

from tests.support.hospital import Hospital
from tests.support.rows import SUBSCRIBER
from tests.web.serving import Api, running
from webhook_gateway import telemetry
from webhook_gateway.settings import Settings
from webhook_gateway.store.database import Database
from webhook_gateway.store.partitions import make_all


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    async with running(database_url) as found:
        yield found


@pytest.fixture
async def admin(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """A client that may do everything but read payloads."""
    async with api.client(await api.make_key("admin")) as client:
        yield client


@pytest.fixture
async def hospital(database_url: str, api: Api) -> AsyncIterator[Hospital]:
    """The hospital of the API, as its workers see it."""
    settings = Settings(database_url=database_url, development=True, log_level="error", concurrency=1_000)
    database, subscriber_id = Database(database_url, connections=10), uuid7()
    async with database.connection() as connection:
        await make_all(connection)
        await connection.execute(SUBSCRIBER, subscriber_id, api.tenant_id, "Laboratory")
    yield Hospital(settings, database, api.vault, api.tenant_id, subscriber_id)
    await database.close()


@pytest.fixture(autouse=True)
def unforeseen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """Fails the test for every exception that nobody foresaw, unless the test takes it out of the list."""
    met: list[BaseException] = []
    monkeypatch.setattr(telemetry, "stage_failed", lambda _stage, problem: met.append(problem))
    yield met
    if met:
        raise met[0]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come from the test alone."""
    for name in os.environ:
        if name.startswith("WEBHOOK_GATEWAY_"):
            monkeypatch.delenv(name)
