"""What a lone event leaves behind, and what it meets, is what it would in company."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from uuid_utils.compat import uuid7

from tests.support.hospital import Hospital
from webhook_gateway.intake.catalogue import EventType
from webhook_gateway.intake.events import NewEvent, prepare
from webhook_gateway.store import outbox
from webhook_gateway.store.notifications import CHANNEL, OUTBOX
from webhook_gateway.store.outbox import Appended

KNOWN = EventType("visit.ended", "", {}, {}, "visit:{visit}", "tenant", patient=("/patient_id",))
TABLES = {
    "events": "id, tenant_id, type, occurred_at, size, body, addressees, ordering_key",
    "outbox": "event_id, tenant_id, type, ordering_key, endpoint_id, delivery_id, reason, addressees",
    "lookups": "event_id, key",
    "idempotency_keys": "event_id, tenant_id, key, fingerprint",
}
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def made(hospital: Hospital, key: str | None, to: list[UUID] | None = None, **data: Any) -> Appended:
    event = NewEvent("visit.ended", msgspec.json.encode(data), data, subject="s", idempotency_key=key)
    return prepare(hospital.vault, uuid7(), hospital.tenant_id, event, KNOWN, to)


async def left_behind(hospital: Hospital, event_id: UUID) -> dict[str, list[tuple[object, ...]]]:
    found = {}
    for table, names in TABLES.items():
        own, *others = names.split(", ")
        rows = await hospital.rows(f"SELECT {', '.join(others)} FROM {table} WHERE {own} = $1", event_id)
        found[table] = sorted(map(tuple, rows), key=repr)
    return found


@pytest.mark.parametrize("key", [None, "ik"])
async def test_a_lone_event_leaves_the_same_rows_as_in_company(hospital: Hospital, key: str | None) -> None:
    lone = made(hospital, key, [uuid7(), uuid7()], patient_id="p", visit=1)
    again = msgspec.structs.replace(lone, id=uuid7(), key=None if key is None else bytes(32))
    async with hospital.database.connection() as connection:
        assert list(await outbox.append(connection, [lone])) == [lone.id]
        assert again.id in await outbox.append(connection, [again, made(hospital, None)])
    first, second = await left_behind(hospital, lone.id), await left_behind(hospital, again.id)
    keys = [rows.pop("idempotency_keys") for rows in (first, second)]
    assert first == second
    assert [len(rows) for rows in first.values()] == [1, 1, 3]
    assert [[row[2:] for row in rows] for rows in keys] == ([[(lone.fingerprint,)]] * 2 if key else [[], []])


@pytest.mark.parametrize("company", [False, True])
@pytest.mark.parametrize("commits", [False, True])
async def test_of_two_that_race_with_one_key_one_is_stored(hospital: Hospital, company: bool, commits: bool) -> None:
    first, second = made(hospital, "ik"), made(hospital, "ik")
    others = [made(hospital, None)] if company else []
    async with hospital.database.connection() as one, hospital.database.connection() as other:
        transaction = one.transaction()
        await transaction.start()
        assert list(await outbox.append(one, [first, *others])) == [event.id for event in [first, *others]]
        racing = asyncio.create_task(outbox.append(other, [second]))
        while not await one.fetchval(WAITS):  # for the first one's end
            assert not racing.done()
        await (transaction.commit() if commits else transaction.rollback())
        assert list(await racing) == ([] if commits else [second.id])
    refused, kept = (second, first) if commits else (first, second)
    assert not any((await left_behind(hospital, refused.id)).values())
    assert all((await left_behind(hospital, kept.id)).values())


async def test_workers_are_told_of_a_lone_event_with_its_commit_if_they_are_to_be(hospital: Hospital) -> None:
    heard: asyncio.Queue[object] = asyncio.Queue()
    listening: asyncpg.Connection = await hospital.database.connect()
    await listening.add_listener(CHANNEL, lambda *heard_of: heard.put_nowait(heard_of[-1]))
    async with hospital.database.connection() as connection:
        await outbox.append(connection, [made(hospital, None)])
        await outbox.append(connection, [made(hospital, "ik")], notify=True)
        await connection.execute("SELECT pg_notify($1, 'end')", CHANNEL)
    assert str(await heard.get()).split(" ")[0] == OUTBOX
    assert await heard.get() == "end"
    await listening.close()
