"""Rows as the gateway leaves them: events, deliveries open and finished, a worker."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from uuid_utils.compat import uuid7

from webhook_gateway.crypto.vault import Vault
from webhook_gateway.intake.events import NewEvent, prepare
from webhook_gateway.rules.histogram import size_of
from webhook_gateway.store import attempt_stats, outbox, partitions, workers
from webhook_gateway.store.attempt_stats import Counted, Kind
from webhook_gateway.store.database import Connection

EVERYTHING = {"event_types": ["*", "gateway.*"], "content": "full"}
"""What a subscriber may have that is made by a test about something else, as the API takes it."""
SUBSCRIBER = """
INSERT INTO subscribers (id, tenant_id, name, event_types, content)
VALUES ($1, $2, $3, '{*,gateway.*}', '{"level": "full", "subject": true}')
"""
"""The same as a row."""
SHIFT = b'{"shift_id":"shf_81","staff_id":"st_19","version":1}'


class HasVault(Protocol):
    @property
    def vault(self) -> Vault: ...


async def store_worker(connection: Connection) -> None:
    """A worker that is alive for as long as any test takes."""
    await connection.execute(
        "INSERT INTO workers (id, name, seen_at, protocol) VALUES ($1, 'a worker', now() + interval '1 hour', $2)",
        *(uuid7(), workers.PROTOCOL),
    )


async def store_event(api: HasVault, connection: Connection, tenant_id: UUID, *, in_outbox: bool = False) -> UUID:
    """An accepted event, fanned out unless it is to wait in the outbox."""
    event = prepare(api.vault, uuid7(), tenant_id, NewEvent("staff_shift.assigned", SHIFT, None), None)
    await outbox.append(connection, [event])
    if not in_outbox:
        await connection.execute("DELETE FROM outbox WHERE event_id = $1", event.id)
    return event.id


async def store_finished(
    connection: Connection, tenant_id: UUID, endpoint_id: UUID, event_id: UUID, state: str
) -> UUID:
    """A finished delivery with one attempt."""
    delivery_id = uuid7()
    await connection.execute(
        "INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, state,"
        " state_reason, created_at) VALUES ($1, $2, $3, $4, 'staff_shift.assigned', 1, 10, $5, $6, now())",
        delivery_id,
        tenant_id,
        endpoint_id,
        event_id,
        state,
        "attempts_exhausted" if state == "dead" else None,
    )
    await connection.execute(
        "INSERT INTO attempts (delivery_id, id, tenant_id, attempt, started_at, duration, phase, outcome, status,"
        " response_digest, response_excerpt) VALUES ($1, $2, $3, 1, now(), 0.25, 'answered', 'rejected', 500, $4, $5)",
        delivery_id,
        uuid7(),
        tenant_id,
        bytes(32),
        b"what the partner said",
    )
    return delivery_id


async def store_open(
    connection: Connection,
    tenant_id: UUID,
    endpoint_id: UUID,
    event_id: UUID,
    *,
    due_at: datetime | None = datetime(2100, 1, 1, tzinfo=UTC),
    lease_id: UUID | None = None,
    ordering_key: int | None = None,
    sequence: int = 2,
) -> UUID:
    """An open delivery."""
    delivery_id = uuid7()
    await connection.execute(
        "INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, due_at, attempt, lease_id,"
        " ordering_key) VALUES ($1, $2, $3, $4, 'staff_shift.assigned', $5, $6, 1, $7, $8)",
        delivery_id,
        tenant_id,
        endpoint_id,
        event_id,
        sequence,
        due_at,
        lease_id,
        ordering_key,
    )
    return delivery_id


async def store_attempts(
    connection: Connection,
    tenant_id: UUID,
    endpoint_id: UUID,
    delivery_id: UUID,
    *,
    outcome: str = "rejected",
    status: int | None = 503,
    seconds_ago: float = 0,
    attempts: int = 1,
    duration: float = 0.02,
) -> None:
    """What a worker counted of attempts, for the endpoint and for the tenant."""
    at = datetime.now(UTC).timestamp() - seconds_ago
    durations = [0] * size_of(duration) + [attempts]
    of_endpoint = Kind(int(at // 60) * 60, tenant_id, endpoint_id, outcome, status)
    of_tenant = of_endpoint._replace(about_id=tenant_id, status=None)
    rows = [(kind, Counted(uuid7(), at, at, delivery_id, durations, attempts)) for kind in (of_endpoint, of_tenant)]
    await attempt_stats.add(connection, rows)


async def prune_aged(connection: Connection, hours: int) -> int:
    """How many idempotency keys are pruned after 72 hours, once they are older by so many."""
    await connection.execute("UPDATE idempotency_keys SET created_at = created_at - make_interval(hours => $1)", hours)
    return await partitions.prune_keys(connection, 72)
