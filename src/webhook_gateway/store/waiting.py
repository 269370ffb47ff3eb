"""What rows say of why deliveries wait: gathered here, in as many statements for a page as for one; `rules` decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping

from webhook_gateway.rules.model import DEFAULT_SCHEDULE, DeliveryState, Endpoint, EndpointState, Health
from webhook_gateway.rules.waiting import OpenDelivery, Reason, Waiting, why_in_outbox, why_waiting

from .configuration import endpoint_from, health_from, moment_of, seconds_of
from .database import Connection
from .workers import ALIVE

OPEN_STATES = ("pending", "sending")
COUNTED = 100
"""How far is counted what is due before a delivery."""

WORKERS = """
-- workers: how many are alive; nothing while sending is paused
SELECT count(*) FROM workers WHERE seen_at > now() - make_interval(secs => $1)
HAVING (SELECT paused_at IS NULL FROM configuration)
"""

ENDPOINTS = """
-- endpoints: what claims for them go by
SELECT e.*, s.event_types AS permitted_types, s.content AS permitted_content,
       h.failures_in_a_row, h.failing_since, h.failing_days, h.open_until, h.openings, h.held_until
FROM endpoints e JOIN subscribers s ON s.id = e.subscriber_id LEFT JOIN endpoint_health h ON h.endpoint_id = e.id
WHERE e.id = ANY($1::uuid[])
"""

DELIVERIES = """
-- deliveries: how many are due before each, in the order of claims; whether its key is held, which stops at its head;
-- whether its last attempt lacked a key
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::timestamptz[]) AS a(id, endpoint_id, key, due_at)
), due AS MATERIALIZED (
    SELECT e.endpoint_id, d.id, count(*) FILTER (WHERE $6 OR d.unfiltered IS NOT TRUE)
               OVER (PARTITION BY e.endpoint_id ORDER BY d.due_at, d.id) - 1 AS before
    FROM (SELECT DISTINCT endpoint_id FROM asked WHERE due_at <= now()) AS e
    CROSS JOIN LATERAL (
        SELECT id, due_at, unfiltered FROM deliveries
        WHERE endpoint_id = e.endpoint_id AND due_at <= now() ORDER BY due_at, id LIMIT $5
    ) AS d
)
SELECT a.id,
       coalesce(due.before, (SELECT count(*) FROM due WHERE due.endpoint_id = a.endpoint_id)) AS before,
       a.due_at IS NULL
           AND EXISTS (SELECT FROM held_keys h WHERE h.endpoint_id = a.endpoint_id AND h.ordering_key = a.key)
           AND (SELECT head.due_at IS NULL FROM deliveries head
                WHERE head.endpoint_id = a.endpoint_id AND head.ordering_key = a.key ORDER BY head.sequence LIMIT 1)
           AS key_held,
       a.due_at > now()
           AND (SELECT last.outcome = 'unsendable' AND last.detail = 'key_missing' FROM attempts last
                WHERE last.delivery_id = a.id ORDER BY last.id DESC LIMIT 1) AS key_missing,
       now() AS now
FROM asked a LEFT JOIN due ON due.endpoint_id = a.endpoint_id AND due.id = a.id
"""

MET = "coalesce({0}.status::text, replace({0}.outcome || ': ' || {0}.detail, '_', ' '))"
STANDING = f"""
-- standing: what the latest attempt of each delivery met, what keeps its ordering key, and how its endpoint came to its
-- state; without what is hidden from partners, where one asks
SELECT a.id, e.state_reason AS endpoint_reason, e.state_changed_at AS changed_at,
       CASE WHEN $4 THEN e.state_changed_by END AS changed_by, coalesce(h.failures_in_a_row, 0) AS failures,
       coalesce(cardinality(e.schedule), $5) + 1 AS allowed, last.duration,
       {MET.format("last")} AS met, {MET.format("failed")} AS endpoint_met,
       CASE WHEN $4 OR head.unfiltered IS NOT TRUE THEN head.id END AS head, CASE WHEN $4 THEN held.id END AS held_by,
       now() AS now
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS a(id, endpoint_id, key)
CROSS JOIN LATERAL (SELECT * FROM endpoints WHERE id = a.endpoint_id LIMIT 1) AS e
LEFT JOIN LATERAL (SELECT * FROM endpoint_health WHERE endpoint_id = a.endpoint_id LIMIT 1) AS h ON true
LEFT JOIN LATERAL (SELECT * FROM attempts WHERE delivery_id = a.id ORDER BY id DESC LIMIT 1) AS last ON true
LEFT JOIN LATERAL (
    SELECT * FROM attempt_stats WHERE tenant_id = e.tenant_id AND about_id = e.id AND h.open_until IS NOT NULL
       AND outcome NOT IN ('accepted', 'unsendable') ORDER BY begins DESC, last_at DESC LIMIT 1
) AS failed ON true
LEFT JOIN LATERAL (
    SELECT id, unfiltered FROM deliveries
    WHERE endpoint_id = a.endpoint_id AND ordering_key = a.key ORDER BY sequence LIMIT 1
) AS head ON true
LEFT JOIN LATERAL (
    SELECT delivery_id AS id FROM held_keys WHERE endpoint_id = a.endpoint_id AND ordering_key = a.key LIMIT 1
) AS held ON true
"""

GROUPS = """
-- groups: all open deliveries, by endpoint and by what their own rows say
SELECT d.endpoint_id, d.lease_id IS NOT NULL AS leased, h.endpoint_id IS NOT NULL AS key_held, min(d.due_at) AS due_at,
       count(*) AS count, extract(epoch FROM now() - min(d.created_at))::float8 AS oldest, now() AS now
