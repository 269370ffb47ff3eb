"""Statistics of 300 endpoints over 90 days, 1.3 million rows: whoever looks reads only so much, and a merge, too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from tests.support.postgres import Server
from webhook_gateway.store import attempt_stats, notices
from webhook_gateway.store.database import Database

from .plans import explain

pytestmark = [pytest.mark.plans, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

TENANT, PARTNER = UUID(int=1), UUID(int=11)
ENDPOINTS = [UUID(f"00000000-0000-0000-0001-{n:012x}") for n in range(1, 301)]
CONFIGURATION = (
    "INSERT INTO tenants (id, name) VALUES ('00000000-0000-0000-0000-000000000001', 'hospital')",
    (
        "INSERT INTO subscribers (id, tenant_id, name, event_types) VALUES ('00000000-0000-0000-0000-00000000000b',"
        " '00000000-0000-0000-0000-000000000001', 'partner', '{*}')"
    ),
)
ENDPOINT = """
INSERT INTO endpoints (id, tenant_id, subscriber_id, url, event_types)
SELECT id, $2, $3, 'https://x.example.com', '{}' FROM unnest($1::uuid[]) AS e (id)
"""
ROWS = """
INSERT INTO attempt_stats (span, begins, tenant_id, about_id, outcome, status, id, first_at, last_at, delivery_id,
                           durations, attempts, died)
SELECT $3, begins, $2, about, outcome, CASE outcome WHEN 'rejected' THEN 503 END, gen_random_uuid(), begins, begins,
       gen_random_uuid(), '{0,0,0,1,2,3,5,8,5,3,2,1,1}', 31, CASE outcome WHEN 'rejected' THEN 1 ELSE 0 END
FROM unnest($1::uuid[]) AS a (about), unnest('{accepted,rejected}'::text[]) AS o (outcome),
     generate_series($4::timestamptz, $5::timestamptz, make_interval(secs => $6)) AS begins
WHERE outcome = 'accepted' OR get_byte(uuid_send(about), 15) % 3 > 0
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def database(postgres: Server, template: str) -> AsyncIterator[Database]:
    """Of each endpoint hours, the minutes since, and what two workers added in the last one."""
    async with postgres.copy(template) as url:
        connection = await asyncpg.connect(url)
        for statement in CONFIGURATION:
            await connection.execute(statement)
        await connection.execute(ENDPOINT, ENDPOINTS, TENANT, PARTNER)
        now = datetime.now(UTC)
        hour, minute = (now - timedelta(hours=1)).replace(minute=0, second=0, microsecond=0), now.replace(second=0)
        about = [*ENDPOINTS, TENANT]
        await connection.execute(ROWS, about, TENANT, 3_600, hour - timedelta(days=90), hour, 3_600)
        await connection.execute(ROWS, about, TENANT, 60, hour + timedelta(hours=1), minute, 60)
        for _ in range(24):
            await connection.execute(ROWS, about, TENANT, 0, minute, minute, 60)
        await connection.execute("VACUUM (ANALYZE) attempt_stats, endpoints")
        await connection.close()
        found = Database(url, patience=60)
        yield found
        await found.close()


@pytest.mark.parametrize(("hours", "most"), [(1, 300), (24, 400), (7 * 24, 700), (90 * 24, 6_000)])
async def test_a_look_at_one_endpoint_reads_its_rows(database: Database, hours: int, most: int) -> None:
    since = datetime.now(UTC) - timedelta(hours=hours)
    for about in ([ENDPOINTS[0]], [TENANT]):
        await expect(database, attempt_stats.SERIES, TENANT, about, since, 3_600, most=most)


async def test_a_partner_of_all_endpoints_reads_theirs(database: Database) -> None:
    since = datetime.now(UTC) - timedelta(hours=24)
    await expect(database, attempt_stats.SERIES, TENANT, ENDPOINTS, since, 3_600, most=60_000)


async def test_problems_read_what_came_since_the_last_success(database: Database) -> None:
    await expect(database, attempt_stats.PROBLEMS, TENANT, None, None, most=20_000)
    await expect(database, attempt_stats.PROBLEMS, TENANT, None, ENDPOINTS[0], most=100)
    await expect(database, attempt_stats.OF_ENDPOINTS, TENANT, most=30_000)
    await expect(database, attempt_stats.LAST_ACCEPTED, TENANT, ENDPOINTS[0], most=100)


async def test_a_merge_reads_what_it_merges(database: Database) -> None:
    async with database.connection() as connection:
        for spans in attempt_stats.SPANS:
            plan, touched = await explain(connection, attempt_stats.MERGE, *spans)
            assert touched <= 60_000, plan
        plan, touched = await explain(connection, attempt_stats.PRUNE)
        assert touched <= 20_000, plan


async def test_who_looks_for_troubles_reads_the_last_hour_and_writes_nothing_where_all_was_told(
    database: Database,
) -> None:
    async with database.connection() as connection:
        await notices.told(connection, await notices.claim(connection))
        await notices.told(connection, await notices.claim(connection))
        await notices.told(connection, await notices.claim(connection))
        plan, touched = await explain(connection, notices.SEE)
        assert touched <= 40_000, plan
        assert "dirtied" not in plan, plan


async def expect(database: Database, statement: str, *given: object, most: int) -> None:
    async with database.reading() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        plan, touched = await explain(driver, statement, *given, mode="force_custom_plan")
    print(statement.splitlines()[1], touched)
    assert touched <= most, plan
