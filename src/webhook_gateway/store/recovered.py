"""Events that are in the outbox again after a crash. They may have been sent before, and the ledger says so.

Fan-out's commit need not wait for the disk (docs/decisions/0021-fan-out-need-not-wait-for-the-disk.md). What a crash
takes is made again, as something of which a lease has ended without a word. For an endpoint that was another in the
meantime, or is gone, it ends at once, as if it had been open then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from uuid import UUID

import msgspec

from webhook_gateway.rules.matching import effective, fits

from .database import FULL_SCAN, Connection
from .deliveries import id_of
from .finished import NOT_WANTED
from .outbox import NewDelivery, OutboxEvent
from .rows import columns

MARGIN = 60_000
"""Milliseconds by which a change may have been committed after its own time, and an id may be of another's clock."""

_MADE_AT = "least(now(), to_timestamp(('x' || translate(left(id::text, 13), '-', ''))::bit(48)::bigint / 1000.0))"
"""SQL: the time of a UUIDv7."""

LAPSED = f"""
-- lapsed: of deliveries that were just made again, and perhaps superseded, each may have had a lease that nobody knows
WITH is_open AS (UPDATE deliveries SET lapsed = 1, created_at = {_MADE_AT} WHERE id = ANY($1::uuid[]))
UPDATE finished_deliveries SET lapsed = 1, created_at = {_MADE_AT} WHERE id = ANY($1::uuid[])
"""

FORMER = f"""
-- former: what endpoints were that were changed or deleted since a moment, and how what was open by that has to end
SELECT *, extract(epoch FROM now()) * 1000 AS now FROM (
    SELECT r.tenant_id, r.endpoint_id, e.subscriber_id, r.permitted_types, r.event_types, extract(epoch FROM coalesce(
               lead(r.at) OVER (PARTITION BY r.endpoint_id ORDER BY r.revision), e.deleted_at)) * 1000 AS until,
           CASE WHEN e.filter IS NOT NULL OR r.filter_digest IS NOT NULL THEN '{NOT_WANTED}'
                WHEN e.deleted_at IS NOT NULL THEN 'endpoint_deleted' ELSE 'not_permitted' END AS reason
    FROM endpoint_revisions r JOIN endpoints e ON e.id = r.endpoint_id
) AS one WHERE until > least($1::bigint, extract(epoch FROM now()) * 1000) - {MARGIN}
"""

END = f"""
-- end: deliveries that fan-out can't make, and that were promised to somebody, or may have been sent
INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, lapsed, state,
                                 state_reason, reason, created_at)
SELECT id, tenant_id, endpoint_id, event_id, type, sequence, 0, lapsed, 'cancelled', state_reason, reason, {_MADE_AT}
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::bigint[], $7::int[], $8::text[], $9::text[])
    AS e(id, tenant_id, endpoint_id, event_id, type, sequence, lapsed, state_reason, reason)
"""


class Ended(msgspec.Struct, frozen=True):
    """In the order of `END`."""

    id: UUID
    tenant_id: UUID
    endpoint_id: UUID
    event_id: UUID
    type: str
    sequence: int
    lapsed: int
    state_reason: str
    reason: str | None


async def end_unmade(
    connection: Connection, events: Sequence[OutboxEvent], made: Sequence[NewDelivery], live: Collection[UUID]
) -> None:
    """Ends what of a round's events can't be made: what was for one endpoint that isn't ``live`` any more, and what
    recovered events may have gone to. Of those what was ``made`` is told to be so."""
    ended = [
        _ended(event, event.endpoint_id, "endpoint_deleted")
        for event in events
        if event.endpoint_id is not None and event.endpoint_id not in live
    ]
    if recovered := {event.sequence: event for event in events if event.is_recovered}:
        again = {one.id for one in made if one.sequence in recovered}
        await connection.execute(LAPSED, again)
        former = await _former(connection, [one for one in recovered.values() if one.endpoint_id is None])
        ended += [one for delivery_id, one in former.items() if delivery_id not in again]
    if ended:
        await connection.execute(END, *columns(Ended, ended))


async def _former(connection: Connection, events: Sequence[OutboxEvent]) -> dict[UUID, Ended]:
    """By its id one for each endpoint that got such events, since they were accepted, by what it isn't any more."""
    alike: defaultdict[tuple[UUID, str], list[OutboxEvent]] = defaultdict(list)
    for event in events:
        alike[event.tenant_id, event.type].append(event)
    found: dict[UUID, Ended] = {}
    rows = await connection.fetch(FORMER, min(map(_accepted, events)), timeout=FULL_SCAN) if events else []
    for row in rows:
        types = effective(row["permitted_types"], row["event_types"])
        for (tenant_id, type_), theirs in alike.items():
            if tenant_id == row["tenant_id"] and any(fits(pattern, type_) for pattern in types):
                for event in theirs:
                    is_addressed = event.addressees is None or row["subscriber_id"] in event.addressees
                    if is_addressed and min(_accepted(event), row["now"]) < row["until"] + MARGIN:
                        one = _ended(event, row["endpoint_id"], row["reason"])
                        found[one.id] = one
    return found


def _ended(event: OutboxEvent, endpoint_id: UUID, state_reason: str) -> Ended:
    delivery_id = event.delivery_id or id_of(event.event_id, endpoint_id)
    about = (event.tenant_id, endpoint_id, event.event_id, event.type, event.sequence)
    return Ended(delivery_id, *about, int(event.is_recovered), state_reason, event.reason)


def _accepted(event: OutboxEvent) -> int:
    return event.event_id.int >> 80
