"""Lists and counts at three million finished deliveries, a million open ones, a million events of others and a million
entries in the audit log: each reads only so many pages, for every filter and role, and what a list leaves out the next
page has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import event

from tests.support.postgres import Server
from webhook_gateway.operations.change import local_actor
from webhook_gateway.operations.replays import as_filter
from webhook_gateway.store import audit, backfills, disclosures, endpoints, lists, lookups, partitions, replays, stats
from webhook_gateway.store.database import Database
from webhook_gateway.store.reports import Filter, first_id

from .plans import explain

pytestmark = [pytest.mark.plans, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

MILLION = 1_000_000
BIG, NEW = UUID(int=1), UUID(int=2)
"""Hospitals: of one is nearly everything, the other has just begun."""
PARTNER, NEWCOMER, NEW_HOSPITALS = UUID(int=11), UUID(int=12), UUID(int=13)
RARE = "lab_result.rare"
AN_EVENT = UUID(int=99)
MOST_PAGES = 40_000
"""That one list may touch: most are touched again and again, so that it takes less than a tenth of a second."""
MOST_OF_DEAD, MOST_AT_A_GLANCE = 4_000, 500
"""What is dead is found by its index alone; what the newest rows of all have, by these."""
AT_A_GLANCE = {"none", "state=pending", "state=delivered", "type=common"}

CONFIGURATION = """
INSERT INTO tenants (id, name) VALUES ($1, 'big'), ($2, 'new');
INSERT INTO subscribers (id, tenant_id, name, event_types)
VALUES ($3, $1, 'partner', '{*}'), ($4, $1, 'newcomer', '{*}'), ($5, $2, 'theirs', '{*}');
INSERT INTO endpoints (id, tenant_id, subscriber_id, url, event_types)
SELECT ('00000000-0000-0000-0001-' || lpad(to_hex(n), 12, '0'))::uuid, $1, $3, 'https://x.example.com', '{}'
FROM generate_series(1, 200) AS n;
INSERT INTO endpoints (id, tenant_id, subscriber_id, url, event_types) VALUES
    ('00000000-0000-0000-0002-000000000001', $1, $4, 'https://x.example.com', '{}'),
    ('00000000-0000-0000-0002-000000000002', $2, $5, 'https://x.example.com', '{}');
"""
# Ids of the last 90 days, in their order.
AN_ID = """
(lpad(to_hex((extract(epoch FROM now()) * 1000 - 7776000000.0 * (1 - n::float8 / $1))::bigint), 12, '0')
 || '7000' || lpad(to_hex(n), 16, '8'))::uuid
"""
FINISHED = f"""
INSERT INTO finished_deliveries
    (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, state, created_at, finished_at)
SELECT {AN_ID}, '00000000-0000-0000-0000-000000000001',
       ('00000000-0000-0000-0001-' || lpad(to_hex(1 + n % 200), 12, '0'))::uuid, gen_random_uuid(),
       CASE WHEN n = 7 THEN '{RARE}' ELSE 'lab_result.final' END, n, 1,
       CASE WHEN n % $2 = 0 THEN 'dead' ELSE 'delivered' END, now(), now() - interval '2 days'
FROM generate_series(1, $1::int) AS n
"""
OPEN = f"""
INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at, attempt)
SELECT {AN_ID}, '00000000-0000-0000-0000-000000000001',
       ('00000000-0000-0000-0001-' || lpad(to_hex(1 + n % 200), 12, '0'))::uuid, gen_random_uuid(),
       CASE WHEN n = 7 THEN '{RARE}' ELSE 'lab_result.final' END, n, CASE WHEN n % 4 = 0 THEN n / 400 END,
       CASE WHEN n % 8 <> 4 THEN now() - make_interval(secs => $1 - n) END, 0
