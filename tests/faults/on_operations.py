"""Faults of operation: a migration, retention, and keys that come and go, all under load."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from time import monotonic
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from tests.support.hospital import new_master_key
from webhook_gateway.store import migrate, partitions

from .house import House
from .report import Report
from .stage import Stage, render_event, until

LONGEST_LOCK = 1.0
LONGEST_POSTPONEMENT = 36.0
"""Seconds after which a delivery that waits for a key is looked at again."""
GRACE = 10.0
CHANGED_TABLES = ("events", "outbox", "deliveries", "finished_deliveries", "attempts", "endpoints", "endpoint_health")


async def f16_migrate(house: House) -> Report:
    """two versions run during a migration"""
    async with house.stage() as stage, _watch_locks(stage) as longest:
        async with stage.load():
            await asyncio.to_thread(migrate.upgrade, stage.database_url)
            for table in CHANGED_TABLES:
                await _alter(stage, f"ALTER TABLE {table} ADD COLUMN new_in_next_version text")
            await _alter(stage, "CREATE INDEX CONCURRENTLY ON deliveries (created_at)")
            await stage.wait_for_traffic()
            for old in (*stage.apis, *stage.workers):  # the new version takes over, one process after the other
                start = stage.start_api if old in stage.apis else stage.start_worker
                await stage.terminate(old)
                await start()
            stage.resumed.append(await stage.wait_for_traffic())
        stage.notes.append(f"the longest exclusive lock was held for {longest():.2f} s")
        stage.expect(longest() <= LONGEST_LOCK, f"a lock was held for {longest():.2f} s")
        return await stage.account(allowed=0)


async def f18_drop_partitions(house: House) -> Report:
    """retention drops partitions while delivering"""
    async with house.stage(workers=0, settings={"WEBHOOK_GATEWAY_RETAIN_BODIES_DAYS": "1"}) as stage:
        today = datetime.now(UTC).date()
        slow = await stage.add_endpoint("slow", state="paused", counts=False)
        done = await _store_old_event(stage, today - timedelta(days=60), None)
        waiting = await _store_old_event(stage, today - timedelta(days=40), slow)
        async with stage.load(flowing=False):
            for days in (60, 40):
                await _wait_until_dropped(stage, partitions.EVENTS.name(today - timedelta(days=days)))
            kept = await stage.value("SELECT count(*) FROM kept_bodies WHERE id = $1", waiting)
            stage.expect(bool(kept), "an event that waits for its delivery was dropped")
            await stage.value("UPDATE endpoints SET state = 'enabled' WHERE id = $1", slow)
            await stage.value("UPDATE configuration SET version = version + 1")
            await until(lambda: _has(stage, "slow", waiting), "the old event is delivered")
            stage.resumed.append(await stage.wait_for_traffic())
        stage.expect(not await _is_stored(stage, done), "an old event that nobody waits for was kept")
        return await stage.account(allowed=0)


async def f19_lose_and_rotate_the_key(house: House) -> Report:
    """the encryption key is missing, then back; rotated under load"""
    async with house.stage() as stage:
        right = stage.master_keys
        async with stage.load(rate=30):
            await _replace_workers(stage, new_master_key("wrong"))
            await until(lambda: _postponed(stage, 20), "deliveries wait for the key")
            back_at = monotonic()
            await _replace_workers(stage, right)

            both = f"{new_master_key('second')},{right}"
            await _replace_workers(stage, both)
            await _replace_apis(stage, both)
            stage.master_keys = both
            await _make_new_data_keys(stage)
            await stage.wait_for_traffic()
            stage.resumed.append(await stage.catch_up(back_at))
        return await stage.account(allowed=0, resumed_within=LONGEST_POSTPONEMENT + GRACE)


async def _alter(stage: Stage, statement: str) -> None:
    """As a migration does it: it waits only briefly for a table, and asks again."""
    connection = await asyncpg.connect(stage.database_url)
    try:
        await connection.execute("SET lock_timeout = '500ms'")

        async def altered() -> bool:
            try:
                await connection.execute(statement)
            except asyncpg.LockNotAvailableError:
                return False
            return True

        await until(altered, statement)
    finally:
        await connection.close()


HELD = """
SELECT c.relname, l.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
WHERE l.granted AND l.mode = 'AccessExclusiveLock' AND c.relname = ANY($1) AND l.pid <> pg_backend_pid()
"""


@asynccontextmanager
async def _watch_locks(stage: Stage) -> AsyncIterator[Callable[[], float]]:
    """Looks every 20 ms who holds a table for himself; gives the longest time that was seen, in seconds."""
    longest = 0.0
    stop = asyncio.Event()

    async def watch() -> None:
        nonlocal longest
        connection = await asyncpg.connect(stage.database_url)
        since: dict[tuple[str, int], float] = {}
        while not stop.is_set():
            now = monotonic()
            held = {(row[0], row[1]) for row in await connection.fetch(HELD, list(CHANGED_TABLES))}
            since = {lock: since.get(lock, now) for lock in held}
            longest = max([longest, *(now - at for at in since.values())])
            await asyncio.sleep(0.02)
        await connection.close()

    watching = asyncio.create_task(watch())
    try:
        yield lambda: longest
    finally:
        stop.set()
        await watching


async def _store_old_event(stage: Stage, day: date, endpoint_id: UUID | None) -> UUID:
    """An event of that day, with a delivery that is still open if an endpoint is given."""
    fresh = uuid7().int & ((1 << 80) - 1)
    event_id = UUID(int=partitions.lowest_id(day).int | fresh)
    body = json.dumps({"id": render_event(event_id), "type": "old.event", "data": {}}).encode()
    async with stage.hospital() as hospital, hospital.database.connection() as connection:
        sealed = hospital.vault.seal(stage.tenant_id, "events", event_id, body)
        await partitions.make_ahead(connection, partitions.EVENTS, day, 0)
        await connection.execute(
            "INSERT INTO events (id, tenant_id, type, occurred_at, size, body) "
            "VALUES ($1, $2, 'old.event', now(), $3, $4)",
            *(event_id, stage.tenant_id, len(body), sealed),
        )
        if endpoint_id is not None:
            await connection.execute(
                "INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, due_at) "
                "VALUES ($1, $2, $3, $4, 'old.event', 0, now())",
                *(uuid7(), stage.tenant_id, endpoint_id, event_id),
            )
    return event_id


async def _wait_until_dropped(stage: Stage, partition: str) -> None:
    """Retention is looked after when a worker starts, then every ten minutes."""
    await stage.start_worker()
    await stage.start_worker()

    async def dropped() -> bool:
        return await stage.value("SELECT to_regclass($1)", partition) is None

    await until(dropped, f"{partition} is dropped", 30)


async def _is_stored(stage: Stage, event_id: UUID) -> bool:
    return bool(await stage.value("SELECT count(*) FROM events WHERE id = $1", event_id))


async def _has(stage: Stage, endpoint: str, event_id: UUID) -> bool:
    return stage.partner.had(endpoint, render_event(event_id)) is not None


async def _replace_workers(stage: Stage, master_keys: str) -> None:
    for worker in list(stage.workers):
        await stage.terminate(worker)
        await stage.start_worker(WEBHOOK_GATEWAY_MASTER_KEYS=master_keys)


async def _replace_apis(stage: Stage, master_keys: str) -> None:
    for api in list(stage.apis):
        await stage.terminate(api)
        await stage.start_api(WEBHOOK_GATEWAY_MASTER_KEYS=master_keys)


async def _make_new_data_keys(stage: Stage) -> None:
    """A newer data key, wrapped by the newer master key: what is sealed from now on is sealed with it."""
    name, wrapped = stage.vault().master_keys.wrap(stage.tenant_id, "seal", os.urandom(32))
    await stage.value(
        "INSERT INTO data_keys (tenant_id, purpose, master_key, wrapped) VALUES ($1, 'seal', $2, $3)",
        *(stage.tenant_id, name, wrapped),
    )


async def _postponed(stage: Stage, at_least: int) -> bool:
    waiting = "SELECT count(*) FROM attempts WHERE outcome = 'unsendable' AND detail = 'key_missing'"
    return bool(await stage.value(waiting) >= at_least)
