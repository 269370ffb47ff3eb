"""What a hospital has after 90 days: millions of finished deliveries, and something in every table that is looked at.

Made by PostgreSQL out of numbers, two statements beside each other. Bodies are empty: no page opens one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

from webhook_gateway.intake.lookups import Kind, digest, key_of
from webhook_gateway.rules import ids
from webhook_gateway.store import partitions

from .gateway import Gateway
from .hospital import TYPES

DAYS, KEPT = 90, 28
"""Of deliveries, and of their events."""
PARTNERS, ENDPOINTS, PAUSED, FAILING = 40, 200, 50, 3
"""Of the endpoints the last are paused, and those before them fail."""
FANOUT, SLICE = 10, 200_000
PATIENT = "pat_of_the_bench"
ACTORS = [ids.render(ids.KEY, UUID(int=number)) for number in range(50)]
TARGETS = [ids.render(ids.ENDPOINT, UUID(int=number)) for number in range(1_000)]
"""Who did what is in the audit log, and to what."""
TABLES = (
    "deliveries, finished_deliveries, attempts, events, lookups, endpoints, subscribers, attempt_stats, audit_log, "
    "jobs, held_keys, endpoint_health"
)

# Ids of number n, in the order of their time: $1 is the first one's in milliseconds, $2 how far apart they are.
AT = "($1::float8 + $2::float8 * ({0}))"
ID = f"(lpad(to_hex({AT}::bigint), 12, '0') || '{{1}}' || lpad(to_hex({{0}}), 16, '8'))::uuid"
DELIVERY, EVENT = ID.format("n", "7001"), ID.format("n - n % 10", "7000")
# Ten deliveries of an event go to ten endpoints; the first of all gets every event, and so a tenth of everything.
OF = "($5::uuid[])[1 + CASE WHEN n % 10 = 0 THEN 0 ELSE n / 10 % (cardinality($5::uuid[]) / 10) * 10 + n % 10 END]"
TYPE = "($6::text[])[1 + n / 10 % cardinality($6::text[])]"
NUMBERS = "FROM generate_series($3::bigint, $4::bigint - 1) AS n"

FILL = {
    "finished_deliveries": f"""
INSERT INTO finished_deliveries
    (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, state, created_at, finished_at)
SELECT {DELIVERY}, $7, {OF}, {EVENT}, {TYPE}, n, 1, CASE WHEN n % 501 = 0 THEN 'dead' ELSE 'delivered' END,
       to_timestamp({AT.format("n")} / 1000), to_timestamp({AT.format("n")} / 1000 + 1)
{NUMBERS}
""",
    "attempts": f"""
INSERT INTO attempts (delivery_id, id, tenant_id, attempt, started_at, duration, phase, outcome, status)
SELECT {DELIVERY}, {DELIVERY}, $5, 1, to_timestamp({AT.format("n")} / 1000), 0.1, 'answered',
       CASE WHEN n % 501 = 0 THEN 'rejected' ELSE 'accepted' END, CASE WHEN n % 501 = 0 THEN 503 ELSE 200 END
{NUMBERS}
""",
    "deliveries": f"""
INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at, created_at, attempt)
SELECT {ID.format("n", "7002")}, $7, ($5::uuid[])[1 + n % cardinality($5::uuid[])], {EVENT}, {TYPE}, n,
       CASE WHEN n % 4 = 0 THEN n / 400 END,
       CASE WHEN n % 8 <> 4 THEN now() - interval '1 hour' + n % 100000 * interval '0.1 second' END, now(), 0
{NUMBERS}
""",
    "events": f"""
INSERT INTO events (id, tenant_id, type, occurred_at, accepted_at, size, body)
SELECT {EVENT}, $6, ($5::text[])[1 + n / 10 % cardinality($5::text[])], now(), to_timestamp({AT.format("n")} / 1000),
       400, ''
{NUMBERS} WHERE n % 10 = 0
""",
    "lookups": f"""
INSERT INTO lookups (key, event_id)
SELECT CASE WHEN n % 20000 = 0 THEN $5::uuid ELSE gen_random_uuid() END, {EVENT}
{NUMBERS} WHERE n % 10 = 0
""",
}
STATS = """
INSERT INTO attempt_stats (span, begins, tenant_id, about_id, outcome, status, id, first_at, last_at, delivery_id,
                           durations, attempts, died)
SELECT $3, begins, $2, about, outcome, CASE outcome WHEN 'rejected' THEN 503 END, gen_random_uuid(), begins,
       begins + interval '50 seconds', $4, '{0,0,0,1,2,3,5,8,5,3,2,1,1}', 31,
       CASE outcome WHEN 'rejected' THEN 1 ELSE 0 END