FROM generate_series(1, $1::int) AS n
"""
EVENTS = f"""
INSERT INTO events (id, tenant_id, type, occurred_at, size, body)
SELECT {AN_ID}, '00000000-0000-0000-0000-000000000001', CASE WHEN n = 7 THEN '{RARE}' ELSE 'lab_result.final' END,
       now(), 1, '' FROM generate_series(1, $1::int) AS n
"""
AUDIT = """
INSERT INTO audit_log (tenant_id, sequence, at, actor, source, action, target, previous_hash, hash)
SELECT '00000000-0000-0000-0000-000000000001', n, now(),
       CASE WHEN n < 900000 THEN 'key_old' WHEN n % 10000 = 7 THEN 'key_rare' ELSE 'key_new' END, 'local', 'x.changed',
       CASE WHEN n < 500000 THEN 'ep_old' ELSE 'dlv_' || n END, '', '' FROM generate_series(1, $1::int) AS n
"""
ATTEMPTS = f"""
INSERT INTO attempts (delivery_id, id, tenant_id, attempt, started_at, duration, phase, outcome, status)
SELECT id, id, tenant_id, 1, now(), 0.1, 'answered', 'accepted', CASE WHEN type = '{RARE}' THEN 201 ELSE 200 END
FROM finished_deliveries WHERE sequence > $1
"""
POPULAR, NEEDLE = UUID(int=21), UUID(int=22)
LOOKUPS = """
INSERT INTO lookups (key, event_id)
SELECT k.key, e.id FROM events e CROSS JOIN LATERAL (VALUES ($1::uuid), (gen_random_uuid())) AS k(key)
UNION ALL SELECT $2, id FROM events WHERE type = 'lab_result.rare'
"""
OUTBOX = """
INSERT INTO outbox (tenant_id, event_id, type)
SELECT '00000000-0000-0000-0000-000000000001', gen_random_uuid(), 'lab_result.final' FROM generate_series(1, $1::int)
"""
A_FEW = """
INSERT INTO finished_deliveries
    (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, state, created_at, finished_at)
SELECT id, tenant_id, endpoint_id, $1, type, 0, 1, state, now(), now() FROM (VALUES
    ('00000000-0000-7000-8000-000000000001'::uuid, '00000000-0000-0000-0000-000000000001'::uuid,
     '00000000-0000-0000-0002-000000000001'::uuid, 'lab_result.final', 'dead'),
    ('00000000-0000-7000-8000-000000000002', '00000000-0000-0000-0000-000000000002',
     '00000000-0000-0000-0002-000000000002', 'lab_result.final', 'dead')) AS v (id, tenant_id, endpoint_id, type, state)
"""
"""Older than all others, so that whoever walks to them walks over everything."""


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=[1_000, 3], ids=["few dead", "many dead"])
async def full(postgres: Server, template: str, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    async with postgres.copy(template) as url:
        connection = await asyncpg.connect(url)
        for statement in CONFIGURATION.split(";")[:-1]:
            await connection.execute(_filled(statement, BIG, NEW, PARTNER, NEWCOMER, NEW_HOSPITALS))
        await connection.execute(FINISHED, 3 * MILLION, request.param)
        await connection.execute(OPEN, MILLION)
        await connection.execute(EVENTS, MILLION)
        await connection.execute(ATTEMPTS, 2 * MILLION)
        day = await partitions.today(connection) - timedelta(days=90)
        await partitions.make_ahead(connection, partitions.LOOKUPS, day, 90)
        await connection.execute(LOOKUPS, POPULAR, NEEDLE)
        await connection.execute(AUDIT, MILLION)
        await connection.execute(OUTBOX, MILLION // 10)
        await connection.execute(A_FEW, AN_EVENT)
        tables = "deliveries, finished_deliveries, attempts, events, lookups, endpoints, audit_log, outbox"
        await connection.execute(f"VACUUM (ANALYZE) {tables}")
        await connection.close()
        yield url


@pytest_asyncio.fixture(loop_scope="module", params=[-1, 1], ids=["known", "in one step"])
async def ranges(full: str, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The same, also with all ids ``in one step`` of the histogram: the planner expects one row between any two, as it
    does of close ones whenever the chance of a sample puts no bound between them."""
    await _analyze(full, request.param)
    yield full
    await _analyze(full, -1)


