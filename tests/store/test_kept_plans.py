"""A connection keeps a statement's plan from its sixth run on, made for tables as they were: nearly always empty."""

from __future__ import annotations

from time import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from uuid_utils.compat import uuid7

from tests.support.postgres import Server
from webhook_gateway.delivery.registry import LONG_AGO
from webhook_gateway.store import (
    advisory_locks,
    bodies,
    deliveries,
    finished,
    forwarding,
    offers,
    ordering,
    outbox,
    retention,
    waiting,
)
from webhook_gateway.store.database import Connection, Database

from .plans import explain_prepared
from .test_plans import FILL, WAITING, endpoint, ends

pytestmark = [pytest.mark.plans, pytest.mark.timeout(300)]

OF = UUID(int=1)
"""The tenant whose open deliveries there are."""
OPEN = 100_000
SOME = 500

EVENTS = """
INSERT INTO events (id, tenant_id, type, occurred_at, size, body)
SELECT gen_random_uuid(), gen_random_uuid(), 'lab_result.final', now(), 10, 'sealed' FROM generate_series(1, $1::int)
"""
KEPT = """
INSERT INTO kept_bodies (id, tenant_id, type, occurred_at, accepted_at, size, body)
SELECT gen_random_uuid(), gen_random_uuid(), 'lab_result.final', now(), now(), 10, 'sealed'
FROM generate_series(1, $1::int)
"""
ATTEMPTS = """
INSERT INTO attempts (delivery_id, id, tenant_id, attempt, started_at, duration, phase, outcome, response_excerpt)
SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, now(), 1, 'answered', 'rejected',
       CASE WHEN n % 100 = 0 THEN 'sealed'::bytea END
FROM generate_series(1, $1::int) AS n
"""
KEYS = """
INSERT INTO idempotency_keys (tenant_id, key, fingerprint, event_id)
SELECT gen_random_uuid(), decode(md5(n::text), 'hex'), 'f', gen_random_uuid() FROM generate_series(1, $1::int) AS n
"""
HELD = """
INSERT INTO held_keys (endpoint_id, ordering_key, tenant_id, delivery_id, event_id)
SELECT gen_random_uuid(), n, gen_random_uuid(), gen_random_uuid(), gen_random_uuid()
FROM generate_series(1, $1::int) AS n
"""
PARTNERS = """
WITH t AS (INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), gen_random_uuid()) RETURNING id),
s AS (INSERT INTO subscribers (id, tenant_id, name) SELECT id, id, 'Lab' FROM t RETURNING id),
e AS (
    INSERT INTO endpoints (id, tenant_id, subscriber_id, url, event_types)
    SELECT CASE WHEN n <= 10 THEN ('00000000-0000-0000-0000-' || lpad(to_hex(n - 1), 12, '0'))::uuid
                ELSE gen_random_uuid() END, s.id, s.id, 'https://partner.example', '{*}'
    FROM s, generate_series(1, $1::int) AS n ON CONFLICT DO NOTHING RETURNING id
)
SELECT FROM e
"""
HEALTH = """
INSERT INTO endpoint_health (endpoint_id, tenant_id, forward_at)
SELECT id, tenant_id, CASE WHEN id < '00000000-0000-0000-0000-00000000000a' THEN now() END
FROM endpoints ORDER BY ctid ON CONFLICT (endpoint_id) DO UPDATE SET forward_at = excluded.forward_at
"""
HEARD_ON = "webhook_gateway_kept_plans"
OFFER = """
WITH w AS (INSERT INTO workers (id, name, outbox_above, seen_at)
           VALUES (gen_random_uuid(), 'worker', 1::bigint << 40, 'infinity') RETURNING id)
INSERT INTO offers (tenant_id, type, worker_id, heard_on, version, endpoint_ids, chances, in_order, leases)
SELECT $1, 'lab_result.final', id, $2, 1::bigint << 40, $3::uuid[], ARRAY(SELECT generate_series(1, 10)),
       array_fill(true, ARRAY[10]), array_fill(30, ARRAY[10]) FROM w
"""
LATER = FILL.replace("make_interval(secs => $1 - n)", "make_interval(secs => -3600 - $1 + n)")
TABLES = [
    *("deliveries", "outbox", "events", "idempotency_keys", "held_keys", "endpoint_health", "endpoints"),
    *("kept_bodies", "attempts"),
]