FROM unnest($1::uuid[]) AS a (about), unnest('{accepted,rejected}'::text[]) AS o (outcome),
     generate_series($5::timestamptz, $6::timestamptz, make_interval(secs => $3)) AS begins
WHERE outcome = 'accepted' OR get_byte(uuid_send(about), 15) % 3 = 0
"""
PARTNER = "('00000000-0000-7000-8000-' || lpad(to_hex({}), 12, '0'))::uuid"
SUBSCRIBERS = f"""
INSERT INTO subscribers (id, tenant_id, name, event_types, content)
SELECT {PARTNER.format("n")}, $1, 'partner ' || n, '{{*}}', '{{"level": "full", "subject": true}}'
FROM generate_series(0, {PARTNERS - 1}) AS n
"""
THEIR_ENDPOINTS = f"""
UPDATE endpoints e SET subscriber_id = {PARTNER.format(f"a.n % {PARTNERS}")}
FROM unnest($1::uuid[]) WITH ORDINALITY AS a (id, n) WHERE e.id = a.id
"""
HEALTH = """
INSERT INTO endpoint_health (endpoint_id, tenant_id, failures_in_a_row, failing_since, open_until, openings)
SELECT id, $1, 40, now() - interval '5 hours', now() + interval '1 hour', 9 FROM unnest($2::uuid[]) AS a (id)
"""
NO_SUCCESS = """
DELETE FROM attempt_stats
WHERE about_id = ANY($1::uuid[]) AND outcome = 'accepted' AND begins > now() - interval '5 hours'
"""
HELD = """
INSERT INTO held_keys (endpoint_id, ordering_key, tenant_id, delivery_id, event_id)
SELECT DISTINCT ON (endpoint_id, ordering_key) endpoint_id, ordering_key, $1::uuid, id, event_id
FROM deliveries WHERE due_at IS NULL LIMIT 500
"""
REPLAYS = f"""
INSERT INTO jobs (id, tenant_id, kind, filter, state, total, done, created_at, finished_at)
SELECT {PARTNER.format("n")}, $1, 'replay', '{{"state": "dead"}}', 'done', 100, 100, now(), now()
FROM generate_series(1, 1000) AS n
"""
AUDIT = """
INSERT INTO audit_log (tenant_id, sequence, at, actor, source, action, target, previous_hash, hash)
SELECT $1, 1000 + n, now(), ($3::text[])[1 + n % 50], 'local', 'endpoint.changed', ($4::text[])[1 + n % 1000], '', ''
FROM generate_series(1, $2::bigint) AS n
"""


@dataclass(frozen=True, slots=True)
class Archive:
    """What was made. ``places`` are ids that are there, by the names that paths have for them; of one partner, too."""

    rows: int
    places: dict[str, list[str]]
    partner_id: UUID
    of_partner: dict[str, list[str]]


async def fill_archive(gateway: Gateway, deliveries: int) -> Archive:
    """So many finished deliveries, a fiftieth of them open ones beside; the first ten endpoints take what is posted."""
    live = await gateway.set_endpoints(FANOUT, types=TYPES)
    endpoints = live + await gateway.add_endpoints(ENDPOINTS - FANOUT, types=("bench.history",))
    paused, failing = endpoints[-PAUSED:], endpoints[-PAUSED - FAILING : -PAUSED]
    connection, tenant = gateway.connection, gateway.tenant_id
    await connection.execute("UPDATE endpoints SET state = 'paused' WHERE id = ANY($1)", paused)
    now = datetime.now(UTC)
    first = (now - timedelta(days=DAYS)).timestamp() * 1e3
    apart = timedelta(days=DAYS).total_seconds() * 1e3 / deliveries
    kept = int(deliveries * (1 - KEPT / DAYS)) // FANOUT * FANOUT
    for cut, days in ((partitions.FINISHED, DAYS), (partitions.ATTEMPTS, DAYS), (partitions.EVENTS, KEPT)):
        await partitions.make_ahead(connection, cut, (now - timedelta(days=days)).date(), 4 if cut.monthly else days)
    await partitions.make_ahead(connection, partitions.LOOKUPS, (now - timedelta(days=KEPT)).date(), KEPT)
    patient = key_of(digest(gateway.vault.hashes(tenant), Kind.PATIENT, PATIENT))
    await _fill(
        gateway,
        [
            ("finished_deliveries", (0, deliveries), (first, apart), (endpoints, list(TYPES), tenant)),
            ("attempts", (0, deliveries), (first, apart), (tenant,)),
            ("events", (kept, deliveries), (first, apart), (list(TYPES), tenant)),
            ("lookups", (kept, deliveries), (first, apart), (patient,)),
            ("deliveries", (deliveries - deliveries // 50, deliveries), (first, apart), (paused, list(TYPES), tenant)),
        ],
    )
    hour = now.replace(minute=0, second=0, microsecond=0)
    some = await connection.fetchval("SELECT id FROM finished_deliveries ORDER BY id DESC LIMIT 1")
    about = [*endpoints, tenant]
    await connection.execute(STATS, about, tenant, 3_600.0, some, hour - timedelta(days=DAYS), hour, timeout=600)
    await connection.execute(STATS, about, tenant, 60.0, some, hour + timedelta(minutes=1), now, timeout=600)
    await connection.execute(SUBSCRIBERS, tenant)
    await connection.execute(THEIR_ENDPOINTS, endpoints)
    await connection.execute(HEALTH, tenant, failing)
    await connection.execute(NO_SUCCESS, failing)
    await connection.execute(HELD, tenant)
    await connection.execute(REPLAYS, tenant)
    await connection.execute(AUDIT, tenant, deliveries // 10, ACTORS, TARGETS, timeout=600)
    await connection.execute("UPDATE configuration SET version = version + 1")
    await connection.execute(f"VACUUM (ANALYZE) {TABLES}", timeout=600)
    await connection.execute("CHECKPOINT", timeout=600)
    partner_id = await connection.fetchval("SELECT subscriber_id FROM endpoints WHERE id = $1", live[0])
    theirs = await connection.fetch("SELECT id FROM endpoints WHERE subscriber_id = $1", partner_id)
    rows = await connection.fetchval("SELECT count(*) FROM finished_deliveries", timeout=60)
    of_all, of_one = await _places(connection, endpoints), await _places(connection, [row["id"] for row in theirs])
    return Archive(rows, of_all, UUID(str(partner_id)), of_one)


async def _fill(
    gateway: Gateway, wanted: list[tuple[str, tuple[int, int], tuple[float, float], tuple[object, ...]]]
) -> None:
    """In slices, two at a time, those of a table in their order."""
    slices = [
        (FILL[table], (*spaced, begin, min(begin + SLICE, last), *given))
        for table, (first, last), spaced, given in wanted
        for begin in range(first, last, SLICE)
    ][::-1]

    async def work() -> None:
        connection = await asyncpg.connect(gateway.postgres.url, server_settings={"synchronous_commit": "off"})
        while slices:
            statement, given = slices.pop()
            await connection.execute(statement, *given, timeout=600)
        await connection.close()

    await asyncio.gather(work(), work())


async def _places(connection: asyncpg.Connection, endpoints: list[UUID]) -> dict[str, list[str]]:
    """The newest to these endpoints, and some of all whose event is kept."""
    low = partitions.lowest_id((datetime.now(UTC) - timedelta(days=KEPT - 1)).date())

    async def some(prefix: str, query: str) -> list[str]:
        return [ids.render(prefix, UUID(str(row["id"]))) for row in await connection.fetch(query, endpoints)]

    theirs = "endpoint_id = ANY($1) ORDER BY id DESC LIMIT"
    scattered = f"FROM finished_deliveries WHERE id > '{low}' AND sequence % 991 < 10 AND {theirs} 50"
    finished = await some(ids.DELIVERY, f"SELECT id {scattered}")
    dead = await some(ids.DELIVERY, f"SELECT id FROM finished_deliveries WHERE state = 'dead' AND {theirs} 10")
    waiting = await some(ids.DELIVERY, f"SELECT id FROM deliveries WHERE {theirs} 20")
    return {
        "subscriber_id": await some(
            ids.SUBSCRIBER, "SELECT DISTINCT subscriber_id AS id FROM endpoints WHERE id = ANY($1)"
        ),
        "endpoint_id": [ids.render(ids.ENDPOINT, one) for one in endpoints],
        "event_id": await some(ids.EVENT, f"SELECT event_id AS id {scattered}"),
        "delivery_id": finished + dead + waiting,
        "key_id": await some(ids.KEY, "SELECT id FROM api_keys WHERE $1::uuid[] IS NOT NULL LIMIT 5"),
        "job_id": await some(ids.JOB, "SELECT id FROM jobs WHERE $1::uuid[] IS NOT NULL LIMIT 5"),
        "name": list(TYPES),
        "month_ago": [f"{datetime.now(UTC) - timedelta(days=30):%Y-%m-%dT%H:%M}"],
    }
