"""A backlog out of nothing: events sealed as ingest seals them, and open deliveries that point at them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.intake.events import NewEvent, prepare

from .gateway import Gateway
from .hospital import data_of, fill, templates

FANOUT = 10
"""Deliveries of one event, as in the full path with ten endpoints."""
BATCH = 20_000
FASTEST = 25_000
"""Deliveries a second that no worker drains."""

DELIVERIES = """
-- each with an ordering key of its own, as the events that the load posts
INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at, created_at)
SELECT uuidv7(), $1, ($2::uuid[])[1 + n % cardinality($2::uuid[])], ($3::uuid[])[1 + (n - $5::bigint) / 10], $4, n, n,
       now() - interval '1 minute' + n * interval '1 microsecond', now()
FROM generate_series($5::bigint, $6::bigint - 1) AS n
"""

ONE_KEY = """
-- the first of the key is due, each of the others waits for the one before it
INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at, created_at)
SELECT uuidv7(), $1, $2, event_id, $4, n, 1, CASE WHEN n = 1 THEN now() - interval '1 minute' END, now()
FROM unnest($3::uuid[]) WITH ORDINALITY AS e(event_id, n)
"""


async def fill_backlog(
    gateway: Gateway, endpoints: Sequence[UUID], deliveries: int, *, event_type: str = "lab_result.final"
) -> None:
    """So many open deliveries, spread evenly over the endpoints, due a minute ago; ten to an event."""
    events = await _events(gateway, max(1, deliveries // FANOUT), event_type)
    for first in range(0, deliveries, BATCH):
        last = min(first + BATCH, deliveries)
        some = events[first // FANOUT : -(-last // FANOUT)]
        await gateway.connection.execute(DELIVERIES, gateway.tenant_id, list(endpoints), some, event_type, first, last)
    await _settle_down(gateway)


async def fill_for(gateway: Gateway, endpoints: Sequence[UUID], seconds: float) -> None:
    """A backlog that lasts longer than that, however fast a worker is; `expect_some_left` makes sure of it."""
    await fill_backlog(gateway, endpoints, int(seconds * FASTEST))


async def fill_key(
    gateway: Gateway, endpoint_id: UUID, deliveries: int, *, event_type: str = "lab_result.final"
) -> None:
    """So many open deliveries of one ordering key, each of an event of its own."""
    events = await _events(gateway, deliveries, event_type)
    await gateway.connection.execute(ONE_KEY, gateway.tenant_id, endpoint_id, events, event_type)
    await _settle_down(gateway)


async def expect_some_left(gateway: Gateway, endpoints: Sequence[UUID]) -> None:
    """To be called where a drain was measured: had their backlog ended before, the rate would be that of its end.

    Raises:
        RuntimeError: nothing is left for the endpoints.
    """
    left = "SELECT EXISTS (SELECT FROM deliveries WHERE endpoint_id = ANY($1::uuid[]))"
    if not await gateway.connection.fetchval(left, list(endpoints)):
        raise RuntimeError(
            f"a worker drained more than {FASTEST:,} deliveries a second: make bench/backlog.py's FASTEST larger"
        )


async def _settle_down(gateway: Gateway) -> None:
    await gateway.connection.execute("VACUUM (ANALYZE) deliveries")
    await gateway.connection.execute("CHECKPOINT")


async def _events(gateway: Gateway, count: int, event_type: str) -> list[UUID]:
    """Sealed one by one, since each record is bound to its row."""
    (template,) = templates([event_type], keyed=False)
    known = Catalogue().get(gateway.tenant_id, event_type)
    made: list[UUID] = []
    first, now = gateway.numbers(count), datetime.now(UTC)
    for begin in range(0, count, BATCH):
        records = []
        for number in range(begin, min(begin + BATCH, count)):
            data = data_of(fill(template, first + number))
            event = prepare(
                gateway.vault, uuid7(), gateway.tenant_id, NewEvent(event_type, data, json.loads(data)), known
            )
            records.append((event.id, event.tenant_id, event.type, event.occurred_at, now, event.size, event.body))
            made.append(event.id)
        columns = ("id", "tenant_id", "type", "occurred_at", "accepted_at", "size", "body")
        await gateway.connection.copy_records_to_table("events", records=records, columns=columns)
    return made
