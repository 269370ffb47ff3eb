"""Whose events the next commit takes: every tenant's in turn, whoever floods."""

from __future__ import annotations

import asyncio
from time import monotonic
from uuid import UUID

import pytest

from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.intake import commits as module
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.intake.commits import LARGEST_COMMIT, Receipt
from webhook_gateway.intake.events import NewEvent
from webhook_gateway.intake.ingest import Ingest
from webhook_gateway.store import keyring, tenants
from webhook_gateway.store.database import Connection, Database, DatabaseUnavailable

DATA = {"shift_id": "shf_81", "staff_id": "st_19", "version": 1}
EVENT = NewEvent(
    type="staff_shift.cancelled", data=b'{"shift_id":"shf_81","staff_id":"st_19","version":1}', parsed=DATA
)
FLOOD = 2_000
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_who_floods_the_queue_waits_alone(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_QUEUE", FLOOD)
    database, vault = Database(database_url, connections=3, patience=60.0), Vault(MasterKeys({"test": bytes(32)}))
    async with database.connection() as connection:
        flooding, first, second = [await tenants.make(connection, vault, name) for name in ("default", "b", "c")]
    await keyring.fill(database, vault)
    ingest, until = Ingest(database, vault, Catalogue()), monotonic() + 60
    ended: list[UUID] = []

    async def post(tenant_id: UUID) -> None:
        assert isinstance(await ingest.accept(tenant_id, EVENT, until), Receipt)
        ended.append(tenant_id)

    try:
        async with database.connection() as connection, connection.transaction():
            await connection.execute("LOCK TABLE outbox")  # no commit succeeds, so what is posted piles up
            flood = [asyncio.create_task(post(flooding)) for _ in range(FLOOD)]
            await asyncio.sleep(0)
            late = [asyncio.create_task(post(tenant_id)) for tenant_id in (first, second, first)]
            await asyncio.sleep(0)
            with pytest.raises(DatabaseUnavailable, match="too many"):
                await ingest.accept(flooding, EVENT, until)
            late.append(asyncio.create_task(post(second)))
            await asyncio.sleep(0)
        await asyncio.gather(*flood, *late)
    finally:
        await database.close()
    before_others = ended[: max(index for index, tenant_id in enumerate(ended) if tenant_id != flooding)]
    assert len(before_others) <= 2 * LARGEST_COMMIT, "others are in the first commit after the one under way"
    assert [tenant_id for tenant_id in ended if tenant_id != flooding].count(first) == 2


async def test_a_batch_for_which_there_is_no_room_is_refused_as_a_whole(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_QUEUE", 10)
    database, vault = Database(database_url, connections=3, patience=60.0), Vault(MasterKeys({"test": bytes(32)}))
    async with database.connection() as connection:
        tenant_id = await tenants.make(connection, vault)
    await keyring.fill(database, vault)
    ingest, until = Ingest(database, vault, Catalogue()), monotonic() + 60
    try:
        async with database.connection() as connection, database.connection() as watching:
            async with connection.transaction():
                await connection.execute("LOCK TABLE outbox")
                under_way = await ingest.enqueue(tenant_id, [EVENT] * 3, until)
                await until_waiting(watching)
                first = await ingest.enqueue(tenant_id, [EVENT] * 8, until)
                with pytest.raises(DatabaseUnavailable, match="too many"):
                    await ingest.enqueue(tenant_id, [EVENT] * 3, until)
                second = await ingest.enqueue(tenant_id, [EVENT] * 2, until)
            results = [result for stored in (under_way, first, second) for result in await stored]
            assert all(isinstance(result, Receipt) for result in results)
            assert await connection.fetchval("SELECT count(*) FROM outbox") == len(results) == 13
    finally:
        await database.close()


async def until_waiting(connection: Connection) -> None:
    """The commit is under way."""
    async with asyncio.timeout(30):
        while not await connection.fetchval(WAITS):  # noqa: ASYNC110 - a lock gives no signal
            await asyncio.sleep(0)


async def test_one_batch_of_a_tenant_is_judged_at_a_time_and_another_tenants_beside_it() -> None:
    database, vault = Database("postgresql://nobody@127.0.0.1:1/none"), Vault(MasterKeys({"test": bytes(32)}))
    ingest, flooding, other = Ingest(database, vault, Catalogue()), UUID(int=1), UUID(int=2)
    soon, later = monotonic() + 0.1, monotonic() + 60
    entered: list[str] = []

    async def judge(name: str, tenant_id: UUID, until: float = later) -> None:
        async with ingest.turn(tenant_id, until):
            entered.append(name)

    async with ingest.turn(flooding, later):
        second = asyncio.create_task(judge("second", flooding))
        await judge("other", other)
        with pytest.raises(DatabaseUnavailable):
            await judge("too late", flooding, soon)
        entered.append("first ends")
    await second
    assert entered == ["other", "first ends", "second"]
