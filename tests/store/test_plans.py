"""The hot statements' plans at a backlog of a million: index probes only, and as many pages as rows ask for."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from time import time
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from uuid_utils.compat import uuid7

from tests.support.postgres import Server
from webhook_gateway.delivery.registry import LONG_AGO
from webhook_gateway.store import deliveries, ordering, outbox, waiting
from webhook_gateway.store.attempts import recorded

from .plans import explain

pytestmark = [pytest.mark.plans, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

MILLION = 1_000_000
ENDPOINTS = 1_000
DEAD = 200_000
LIVE = 500

FILL = """
INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at, attempt)
SELECT gen_random_uuid(), '00000000-0000-0000-0000-000000000001',
       ('00000000-0000-0000-0000-' || lpad(to_hex(n % $2), 12, '0'))::uuid,
       gen_random_uuid(), 'lab_result.final', n, CASE WHEN n % 4 = 0 THEN n / 400 END,
       CASE WHEN n % 8 <> 4 THEN now() - make_interval(secs => $1 - n) END, 0
FROM generate_series(1, $1) AS n
"""

WAITING = """
-- nearly all of one tenant, a few of nine others, and none of most
WITH tenants AS (
    INSERT INTO tenants (id, name)
    SELECT ('00000000-0000-0000-0001-' || lpad(to_hex(n), 12, '0'))::uuid, n FROM generate_series(0, 199) AS n
    ON CONFLICT DO NOTHING
)
INSERT INTO outbox (tenant_id, event_id, type)
SELECT ('00000000-0000-0000-0001-' || lpad(to_hex(CASE WHEN n % 100 = 0 THEN n / 100 % 10 ELSE 0 END), 12, '0'))::uuid,
       gen_random_uuid(), 'lab_result.final'
