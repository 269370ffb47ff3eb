"""Retention: each day goes when it is its turn, and what is still open keeps its own body, and only that."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from tests.support.hospital import Hospital
from tests.support.partner import partner
from webhook_gateway.crypto.vault import Vault
from webhook_gateway.delivery.registry import Registry
from webhook_gateway.delivery.upkeep import Upkeep
from webhook_gateway.operations import deliveries
from webhook_gateway.operations.change import changing, local_actor
from webhook_gateway.operations.refusals import Conflict
from webhook_gateway.rules import ids
from webhook_gateway.store import bodies, partitions, reports, retention
from webhook_gateway.store.configuration import Snapshot
from webhook_gateway.store.partitions import EVENTS

TODAY = datetime.now(UTC).date()
BEFORE = TODAY - timedelta(days=30)
OLD_WORKER = "INSERT INTO workers (id, name, protocol) VALUES ($1, 'of the version before', 0)"


async def test_a_day_goes_though_one_of_an_earlier_day_is_open_which_keeps_its_own_body_alone(
    hospital: Hospital,
) -> None:
    endpoint_id = await hospital.endpoint()
    waiting = await stored(hospital, 50, endpoint_id, endpoint_id)
    done = [await stored(hospital, days) for days in (50, 40)]
    await drop(hospital)
    assert await hospital.count("events") == 0
    (kept,) = await hospital.rows("SELECT * FROM kept_bodies")
    async with hospital.database.connection() as connection:
        assert await bodies.bodies(connection, [waiting, *done]) == {waiting: kept["body"]}
    assert hospital.vault.open(hospital.tenant_id, "events", waiting, kept["body"])
    async with hospital.database.begin() as transaction:
        assert await reports.body(transaction, hospital.tenant_id, waiting) == kept["body"]
        event = await reports.event(transaction, hospital.tenant_id, waiting)
        assert event is not None
        assert await reports.event(transaction, hospital.tenant_id, done[0]) is None


async def test_a_kept_body_goes_when_the_last_of_its_deliveries_has_ended(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    await stored(hospital, 50, endpoint_id, endpoint_id)
    await drop(hospital)
    one, other = await hospital.claim(endpoint_id)
    await hospital.finish(one)
    await drop(hospital)
    assert await hospital.count("kept_bodies") == 1
    await hospital.finish(other)
    await drop(hospital)
    assert await hospital.count("kept_bodies") == 0


async def test_what_waits_in_the_outbox_keeps_its_body_until_it_is_delivered(hospital: Hospital) -> None:
    async with partner() as there:
        await hospital.endpoint(url=there.url())
        event_id = await stored(hospital, 50)
        await into_outbox(hospital, event_id)
        await drop(hospital)
        assert await hospital.count("kept_bodies") == 1
        async with hospital.worker():
            (got,) = await there.got(1)
        assert got.id == ids.render(ids.EVENT, event_id)
    await drop(hospital)
    assert await hospital.count("kept_bodies") == 0


async def test_many_are_kept_slice_by_slice(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SLICE", 3)
    monkeypatch.setattr(retention, "MANY", 3)
    endpoints = [await hospital.endpoint() for _ in range(4)]
    waiting = {await stored(hospital, 50, *endpoints) for _ in range(10)}
    await stored(hospital, 50)
    await hospital.rows("DELETE FROM events WHERE id = $1", min(waiting))
    await drop(hospital)
    assert {row["id"] for row in await hospital.rows("SELECT id FROM kept_bodies")} == waiting - {min(waiting)}
    for endpoint_id in endpoints:
        await hospital.finish(*await hospital.claim(endpoint_id))
    await drop(hospital)
    assert await hospital.count("kept_bodies") == 0


async def test_a_replay_that_has_just_found_its_event_finds_its_body_later_too(hospital: Hospital) -> None:
    """It reads the event, and puts itself into the outbox: the day waits for that, and then keeps the body."""
    event_id = await stored(hospital, 50)
    replaying = await asyncpg.connect(str(hospital.settings.database_url))
    await replaying.execute("BEGIN")
    assert await replaying.fetchval("SELECT true FROM events WHERE id = $1", event_id)
    with pytest.raises(asyncpg.LockNotAvailableError):
        await drop(hospital)
    await replaying.execute(
        "INSERT INTO outbox (tenant_id, event_id, type) VALUES ($1, $2, 'lab_result.final')",
        hospital.tenant_id,
        event_id,
    )
    dropping = asyncio.create_task(drop(hospital))
    await hospital.until("SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'")
    await replaying.execute("COMMIT")
    await dropping
    assert await hospital.count("kept_bodies") == 1
    await replaying.close()


async def test_no_body_moves_while_a_worker_is_alive_that_would_not_find_it(hospital: Hospital) -> None:
    await stored(hospital, 60)
    endpoint_id = await hospital.endpoint()
    await stored(hospital, 50, endpoint_id)
    await hospital.rows(OLD_WORKER, uuid7())
    await drop(hospital)
    assert await hospital.count("events") == 1
    assert await hospital.count("configuration WHERE worker_protocol = 0") == 1
    await hospital.rows("DELETE FROM workers")
    await drop(hospital)
    assert await hospital.count("events") == 0
    with pytest.raises(asyncpg.RaiseError):
        await hospital.rows(OLD_WORKER, uuid7())


async def test_what_is_kept_for_one_delivery_is_not_sent_again_by_another(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    await stored(hospital, 50, endpoint_id, endpoint_id)
    one, _ = await hospital.claim(endpoint_id)
    await hospital.finish(one)
    await drop(hospital)
    async with changing(hospital.database, local_actor(hospital.tenant_id)) as change:
        assert await deliveries.replay(change, one.id) is Conflict.BODY_GONE


async def test_answers_go_with_the_bodies(hospital: Hospital) -> None:
    for days in (60, 31, 30, 0):
        await hospital.rows(
            "INSERT INTO attempts (delivery_id, id, tenant_id, attempt, started_at, duration, phase, outcome,"
            " response_excerpt) VALUES ($1, $2, $3, 1, now(), 1, 'answered', 'rejected', 'sealed')",
            id_of(days),
            uuid7(),
            hospital.tenant_id,
        )
    await drop(hospital)
    assert await hospital.count("attempts") == 4
    kept = await hospital.rows("SELECT delivery_id FROM attempts WHERE response_excerpt IS NOT NULL ORDER BY 1")
    assert [day_of(row["delivery_id"]) for row in kept] == [TODAY - timedelta(days=30), TODAY]


async def test_equal_answers_have_one_digest_and_it_is_no_hash_that_can_be_tried(hospital: Hospital) -> None:
    vault, tenant_id, sha256 = hospital.vault, hospital.tenant_id, bytes(32)
    digest = vault.digest_of_answer(tenant_id, sha256)
    assert digest == vault.digest_of_answer(tenant_id, sha256)
    assert digest not in (None, sha256, vault.digest(tenant_id, sha256))
    assert vault.digest_of_answer(tenant_id, b"") is None
    assert Vault(vault.master_keys).digest_of_answer(tenant_id, sha256) is None


async def test_what_nobody_brought_to_an_end_is_dead_after_its_time_and_its_key_goes_on(hospital: Hospital) -> None:
    watching = await hospital.endpoint("gateway.delivery_dead")
    endpoint_id = await hospital.endpoint("lab_result.*", state="paused")
    await hospital.post("a", "a", "b", None)
    await hospital.fan_out()
    sending, head, younger, apart = [
        row["id"] for row in await hospital.rows("SELECT id FROM deliveries ORDER BY sequence")
    ][:4]
    await hospital.rows("UPDATE deliveries SET lease_id = id, due_at = now() + interval '1 h' WHERE id = $1", apart)
    first = await grow_old(hospital, sending, days=91)
    third = await grow_old(hospital, younger, days=89)
    leased = await grow_old(hospital, apart, days=91)
    await hospital.rows("UPDATE deliveries SET created_at = now() - interval '91 days' WHERE id = $1", head)
    async with hospital.worker():
        await hospital.until("SELECT FROM finished_deliveries")
        await hospital.until("SELECT FROM deliveries WHERE endpoint_id = $1", watching)
    (dead,) = await hospital.rows("SELECT * FROM finished_deliveries")
    assert (dead["id"], dead["state"], dead["state_reason"]) == (first, "dead", "open_too_long")
    rows = await hospital.rows("SELECT * FROM deliveries WHERE endpoint_id = $1 ORDER BY sequence", endpoint_id)
    assert [row["id"] for row in rows] == [head, third, leased]
    assert (rows[0]["due_at"] is not None, rows[0]["skipped_event_id"]) == (True, dead["event_id"])


async def test_upkeep_does_all_of_it(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    await stored(hospital, 50, endpoint_id)
    await stored(hospital, 40)
    registry = Registry()
    registry.learn(Snapshot(1, {}, frozenset(), None))
    upkeep = Upkeep(
        hospital.settings.model_copy(update={"retain_open_days": 1}), hospital.database, hospital.vault, registry
    )
    await upkeep.poll()
    assert (await hospital.count("events"), await hospital.count("kept_bodies")) == (0, 1)


async def drop(hospital: Hospital) -> None:
    async with hospital.database.connection() as connection:
        await retention.forget(connection, BEFORE)
        await retention.drop_bodies(connection, BEFORE)


async def stored(hospital: Hospital, days: int, *endpoints: UUID) -> UUID:
    """An event of so many days ago, with an open delivery to each endpoint."""
    event_id = id_of(days)
    sealed = hospital.vault.seal(hospital.tenant_id, "events", event_id, b'{"data":{}}')
    async with hospital.database.connection() as connection:
        await partitions.make_ahead(connection, EVENTS, TODAY - timedelta(days=days), 0)
        await connection.execute(
            "INSERT INTO events (id, tenant_id, type, occurred_at, size, body)"
            " VALUES ($1, $2, 'lab_result.final', now(), 11, $3)",
            event_id,
            hospital.tenant_id,
            sealed,
        )
        for number, endpoint_id in enumerate(endpoints):
            await connection.execute(
                "INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, due_at)"
                " VALUES ($1, $2, $3, $4, 'lab_result.final', $5, now())",
                *(uuid7(), hospital.tenant_id, endpoint_id, event_id, number),
            )
    return event_id


async def into_outbox(hospital: Hospital, event_id: UUID) -> None:
    await hospital.rows(
        "INSERT INTO outbox (tenant_id, event_id, type) VALUES ($1, $2, 'lab_result.final')",
        hospital.tenant_id,
        event_id,
    )


async def grow_old(hospital: Hospital, delivery_id: UUID, *, days: int) -> UUID:
    older = id_of(days)
    await hospital.rows(
        "UPDATE deliveries SET id = $2, created_at = now() - make_interval(days => $3) WHERE id = $1",
        *(delivery_id, older, days),
    )
    return older


def id_of(days: int) -> UUID:
    """A new id of so many days ago."""
    return UUID(int=partitions.lowest_id(TODAY - timedelta(days=days)).int | (uuid7().int & (1 << 80) - 1))


def day_of(id: UUID) -> date:
    return datetime.fromtimestamp((id.int >> 80) / 1000, UTC).date()