async def _analyze(url: str, steps: int) -> None:
    connection = await asyncpg.connect(url)
    for table in ("finished_deliveries", "deliveries"):
        await connection.execute(f"ALTER TABLE {table} ALTER COLUMN id SET STATISTICS {steps}")
        await connection.execute(f"ANALYZE {table}")
    await connection.close()


def _filled(statement: str, *given: UUID) -> str:
    for number, value in enumerate(given, 1):
        statement = statement.replace(f"${number}", f"'{value}'")
    return statement


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[tuple[Database, list[tuple[str, Any]]]]:
    """A database, and the statements that lists make on it."""
    database, made = Database(url, connections=1, patience=60), []
    async with database.reading() as connection:
        engine = connection.engine
    event.listen(
        engine.sync_engine, "before_cursor_execute", lambda _c, _k, sql, given, _x, _m: made.append((sql, given))
    )
    try:
        yield database, made
    finally:
        await database.close()


FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    **{f"state={state}": {"state": state} for state in ("pending", "sending", "delivered", "dead", "cancelled")},
    "type=common": {"type": "lab_result.final"},
    "type=rare": {"type": RARE},
    "type=none of them": {"type": "lab_result.never"},
    "rare and dead": {"type": RARE, "state": "dead"},
    "event": {"event_id": AN_EVENT},
    "event of nobody": {"event_id": UUID(int=98)},
    "long ago": {"until": datetime.now(UTC) - timedelta(days=80), "state": "delivered"},
    "a day": {"since": datetime.now(UTC) - timedelta(days=40), "until": datetime.now(UTC) - timedelta(days=39)},
    "endpoint": {"endpoint_id": UUID("00000000-0000-0000-0001-000000000001"), "type": RARE},
}
ROLES = {
    "the big hospital": Filter(BIG),
    "the new hospital": Filter(NEW),
    "the partner": Filter(BIG, PARTNER),
    "the newcomer": Filter(BIG, NEWCOMER),
    "the new hospital's partner": Filter(NEW, NEW_HOSPITALS),
}


async def expect_few_pages(url: str, made: list[tuple[str, Any]], name: str, most: int = MOST_PAGES) -> None:
    connection, whole, plans = await asyncpg.connect(url), 0, []
    try:
        for statement, given in made:
            if statement.lstrip().upper().startswith(("SELECT", "WITH")) and "FROM" in statement.upper():
                plan, touched = await explain(connection, statement, *given, mode="auto")
                whole += touched
                plans.append(plan)
    finally:
        await connection.close()
    print(name, whole)
    assert whole <= most, f"{name} touched {whole} pages\n" + "\n\n".join(plans)


async def test_a_list_of_deliveries_reads_only_so_much_for_every_filter_and_role(ranges: str) -> None:
    async with listening(ranges) as (database, made):
        for (role, whose), (name, filters) in product(ROLES.items(), FILTERS.items()):
            made.clear()
            async with database.reading() as connection:
                found, reached = await lists.deliveries_page(
                    connection, replace(whose, **filters), before=None, limit=51
                )
            if "new" in role:
                assert reached is None, "what somebody new has is all on the first page"
                wanted = filters.get("state", "dead") == "dead" and filters.get("type", "lab_result.final") in A_FEW
                is_there = wanted and not filters.keys() & {"since", "endpoint_id"}
                assert len(found) == (is_there and filters.get("event_id", AN_EVENT) == AN_EVENT), (role, name)
            most = MOST_OF_DEAD if filters.get("state") in ("dead", "cancelled") else MOST_PAGES
            if role == "the big hospital" and name in AT_A_GLANCE:
                most = MOST_AT_A_GLANCE
            await expect_few_pages(ranges, made, f"{role}, {name}", most)