FROM deliveries d
LEFT JOIN held_keys h ON d.due_at IS NULL AND h.endpoint_id = d.endpoint_id AND h.ordering_key = d.ordering_key
GROUP BY d.endpoint_id, d.due_at IS NULL, d.due_at <= now(), d.lease_id IS NOT NULL, h.endpoint_id IS NOT NULL
"""


OWNERS = """
-- owners: whose endpoints these are, or were: a deleted subscriber's name stays in what was sent to it
SELECT e.id, e.subscriber_id, s.name AS subscriber FROM endpoints e JOIN subscribers s ON s.id = e.subscriber_id
WHERE e.id = ANY($1::uuid[])
"""


async def explained(connection: Connection, rows: Sequence[RowMapping], *, unfiltered: bool) -> list[dict[str, Any]]:
    """Deliveries with what each waits for, and to whom it goes, in the transaction in which the rows were read.

    ``due_at`` becomes when the next attempt is due, or None where that is not a matter of time. ``waiting_for`` is None
    for those that have ended, ``due_before`` for those that are not due; it counts the ``unfiltered`` or doesn't.
    """
    owners = {
        owner["id"]: {"subscriber_id": owner["subscriber_id"], "subscriber": owner["subscriber"]}
        for owner in await connection.fetch(OWNERS, list({row["endpoint_id"] for row in rows}))
    }
    asked = [row for row in rows if row["state"] in OPEN_STATES]
    if not asked:
        return [{**row, **owners[row["endpoint_id"]], **_told(None, None)} for row in rows]
    workers = await workers_alive(connection)
    endpoints = await endpoints_of(connection, {row["endpoint_id"] for row in asked})
    columns = [[row[name] for row in asked] for name in ("id", "endpoint_id", "ordering_key", "due_at")]
    facts = {found["id"]: found for found in await connection.fetch(DELIVERIES, *columns, COUNTED, unfiltered)}
    told = []
    for row in rows:
        waiting = None
        if row["in_outbox"]:
            waiting = why_in_outbox(workers)
        elif row["state"] in OPEN_STATES:
            waiting = _why(row, facts[row["id"]], endpoints[row["endpoint_id"]], workers)
        told.append({**row, **owners[row["endpoint_id"]], **_told(row["due_at"], waiting)})
    return told


async def standing(connection: Connection, rows: Collection[Mapping[str, Any]], *, hidden: bool) -> dict[UUID, Any]:
    """By id, what else is told of deliveries; with what is ``hidden`` from partners."""
    asked = [[row[name] for row in rows] for name in ("id", "endpoint_id", "ordering_key")]
    return {found["id"]: found for found in await connection.fetch(STANDING, *asked, hidden, len(DEFAULT_SCHEDULE))}


async def workers_alive(connection: Connection) -> int | None:
    """None while sending is paused."""
    alive = await connection.fetchval(WORKERS, ALIVE)
    return None if alive is None else int(alive)


async def endpoints_of(connection: Connection, ids: Collection[UUID]) -> dict[UUID, tuple[Endpoint, Health]]:
    """Endpoints without their secrets; one that is deleted is disabled, until its deliveries are cancelled."""
    found = {}
    for row in await connection.fetch(ENDPOINTS, list(ids)):
        endpoint = endpoint_from(row)
        if row["deleted_at"] is not None:
            endpoint = replace(endpoint, state=EndpointState.DISABLED)
        found[endpoint.id] = (endpoint, Health() if row["openings"] is None else health_from(row))
    return found


async def open_by_reason(connection: Connection) -> tuple[dict[str, int], float | None]:
    """How many open deliveries wait for what, the most first, and the age of the oldest in seconds.

    Of what is due later the first speaks for all to its endpoint.
    """
    workers, groups = await workers_alive(connection), await connection.fetch(GROUPS)
    endpoints = await endpoints_of(connection, {group["endpoint_id"] for group in groups})
    counts: Counter[str] = Counter()
    for group in groups:
        delivery = OpenDelivery(
            seconds_of(group["due_at"]), leased=group["leased"], key_held=group["key_held"], before=group["count"] - 1
        )
        waiting = why_waiting(delivery, *endpoints[group["endpoint_id"]], workers, group["now"].timestamp())
        counts[waiting.reason] += group["count"]
    return dict(counts.most_common()), max((group["oldest"] for group in groups), default=None)


async def why_endpoints_wait(connection: Connection, ids: Collection[UUID]) -> dict[UUID, Waiting]:
    """What a delivery to each endpoint would wait for that is due now."""
    workers, now = (
        await workers_alive(connection),
        await connection.fetchval("SELECT extract(epoch FROM now())::float8"),
    )
    due = OpenDelivery(now)
    return {id: why_waiting(due, *found, workers, now) for id, found in (await endpoints_of(connection, ids)).items()}


def _why(row: RowMapping, facts: Any, endpoint: tuple[Endpoint, Health], workers: int | None) -> Waiting:
    delivery = OpenDelivery(
        seconds_of(row["due_at"]),
        leased=row["state"] == DeliveryState.SENDING,
        key_held=bool(facts["key_held"]),
        key_missing=bool(facts["key_missing"]),
        before=facts["before"],
    )
    return why_waiting(delivery, *endpoint, workers, facts["now"].timestamp())


def _told(due_at: datetime | None, waiting: Waiting | None) -> dict[str, Any]:
    if waiting is None:
        return {"due_at": None, "waiting_for": None, "due_before": None}
    match waiting.reason:
        case Reason.SLOTS | Reason.RATE:
            next_attempt_at = due_at
        case Reason.SENDING:
            next_attempt_at = None
        case _:
            next_attempt_at = moment_of(waiting.until)
    return {"due_at": next_attempt_at, "waiting_for": waiting.reason, "due_before": waiting.before}