FROM generate_series(1, $1::int) AS n
"""


def endpoint(number: int) -> UUID:
    return UUID(int=number)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def full(postgres: Server, template: str) -> AsyncIterator[asyncpg.Connection]:
    """A database with a million open deliveries of a thousand endpoints."""
    async with postgres.copy(template) as url:
        connection = await asyncpg.connect(url)
        await connection.execute(FILL, MILLION, ENDPOINTS)
        await connection.execute(WAITING, 100_000)
        await connection.execute("VACUUM (ANALYZE) deliveries, outbox, finished_deliveries, tenants")
        yield connection
        await connection.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def emptied(postgres: Server, template: str) -> AsyncIterator[asyncpg.Connection]:
    """A database in which much has been sent while somebody's transaction was open, looked at when it was empty.

    To the planner the tables are as good as empty, but every scan that isn't a probe walks over all that was there.
    """
    async with postgres.copy(template) as url:
        connection, stranger = [await asyncpg.connect(url) for _ in range(2)]
        await connection.execute("ALTER TABLE deliveries SET (autovacuum_enabled = off)")
        await connection.execute("ALTER TABLE outbox SET (autovacuum_enabled = off)")
        await connection.execute(FILL, DEAD, 10)
        await connection.execute(WAITING, DEAD)
        await stranger.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await stranger.fetchval("SELECT count(*) FROM deliveries")
        await connection.execute("DELETE FROM deliveries")
        await connection.execute("DELETE FROM outbox")
        await connection.execute("VACUUM (ANALYZE) deliveries, outbox, finished_deliveries, tenants")
        await connection.execute(FILL, LIVE, 10)
        await connection.execute(WAITING, LIVE)
        yield connection
        await stranger.close()
        await connection.close()


async def test_no_hot_statement_reads_more_than_it_needs(full: asyncpg.Connection) -> None:
    hot = await hot_statements(full, endpoints=range(1, 11), low_water_mark=LONG_AGO, after=0)
    allowed = {
        "ready": 6 * ENDPOINTS,
        "first due": 100,
        "claim": 6_000,
        "finish": 1_000,
        "retry": 1_000,
        "release": 4_000,
        "busy keys": 2_000,
        "dequeue": 6_000,
        "known": 6_000,
        "waiting": 12_000,
    }
    for name, pages in allowed.items():
        await expect_few_pages(full, name, pages, *hot[name])


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_nor_where_the_planner_takes_a_table_full_of_dead_rows_for_empty(
    emptied: asyncpg.Connection, mode: str
) -> None:
    recent = await emptied.fetchval("SELECT min(due_at) FROM deliveries")
    lowest = await emptied.fetchval("SELECT min(sequence) - 1 FROM outbox")
    hot = await hot_statements(emptied, endpoints=range(10), low_water_mark=recent, after=lowest)
    allowed = {
        "first due": 100,
        "claim": 6_000,
        "finish": 4_000,
        "retry": 4_000,
        "release": 4_000,
        "supersede": 4_000,
        "busy keys": 2_000,
        "latest keys": 4_000,
        "dequeue": 6_000,
        "known": 6_000,
    }
    _, finish = hot["finish"]
    _, ended, *_ = finish
    await emptied.execute(
        "UPDATE deliveries SET lease_id = $1 WHERE id = ANY($2)",
        ended[0][1],
        [delivery_id for delivery_id, *_ in ended],
    )
    for name, pages in allowed.items():
        await expect_few_pages(emptied, name, pages, *hot[name], mode=mode)


async def hot_statements(
    connection: asyncpg.Connection, *, endpoints: Sequence[int], low_water_mark: datetime, after: int
) -> dict[str, tuple[str, list[Any]]]:
    """By name: the statement and its arguments, for a hundred deliveries or keys that are there, and ten endpoints."""
    some = [row["id"] for row in await connection.fetch("SELECT id FROM deliveries LIMIT 100")]
    keyed = await connection.fetch(
        "SELECT DISTINCT endpoint_id, ordering_key FROM deliveries WHERE ordering_key IS NOT NULL LIMIT 100"
    )
    endpoint_ids, keys = [row["endpoint_id"] for row in keyed], [row["ordering_key"] for row in keyed]
    page = await connection.fetch(
        "SELECT DISTINCT ON (endpoint_id) id, endpoint_id, ordering_key, due_at, event_id FROM deliveries LIMIT 100"
    )
    columns = [list(each) for each in zip(*page, strict=True)]
    leases, ten = [uuid4()] * 100, [endpoint(number) for number in endpoints]
    return {
        "ready": (deliveries.READY, []),
        "first due": (deliveries.FIRST_DUE, [ten, [low_water_mark] * 10]),
        "claim": (deliveries.CLAIM, [ten, [10] * 10, [low_water_mark] * 10, [30.0] * 10, uuid7(), time()]),
        "finish": (deliveries.FINISH, ends(some, leases[0])),
        "retry": (deliveries.RETRY, [some, leases, [1.0] * 100, [1] * 100, [None] * 100, time(), [None] * 100]),
        "release": (ordering.RELEASE, [endpoint_ids, keys, [0] * len(keys), *[[None] * len(keys)] * 2, None, time()]),
        "supersede": (ordering.SUPERSEDE, [endpoint_ids, keys]),
        "busy keys": (ordering.BUSY_KEYS, [endpoint_ids, keys]),
        "latest keys": (ordering.LATEST_KEYS, [endpoint_ids, keys]),
        "dequeue": (outbox.DEQUEUE, [after, 500, time()]),
        "waiting": (waiting.DELIVERIES, [*columns[:4], waiting.COUNTED, False]),
        "known": (outbox.KNOWN, [columns[4], columns[1], after + 1]),
    }


def ends(some: Sequence[UUID], lease_id: UUID) -> list[Any]:
    """The arguments of `FINISH`: delivered, for no reason, and the next of each key goes on and is leased."""
    ended = [(id, lease_id, None, "delivered", None, 30.0, True) for id in some]
    return [recorded([]), ended, uuid7(), time()]


async def expect_few_pages(
    connection: asyncpg.Connection,
    name: str,
    pages: int,
    statement: str,
    arguments: Sequence[object],
    *,
    mode: str = "force_generic_plan",
) -> None:
    plan, touched = await explain(connection, statement, *arguments, mode=mode)
    assert not re.search(r"Seq Scan on (deliveries|outbox)\b", plan), f"{name}\n{plan}"
    print(name, touched)
    assert touched <= pages, f"{name} touched {touched} pages\n{plan}"