async def test_a_list_of_attempts_reads_only_so_much_for_every_filter_and_role(full: str) -> None:
    endpoints = {BIG: UUID("00000000-0000-0000-0001-000000000001"), NEW: UUID("00000000-0000-0000-0002-000000000002")}
    filters: list[dict[str, Any]] = [
        {"outcome": outcome, "status": status} for outcome in (None, "accepted", "rejected") for status in (None, 201)
    ]
    async with listening(full) as (database, made):
        for (role, whose), asked, since in product(ROLES.items(), filters, (None, FILTERS["a day"]["since"])):
            made.clear()
            wanted = replace(whose, endpoint_id=endpoints[whose.tenant_id], since=since)
            async with database.reading() as connection:
                found, _ = await lists.attempts_page(connection, wanted, **asked, before=None, limit=50)
            if whose == Filter(BIG) and not any(asked.values()):
                assert len(found) == 50
            await expect_few_pages(full, made, f"attempts of {role}, {asked}, {since}")


async def test_what_waits_is_found_by_its_endpoints_for_every_filter_and_role(full: str) -> None:
    filters: dict[str, dict[str, Any]] = {name: FILTERS[name] for name in ("none", "type=common", "a day")}
    async with listening(full) as (database, made):
        for (role, whose), (name, asked), one in product(ROLES.items(), filters.items(), (False, True)):
            made.clear()
            wanted = replace(whose, **asked, **({"endpoint_id": FILTERS["endpoint"]["endpoint_id"]} if one else {}))
            async with database.reading() as connection:
                found = await lists.waiting(connection, wanted, 10_001, unfiltered=True)
            if role == "the big hospital" and name != "a day":
                assert len(found) == (5_000 if one else 10_001)
            await expect_few_pages(full, made, f"{role}, {name}, {one}", most=1_500_000)


async def test_events_are_found_by_a_key_that_is_rare_and_by_one_that_all_have(full: str) -> None:
    connection = await asyncpg.connect(full)
    try:
        today = await partitions.today(connection)
        low, high = partitions.lowest_id(today - timedelta(days=59)), partitions.lowest_id(today + timedelta(days=1))
        for keys in ([POPULAR], [NEEDLE], [POPULAR, NEEDLE, UUID(int=23), UUID(int=24)]):
            plan, whole = await explain(connection, lookups.BY_KEY, keys, low, high, 51, mode="force_custom_plan")
            print(keys, whole)
            assert whole < 2_000, plan
    finally:
        await connection.close()
    async with listening(full) as (database, made):
        async with database.reading() as transaction:
            some = [row["id"] for row in (await lists.events_page(transaction, BIG, limit=50))[0]]
            made.clear()
            await lists.events_page(transaction, BIG, only=some, limit=50)
            for whose in ROLES.values():
                await lists.with_deliveries(transaction, whose, some)
        await expect_few_pages(full, made, "events by their ids", most=10_000)


async def test_the_ledger_of_some_events_and_of_a_partner_reads_only_so_much(full: str) -> None:
    connection = await asyncpg.connect(full)
    try:
        now = datetime.now(UTC)
        newest = "SELECT event_id FROM finished_deliveries WHERE tenant_id = $1 ORDER BY id DESC LIMIT 200"
        events = [row["event_id"] for row in await connection.fetch(newest, BIG)]
        theirs = {"events": (disclosures.OF_EVENTS, events)}
        for name, subscriber in (("partner", PARTNER), ("newcomer", NEWCOMER)):
            theirs[name] = (disclosures.OF_ENDPOINTS, await disclosures.endpoints_of(connection, BIG, subscriber))
        for days, (name, (statement, of)) in product((0, 60), theirs.items()):
            since, until = now - timedelta(days=days + 60), now - timedelta(days=days - 1)
            asked = (BIG, of, first_id(since), first_id(until), 51, since, until)
            plan, whole = await explain(connection, statement, *asked, mode="force_custom_plan")
            print(name, days, whole)
            assert whole < (5_000 if name == "events" else 60_000), plan  # at most all that is open, once
    finally:
        await connection.close()


