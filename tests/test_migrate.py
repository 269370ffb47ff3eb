"""Migrating: safe to repeat, safe to race, and the same with the libpq spellings of a URL."""

import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path

import asyncpg
import pytest

from webhook_gateway.store import migrate, partitions


async def test_each_test_gets_the_newest_schema(database_url: str) -> None:
    assert await asyncio.to_thread(migrate.current, database_url) == migrate.head()


async def test_migrators_that_start_together_take_turns(database_url: str) -> None:
    await empty(database_url)
    script = "import sys; from webhook_gateway.store import migrate; migrate.upgrade(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    migrators = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", script, database_url, env=environment)
        for _ in range(3)
    ]
    assert [await migrator.wait() for migrator in migrators] == [0, 0, 0]
    assert await asyncio.to_thread(migrate.current, database_url) == migrate.head()


async def test_a_migrator_waits_for_one_that_is_at_work(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found_it_taken = threading.Event()
    sleep = time.sleep

    def note_and_sleep(seconds: float) -> None:
        found_it_taken.set()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", note_and_sleep)
    at_work = await asyncpg.connect(database_url)
    await at_work.fetchval("SELECT pg_advisory_lock($1)", migrate.MIGRATION_LOCK)
    second = asyncio.create_task(asyncio.to_thread(migrate.upgrade, database_url))
    assert await asyncio.to_thread(found_it_taken.wait, 30)
    assert not second.done()
    await at_work.close()
    await second


async def test_an_index_that_was_not_made_to_the_end_is_made_by_the_next_try(database_url: str) -> None:
    await empty(database_url)
    await asyncio.to_thread(migrate.upgrade, database_url, "0010")
    connection = await asyncpg.connect(database_url)
    (month,) = await partitions.make_ahead(connection, partitions.ATTEMPTS, await partitions.today(connection), 0)
    await connection.execute(f"CREATE INDEX {month}_answers ON {month} (delivery_id)")
    await asyncio.to_thread(migrate.upgrade, database_url)
    await asyncio.to_thread(migrate.upgrade, database_url)
    assert await connection.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = 'attempts_answers'::regclass")
    await connection.close()


async def test_a_database_that_was_never_migrated_has_no_revision(database_url: str) -> None:
    await empty(database_url)
    assert await asyncio.to_thread(migrate.current, database_url) is None


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
async def test_a_url_may_be_spelt_as_for_libpq_or_for_sqlalchemy(database_url: str, scheme: str) -> None:
    place = database_url.partition("://")[2].partition("?")[0]
    spelt = f"{scheme}://{place}?sslmode=prefer&application_name=migrator"
    assert await asyncio.to_thread(migrate.current, spelt) == migrate.head()


def test_alembic_finds_what_the_package_finds() -> None:
    checkout = Path(__file__).parents[1]
    assert migrate.migrations().resolve() == checkout / "migrations"
    assert "script_location = %(here)s/migrations" in (checkout / "alembic.ini").read_text()


async def empty(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await connection.close()


async def test_subscribers_from_before_keep_what_their_endpoints_have_and_are_marked(database_url: str) -> None:
    await empty(database_url)
    await asyncio.to_thread(migrate.upgrade, database_url, "0006")
    connection = await asyncpg.connect(database_url)
    await connection.execute("""
        INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), 'default');
        INSERT INTO subscribers (id, tenant_id, name, deleted_at)
            SELECT gen_random_uuid(), t.id, s.name, s.deleted_at FROM tenants t,
                (VALUES ('two', NULL), ('none', NULL), ('gone', now())) AS s(name, deleted_at);
        INSERT INTO endpoints (id, tenant_id, subscriber_id, url, event_types, deleted_at)
            SELECT gen_random_uuid(), s.tenant_id, s.id, 'https://x', e.types, e.deleted_at FROM subscribers s,
                (VALUES ('{lab_order.*,*}'::text[], NULL), ('{lab_order.*}', NULL), ('{payment.*}', now()))
                    AS e(types, deleted_at)
            WHERE s.name = 'two';
    """)
    await asyncio.to_thread(migrate.upgrade, database_url, "0007")
    rows = await connection.fetch(
        "SELECT name, event_types, content, permission_by_migration AS marked FROM subscribers"
    )
    found = {row["name"]: (row["event_types"], json.loads(row["content"])["level"], row["marked"]) for row in rows}
    assert found == {
        "two": (["*", "lab_order.*"], "full", True),
        "none": ([], "full", True),
        "gone": ([], "thin", False),
    }
    kept = await connection.fetch("SELECT event_types FROM endpoints WHERE deleted_at IS NULL ORDER BY 1")
    assert [row[0] for row in kept] == [["lab_order.*"], ["lab_order.*", "*"]]
    await connection.close()