async def fill(connection: Connection, rows: int) -> None:
    await connection.execute(FILL, rows, 10)
    await connection.execute(LATER, rows // 10, 10)
    for statement in (WAITING, EVENTS, KEPT, ATTEMPTS, KEYS, HELD, PARTNERS):
        await connection.execute(statement, rows)
    await connection.execute(HEALTH)


async def never_analysed(connection: Connection) -> None:
    """No page, and nothing known of it."""


async def no_page(connection: Connection) -> None:
    await connection.execute(f"VACUUM (ANALYZE) {', '.join(TABLES)}")


async def one_page(connection: Connection) -> None:
    await fill(connection, 5)
    await connection.execute(f"VACUUM (ANALYZE) {', '.join(TABLES)}")


async def thirty_pages(connection: Connection) -> None:
    await fill(connection, 2_000)
    for table in TABLES:
        await connection.execute(f"DELETE FROM {table} WHERE ctid NOT IN (SELECT max(ctid) FROM {table})")
    await connection.execute(f"VACUUM (ANALYZE) {', '.join(TABLES)}")


@pytest.mark.parametrize("begin", [never_analysed, no_page, one_page, thirty_pages])
async def test_what_was_planned_for_an_empty_table_reads_no_more_than_it_needs_from_a_large_one(
    postgres: Server, template: str, begin: Any
) -> None:
    async with postgres.copy(template) as url:
        database = Database(url, connections=2, patience=60)
        async with database.connection() as listening, database.connection() as connection:
            for table in ("deliveries", "outbox", "idempotency_keys", "held_keys", "endpoint_health", "endpoints"):
                await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
            assert await advisory_locks.try_lock(listening, HEARD_ON)
            await connection.execute(OFFER, OF, HEARD_ON, [endpoint(number) for number in range(10)])
            await begin(connection)
            for statement, arguments, _ in (await hot_statements(connection)).values():
                for _ in range(6):
                    transaction = connection.transaction()
                    await transaction.start()
                    await connection.fetch(statement, *arguments)
                    await transaction.rollback()
            await fill(connection, OPEN)
            failed = []
            for name, (statement, arguments, allowed) in (await hot_statements(connection)).items():
                plan, pages = await explain_prepared(connection, statement, *arguments)
                if pages > allowed:
                    failed.append(f"{name} touched {pages} pages\n{plan}")
            assert not failed, "\n\n".join(failed)
            for count in (1, 5, 16):
                made = await connection.fetchval("SELECT count(*) FROM deliveries")
                await connection.fetch(*arriving(count))
                made = await connection.fetchval("SELECT count(*) FROM deliveries") - made
                assert made == 10 * count
        await database.close()


def arriving(count: int) -> list[Any]:
    """The append of so many events and its arguments, each of a key that has open deliveries."""
    each = [
        [
            *(uuid7(), OF, "lab_result.final", None, number, 10, b"sealed", uuid4().bytes, b"f"),
            *(f"{{{uuid4()},{uuid4()}}}", f"{uuid4().int >> 64:016x}", (number << 8) - (1 << 63)),
        ]
        for number in range(count)
    ]
    values = [*(value for one in each for value in one), time()]
    if count <= offers.BY_ITSELF:
        return [offers.append_each(count), *values, "channel", "outbox"]
    return [offers.append_few(count), *values, uuid4(), "channel", "outbox"]


def _new_delivery() -> tuple[object, ...]:
    nobody = UUID(int=0)
    return uuid7(), nobody, nobody, nobody, "lab_result.final", 1, None, True, None, None, None


async def hot_statements(connection: Connection) -> dict[str, tuple[str, list[Any], int]]:
    """By name: the statement, its arguments for as many rows as a busy worker has, and the pages allowed."""
    lease = uuid4()
    some = [row["id"] for row in await connection.fetch("SELECT id FROM deliveries ORDER BY id LIMIT $1", SOME)]
    await connection.execute("UPDATE deliveries SET lease_id = $1 WHERE id = ANY($2)", lease, some)
    keyed = await connection.fetch(
        "SELECT endpoint_id, ordering_key FROM deliveries WHERE ordering_key IS NOT NULL ORDER BY id LIMIT 100"
    )
    missing = 100 - len(keyed)
    endpoint_ids = [row["endpoint_id"] for row in keyed] + [uuid4()] * missing
    keys = [row["ordering_key"] for row in keyed] + [0] * missing
    some += [uuid4() for _ in range(SOME - len(some))]
    ten = [endpoint(number) for number in range(10)]
    lowest = await connection.fetchval("SELECT coalesce(min(sequence), 1) - 1 FROM outbox")
    events = [row["id"] for row in await connection.fetch("SELECT id FROM events LIMIT 100")]
    answer = await connection.fetchrow("SELECT delivery_id, id FROM attempts LIMIT 1") or [uuid4(), uuid4()]
    kept = await connection.fetch("SELECT id FROM kept_bodies LIMIT 100")
    known = await connection.fetch("SELECT tenant_id, key FROM idempotency_keys LIMIT 100")
    insert, insert_with_bodies = ([_new_delivery() for _ in range(SOME)] for _ in range(2))
    first = [row["sequence"] for row in await connection.fetch("SELECT sequence FROM outbox ORDER BY 1 LIMIT 16")] or [
        1
    ]
    new_ones = [first, [uuid7() for _ in first], *[[some[0]] * len(first), [True] * len(first), [30.0] * len(first)]]
    alone, five, few = arriving(1), arriving(5), arriving(16)
    return {
        "append by offer": (alone[0], alone[1:], 400),
        "append five by offer": (five[0], five[1:], 2_000),
        "append few by offer": (few[0], few[1:], 6_000),
        "fan out": (outbox.FAN_OUT, [1 << 40, lowest, first, *new_ones, lease, events[:16], time()], 800),
        "ready": (deliveries.READY, [], 100),
        "first due": (deliveries.FIRST_DUE, [ten, [LONG_AGO] * 10], 100),
        "claim": (deliveries.CLAIM, [ten, [10] * 10, [LONG_AGO] * 10, [30.0] * 10, uuid7(), time()], 6_000),
        "bodies": (bodies.BODIES, [events], 2_000),
        "kept bodies": (bodies.KEPT_BODIES, [[row["id"] for row in kept]], 2_000),
        "keep": (retention.KEEP, [UUID(int=0), UUID(int=1 << 120), 200], 10_000),
        "forget": (retention.FORGET, [UUID(int=0), 1_000], 20_000),
        "answers": (retention.ANSWERS, [UUID(int=(1 << 128) - 1), 100], 500),
        "forget answer": (retention.FORGET_ANSWER, [*answer], 100),
        "end open": (retention.END_OPEN, [UUID(int=1 << 112), 90, 200, retention.TOO_LONG], 200),
        "finish": (deliveries.FINISH, ends(some, lease), 20_000),
        "retry": (
            deliveries.RETRY,
            [some, [lease] * SOME, [1.0] * SOME, [1] * SOME, [None] * SOME, time(), [None] * SOME],
            20_000,
        ),
        "cancel": (deliveries.CANCEL, [UUID(int=1), some, None, "test"], 20_000),
        "forward": (forwarding.FORWARD, [1.0, 100, 20, 50.0, time()], 16_000),
        "try now": (forwarding.TRY_NOW, [UUID(int=1), some[-1]], 100),
        "release": (ordering.RELEASE, [endpoint_ids, keys, [0] * 100, *[[None] * 100] * 2, None, time()], 4_000),
        "supersede": (ordering.SUPERSEDE, [endpoint_ids, keys], 40_000),
        "busy keys": (ordering.BUSY_KEYS, [endpoint_ids, keys], 2_000),
        "held keys": (ordering.HELD_KEYS, [endpoint_ids, keys], 1_000),
        "latest keys": (ordering.LATEST_KEYS, [endpoint_ids, keys], 8_000),
        "dequeue": (outbox.DEQUEUE, [lowest, 500, time()], 6_000),
        "standing": (waiting.STANDING, [some[:50], endpoint_ids[:50], keys[:50], True, 9], 2_000),
        "unreached": (finished.UNREACHED, [events, endpoint_ids], 6_000),
        "earlier": (outbox.EARLIER, [[r[0] for r in known], [r[1] for r in known]], 2_000),
        "insert": (outbox.INSERT_DELIVERIES, [insert, None], 20_000),
        "insert with bodies": (outbox.INSERT_WITH_BODIES, [insert_with_bodies, None, events], 22_000),
    }