async def test_page_after_page_finds_a_needle(full: str) -> None:
    async with listening(full) as (database, _):
        before, seen, asked = None, [], 0
        while asked < 1_000:
            async with database.reading() as connection:
                wanted = Filter(BIG, PARTNER, type=RARE, state="delivered")
                found, before = await lists.deliveries_page(connection, wanted, before=before, limit=51)
            seen += found
            asked += 1
            if before is None:
                break
        assert [row["type"] for row in seen] == [RARE]
        assert asked < 200


async def test_an_event_at_each_endpoint_reads_only_so_much_however_many_were_deleted(full: str) -> None:
    connection = await asyncpg.connect(full)
    await connection.execute(
        "INSERT INTO endpoints (id, tenant_id, subscriber_id, url, event_types, deleted_at)"
        " SELECT gen_random_uuid(), $1, $2, '', '{}', now() FROM generate_series(1, 100_000)",
        *(NEW, NEW_HOSPITALS),
    )
    await connection.execute("ANALYZE endpoints")
    async with listening(full) as (database, made):
        for name, whose in ROLES.items():
            made.clear()
            wanted = replace(whose, event_id=AN_EVENT)
            async with database.reading() as transaction:
                of = (whose.tenant_id, whose.subscriber_id)
                rows = await endpoints.ever(transaction, *of, before=UUID(int=(1 << 128) - 1), limit=51)
                await lists.latest_of_event(transaction, wanted, [row["id"] for row in rows])
            await expect_few_pages(full, made, f"{name}'s endpoints of an event", most=2_000)
    await connection.execute("DELETE FROM endpoints WHERE deleted_at IS NOT NULL")
    await connection.execute("VACUUM (ANALYZE) endpoints")
    await connection.close()


async def test_a_list_of_events_and_the_statistics_read_only_so_much(full: str) -> None:
    async with listening(full) as (database, made):
        for tenant, kind in product((BIG, NEW), (None, "lab_result.final", RARE)):
            made.clear()
            async with database.reading() as connection:
                await lists.events_page(connection, tenant, type=kind, since=None, until=None, before=None, limit=51)
            await expect_few_pages(full, made, f"events {tenant.int} {kind}")
        for name, whose in ROLES.items():
            made.clear()
            async with database.reading() as connection:
                for days in (1, 3):
                    since = datetime.now(UTC) - timedelta(days)
                    await stats.died_since(connection, whose.tenant_id, whose.subscriber_id, since)
                await stats.unmatched_of_recent(connection, whose.tenant_id)
                await stats.outbox_waiting(connection, whose.tenant_id)
            await expect_few_pages(full, made, f"statistics of {name}")


