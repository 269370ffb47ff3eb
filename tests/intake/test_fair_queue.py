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
from webhook_gateway.intake.ingest import Ingest
from webhook_gateway.store.database import Connection, Database, DatabaseUnavailable

from .taking_in import EVENT, taking_in

FLOOD = 2_000
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_who_floods_the_queue_waits_alone(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_QUEUE", FLOOD)
    ended: list[UUID] = []
    async with taking_in(database_url, "default", "b", "c") as intake:
        flooding, first, second = intake.tenants

        async def post(tenant_id: UUID) -> None:
            await intake.post(tenant_id)
            ended.append(tenant_id)

        async with intake.database.connection() as connection, connection.transaction():
            await connection.execute("LOCK TABLE outbox")  # no commit succeeds, so what is posted piles up
            flood = [asyncio.create_task(post(flooding)) for _ in range(FLOOD)]
            await asyncio.sleep(0)
            late = [asyncio.create_task(post(tenant_id)) for tenant_id in (first, second, first)]
            await asyncio.sleep(0)
            with pytest.raises(DatabaseUnavailable, match="too many"):
                await intake.ingest.accept(flooding, EVENT, intake.until)
            late.append(asyncio.create_task(post(second)))
            await asyncio.sleep(0)
        await asyncio.gather(*flood, *late)
    before_others = ended[: max(index for index, tenant_id in enumerate(ended) if tenant_id != flooding)]
    assert len(before_others) <= 2 * LARGEST_COMMIT, "others are in the first commit after the one under way"
    assert [tenant_id for tenant_id in ended if tenant_id != flooding].count(first) == 2


async def test_a_batch_for_which_there_is_no_room_is_refused_as_a_whole(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_QUEUE", 10)
    async with taking_in(database_url, "default") as intake:
        enqueue, (tenant_id,), until = intake.ingest.enqueue, intake.tenants, intake.until
        async with intake.database.connection() as connection, intake.database.connection() as watching:
            async with connection.transaction():
                await connection.execute("LOCK TABLE outbox")
                under_way = await enqueue(tenant_id, [EVENT] * 3, until)
                await until_waiting(watching)
                first = await enqueue(tenant_id, [EVENT] * 8, until)
                with pytest.raises(DatabaseUnavailable, match="too many"):
                    await enqueue(tenant_id, [EVENT] * 3, until)
                second = await enqueue(tenant_id, [EVENT] * 2, until)
            results = [result for stored in (under_way, first, second) for result in await stored]
            assert all(isinstance(result, Receipt) for result in results)
            assert await connection.fetchval("SELECT count(*) FROM outbox") == len(results) == 13


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
