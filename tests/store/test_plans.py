"""The hot statements' plans at a backlog of a million: index probes only, and as many pages as rows ask for."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from webhook_gateway.slots import LONG_AGO
from webhook_gateway.store import deliveries, outbox
from webhook_gateway.store.database import plain

MILLION = 1_000_000
ENDPOINTS = 1_000

FILL = """
INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at, attempt)
SELECT gen_random_uuid(), '00000000-0000-0000-0000-000000000001',
       ('00000000-0000-0000-0000-' || lpad(to_hex(n % $2), 12, '0'))::uuid,
       gen_random_uuid(), 'lab_result.final', n, CASE WHEN n % 4 = 0 THEN n / 400 END,
       CASE WHEN n % 8 <> 4 THEN now() - make_interval(secs => $1 - n) END, 0
FROM generate_series(1, $1) AS n
"""

WAITING = """
INSERT INTO outbox (tenant_id, event_id, type)
SELECT gen_random_uuid(), gen_random_uuid(), 'lab_result.final' FROM generate_series(1, $1::int)
"""


def endpoint(number: int) -> UUID:
    return UUID(int=number)


@pytest.fixture
async def full(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A database with a million open deliveries of a thousand endpoints."""
    connection = await asyncpg.connect(plain(database_url))
    await connection.execute(FILL, MILLION, ENDPOINTS)
    await connection.execute(WAITING, 100_000)
    await connection.execute("VACUUM (ANALYZE) deliveries, outbox, finished_deliveries")
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    yield connection
    await connection.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_no_hot_statement_reads_more_than_it_needs(full: asyncpg.Connection) -> None:
    some = [row["id"] for row in await full.fetch("SELECT id FROM deliveries LIMIT 100")]
    keyed = await full.fetch(
        "SELECT DISTINCT endpoint_id, ordering_key FROM deliveries WHERE ordering_key IS NOT NULL LIMIT 100"
    )
    endpoint_ids, keys = [row["endpoint_id"] for row in keyed], [row["ordering_key"] for row in keyed]
    leases = [uuid4()] * 100
    nothing: list[list[Any]] = [[]] * 15
    ten = [endpoint(n) for n in range(1, 11)]
    hot: list[tuple[str, str, int, list[Any]]] = [
        ("ready", deliveries.READY, 6 * ENDPOINTS, []),
        ("first due", deliveries.FIRST_DUE, 100, [ten, [LONG_AGO] * 10]),
        ("claim", deliveries.CLAIM, 6_000, [ten, [10] * 10, [LONG_AGO] * 10, [timedelta(seconds=30)] * 10, uuid7()]),
        ("finish", deliveries.FINISH, 1_000, [*nothing, some, leases, ["delivered"] * 100, [None] * 100]),
        ("retry", deliveries.RETRY, 1_000, [some, leases, [1.0] * 100, [1] * 100]),
        ("release", deliveries.RELEASE, 4_000, [endpoint_ids, keys, [0] * len(keys), *[[None] * len(keys)] * 2, None]),
        ("busy keys", outbox.BUSY_KEYS, 2_000, [endpoint_ids, keys]),
        ("take", outbox.TAKE, 4_000, [0, 500]),
    ]
    for name, statement, pages, arguments in hot:
        await _expect_few_pages(full, name, statement, pages, arguments)


DEAD = 200_000
LIVE = 500


@pytest.fixture
async def emptied(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A database in which much has been sent while somebody's transaction was open, looked at when it was empty.

    To the planner the tables are as good as empty, but every scan that isn't a probe walks over all that was there.
    """
    connection, stranger = [await asyncpg.connect(plain(database_url)) for _ in range(2)]
    await connection.execute("ALTER TABLE deliveries SET (autovacuum_enabled = off)")
    await connection.execute("ALTER TABLE outbox SET (autovacuum_enabled = off)")
    await connection.execute(FILL, DEAD, 10)
    await connection.execute(WAITING, DEAD)
    await stranger.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await stranger.fetchval("SELECT count(*) FROM deliveries")
    await connection.execute("DELETE FROM deliveries")
    await connection.execute("DELETE FROM outbox")
    await connection.execute("VACUUM (ANALYZE) deliveries, outbox, finished_deliveries")
    await connection.execute(FILL, LIVE, 10)
    await connection.execute(WAITING, LIVE)
    yield connection
    await stranger.close()
    await connection.close()


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("plans", ["force_generic_plan", "force_custom_plan"])
async def test_nor_where_the_planner_takes_a_table_full_of_dead_rows_for_empty(
    emptied: asyncpg.Connection, plans: str
) -> None:
    await emptied.execute(f"SET plan_cache_mode = {plans}")
    some = [row["id"] for row in await emptied.fetch("SELECT id FROM deliveries LIMIT 100")]
    keyed = await emptied.fetch(
        "SELECT DISTINCT endpoint_id, ordering_key FROM deliveries WHERE ordering_key IS NOT NULL"
    )
    endpoint_ids, keys = [row["endpoint_id"] for row in keyed], [row["ordering_key"] for row in keyed]
    recent = await emptied.fetchval("SELECT min(due_at) FROM deliveries")
    lowest = await emptied.fetchval("SELECT min(sequence) - 1 FROM outbox")
    leases = [uuid4()] * 100
    await emptied.execute("UPDATE deliveries SET lease_id = $1 WHERE id = ANY($2)", leases[0], some)
    ten = [endpoint(n) for n in range(10)]
    nothing: list[list[Any]] = [[]] * 15
    hot: list[tuple[str, str, int, list[Any]]] = [
        ("first due", deliveries.FIRST_DUE, 100, [ten, [recent] * 10]),
        ("claim", deliveries.CLAIM, 6_000, [ten, [10] * 10, [recent] * 10, [timedelta(seconds=30)] * 10, uuid7()]),
        ("finish", deliveries.FINISH, 4_000, [*nothing, some, leases, ["delivered"] * 100, [None] * 100]),
        ("retry", deliveries.RETRY, 4_000, [some, leases, [1.0] * 100, [1] * 100]),
        ("release", deliveries.RELEASE, 4_000, [endpoint_ids, keys, [0] * len(keys), *[[None] * len(keys)] * 2, None]),
        ("supersede", deliveries.SUPERSEDE, 4_000, [endpoint_ids, keys]),
        ("busy keys", outbox.BUSY_KEYS, 2_000, [endpoint_ids, keys]),
        ("latest keys", outbox.LATEST_KEYS, 4_000, [endpoint_ids, keys]),
        ("take", outbox.TAKE, 4_000, [lowest, 500]),
    ]
    for name, statement, pages, arguments in hot:
        await _expect_few_pages(emptied, name, statement, pages, arguments)


async def _expect_few_pages(
    connection: asyncpg.Connection, name: str, statement: str, pages: int, arguments: list[Any]
) -> None:
    transaction = connection.transaction()
    await transaction.start()
    rows = await connection.fetch("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF)" + statement, *arguments)
    await transaction.rollback()
    plan = "\n".join(row[0] for row in rows)
    assert not re.search(r"Seq Scan on (deliveries|outbox)\b", plan), f"{name}\n{plan}"
    touched = max(
        sum(int(n) for n in re.findall(r"shared hit=(\d+)|read=(\d+)", line)[0] if n)
        for line in plan.splitlines()
        if "Buffers: shared" in line and re.search(r"(hit|read)=\d", line)
    )
    assert touched <= pages, f"{name} touched {touched} pages\n{plan}"