async def test_a_backlog_is_counted_only_so_far_and_its_oldest_is_found_all_the_same(full: str) -> None:
    async with listening(full) as (database, made):
        for name, whose in ROLES.items():
            made.clear()
            async with database.reading() as connection:
                found, most = await stats.backlog(connection, whose.tenant_id, whose.subscriber_id)
                theirs = await lists.endpoint_ids(connection, whose)
            made.append((stats.BACKLOG, (theirs, most, whose.subscriber_id is None)))
            if "new" not in name:
                assert most == max(lists.FEWEST, stats.COUNTED_TOGETHER // (201 if "hospital" in name else 200))
                assert {row["waiting"] for row in found} == {0, most}
                assert max(row["oldest_due_seconds"] for row in found) >= MILLION - 1
            await expect_few_pages(full, made, f"the backlog of {name}", most=150_000)


ONE: dict[str, Any] = {"endpoint_id": UUID("00000000-0000-0000-0001-000000000001")}
A_DAY: dict[str, Any] = {
    "since": datetime.now(UTC) - timedelta(days=40),
    "until": datetime.now(UTC) - timedelta(days=39),
}


async def test_what_a_replay_would_send_again_is_counted_or_found_to_be_too_much(
    full: str, request: pytest.FixtureRequest
) -> None:
    are_few = "few" in request.node.callspec.id
    connection = await asyncpg.connect(full)
    filters: dict[str, Any]
    for (role, whose), state, filters in product(
        ROLES.items(), ("dead", "delivered"), ({}, {"type": RARE}, ONE, A_DAY, ONE | {"type": RARE})
    ):
        actor = replace(local_actor(whose.tenant_id), subscriber_id=whose.subscriber_id)
        wanted = as_filter(actor, {"state": state, **filters})
        async with connection.transaction():
            found = await replays.preview(connection, whose.tenant_id, wanted, replays.MOST_WALKED)
        count = None if found["more"] else found["missing"]  # nothing is kept here of their bodies
        if filters == ONE and role == "the partner":
            dead = 3_000 if are_few else 5_000
            assert count == (dead if state == "dead" else 15_000 - dead)
        elif not filters and role == "the partner":
            assert count == (3_000 if are_few and state == "dead" else None)
        elif filters == A_DAY and role == "the partner":
            assert count is not None
        elif role == "the new hospital":
            assert count == (state == "dead" and not filters)
        selection = replays.selection(whose.tenant_id, wanted, replays.bounds(wanted))
        for way in (replays.NOT_DELIVERED, replays.OF_EACH):
            plan, touched = await explain(connection, way, *selection, 10_000, None, mode="auto")
            assert touched <= 200_000, f"{role}, {state}, {filters} touched {touched} pages\n{plan}"
            print(role, state, filters, touched)
    await connection.close()


async def test_a_job_reads_only_so_much_at_a_time_whatever_it_replays(full: str) -> None:
    connection = await asyncpg.connect(full)
    for whose, state, filters in product(ROLES.values(), ("dead", "delivered"), ({}, {"type": RARE}, ONE, A_DAY)):
        actor = replace(local_actor(whose.tenant_id), subscriber_id=whose.subscriber_id)
        wanted = as_filter(actor, {"state": state, **filters})
        selection = replays.selection(whose.tenant_id, wanted, replays.bounds(wanted))
        plan, touched = await explain(
            connection, replays.NEXT, *selection, 500, replays.WALKED, mode="force_custom_plan"
        )
        assert touched <= 40_000, f"{whose}, {state}, {filters} touched {touched} pages\n{plan}"
        print(whose, state, filters, touched)
    await connection.close()


async def test_a_backfill_reads_only_so_much_at_a_time(full: str) -> None:
    connection = await asyncpg.connect(full)
    low, high = UUID(int=0), UUID(int=(1 << 128) - 1)
    for tenant, types in product((BIG, NEW), (["*"], [RARE])):
        about = (tenant, types, PARTNER, ONE["endpoint_id"])
        plan, touched = await explain(connection, backfills.EARLIER, low, high, *about)
        assert touched <= 40_000, f"{tenant}, {types} touched {touched} pages\n{plan}"
        print(tenant, types, touched)
        plan, touched = await explain(connection, backfills.GONE, low, high, tenant, types, ONE["endpoint_id"])
        assert touched <= 200_000, f"{tenant}, {types} touched {touched} pages\n{plan}"
        print(tenant, types, touched)
    await connection.close()


async def test_the_audit_log_by_actor_and_target_reads_only_so_much(full: str) -> None:
    async with listening(full) as (database, made):
        for actor, target, before in product(
            (None, "key_old", "key_new", "key_rare", "nobody"),
            (None, "ep_old", "dlv_700000", "nothing"),
            (None, 950_000),
        ):
            made.clear()
            async with database.reading() as connection:
                await audit.page(connection, BIG, before=before, limit=51, target=target, actor=actor)
            is_rare = actor != "key_new" or target != "ep_old"
            await expect_few_pages(full, made, f"{actor} {target} {before}", most=100 if is_rare else 4_000)
