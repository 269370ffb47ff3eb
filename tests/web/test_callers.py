"""A key that was found is remembered as long as nothing was changed, and never for long without a word on that."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from time import monotonic, time
from typing import Any

import httpx
import pytest

from tests.support.hospital import PATIENCE
from tests.web.serving import Api
from tests.web.test_guesses import locked, until_asked
from tests.web.world import post
from webhook_gateway.operations import keys
from webhook_gateway.operations.change import changing, local_actor
from webhook_gateway.rules import api_keys, ids
from webhook_gateway.rules.rights import Quotas
from webhook_gateway.settings import Settings
from webhook_gateway.store.database import Database
from webhook_gateway.web.callers import AGAIN, REMEMBERED, Callers

HERE = "10.0.0.1"
SCOPE: dict[str, Any] = {"type": "http", "client": (HERE, 1)}


class Asking:
    """One who asks with a key, and the callers who are known where it comes to."""

    def __init__(self, api: Api, key: str, database: Database | None = None) -> None:
        quotas = Quotas(endpoints=1, header_bytes=1, tests_a_day=1, replays_a_day=1, open_replays=1)
        self.callers = Callers(
            database or api.database, api.vault, Settings(database_url="postgresql://"), None, quotas
        )
        self._key = key

    async def ask(self) -> None:
        await self.callers.authenticate(SCOPE, {b"authorization": f"Bearer {self._key}".encode()})

    def confirm(self, seconds: float) -> None:
        """As time goes on for so long, and nothing is changed."""
        began = monotonic()
        for later in range(0, int(seconds) + 1, 4):
            assert self.callers.keep(1, began + later)

    def is_known(self) -> bool:
        return self.callers.recall(api_keys.digest(self._key), HERE) is not None


@pytest.fixture
async def asking(api: Api) -> Asking:
    asking = Asking(api, await api.make_key("events:write"))
    asking.callers.keep(1, monotonic())
    await asking.ask()
    return asking


async def test_a_key_is_known_for_as_long_as_it_is_confirmed_that_nothing_was_changed(asking: Asking) -> None:
    assert asking.is_known()
    asking.confirm(8)
    assert asking.is_known()
    assert asking.callers.keep(1, monotonic() - REMEMBERED)
    assert not asking.is_known(), "that was so five seconds ago"


async def test_one_that_nothing_was_heard_of_for_longer_is_looked_up_whatever_the_version_is(asking: Asking) -> None:
    assert asking.callers.keep(1, monotonic() + REMEMBERED + 1)
    assert not asking.is_known(), "the version may be that of another server, which has lost a change and had another"


async def test_none_is_known_once_anything_was_changed(asking: Asking) -> None:
    assert not asking.callers.keep(2, monotonic())
    assert not asking.is_known()


async def test_each_is_looked_up_again_after_a_minute_for_its_last_use_to_be_written_down(asking: Asking) -> None:
    asking.confirm(AGAIN - 10)
    assert asking.is_known()
    assert not asking.callers.keep(1, monotonic() + AGAIN)
    assert not asking.is_known()


async def test_none_is_known_for_longer_than_it_lasts(api: Api) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=30)
    asking = Asking(api, await api.make_key("events:write", expires_at=ends))
    asking.callers.keep(1, monotonic())
    await asking.ask()
    asking.confirm(24)
    assert asking.is_known()
    asking.confirm(36)
    assert not asking.is_known()


async def test_when_a_key_ends_is_said_by_the_clock_of_the_database(api: Api, database_url: str) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=50)
    database = Database(database_url)
    database.clock.set(time() + 40)  # this machine's is slow
    try:
        asking = Asking(api, await api.make_key("events:write", expires_at=ends), database)
        asking.callers.keep(1, monotonic())
        await asking.ask()
        asking.confirm(12)
        assert not asking.is_known()
    finally:
        await database.close()


async def test_what_was_being_looked_up_as_something_was_changed_is_not_remembered(
    api: Api, database_url: str, asking: Asking
) -> None:
    asking.callers.forget()
    async with locked(database_url, "api_keys") as connection:
        looking_up = asyncio.create_task(asking.ask())
        await until_asked(connection, "api_keys", 1)
        asking.callers.forget()
    await looking_up
    assert not asking.is_known()
    await asking.ask()
    assert asking.is_known()


async def test_who_asks_after_a_change_is_not_told_what_was_looked_up_before(
    api: Api, database_url: str, asking: Asking
) -> None:
    asking.callers.forget()
    async with locked(database_url, "api_keys") as connection:
        before = asyncio.create_task(asking.ask())
        await until_asked(connection, "api_keys", 1)
        asking.callers.forget()
        after = asyncio.create_task(asking.ask())
        await until_asked(connection, "api_keys", 2)
    await asyncio.gather(before, after)
    assert asking.is_known()


async def test_a_key_that_another_process_revokes_ends_within_seconds(api: Api, admin: httpx.AsyncClient) -> None:
    made = await post(admin, "/v1/keys", {"name": "LIS", "role": "auditor"})
    async with api.client(made["key"]) as client:
        assert (await client.get("/v1/stats")).status_code == 200
        async with changing(api.database, local_actor(api.tenant_id)) as change:
            await keys.revoke(change, ids.parse(ids.KEY, made["id"]))
        async with asyncio.timeout(PATIENCE):
            while (await client.get("/v1/stats")).status_code == 200:
                pass
