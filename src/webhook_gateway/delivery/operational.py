"""The gateway's own events (``gateway.*``), for whoever operates it: put into the outbox like any other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from webhook_gateway import telemetry
from webhook_gateway.crypto.vault import KeyMissing, Vault
from webhook_gateway.intake.events import emit
from webhook_gateway.rules import ids
from webhook_gateway.rules.model import Delivery, Endpoint, Health
from webhook_gateway.store import finished
from webhook_gateway.store.database import Connection
from webhook_gateway.store.outbox import OutboxEvent

LONG = 3_600.0
"""Seconds of nothing but failures after which a success is worth telling."""


async def health_changed(
    connection: Connection, vault: Vault, endpoint: Endpoint, before: Health, after: Health, now: float
) -> None:
    """Where its breaker did, and where it answers again after `LONG`."""
    if (before.open_until is None) is not (after.open_until is None):
        change = "breaker_opened" if before.open_until is None else "breaker_closed"
        await endpoint_changed(connection, vault, endpoint, change)
    if before.failing_since is not None and after.failing_since is None and now - before.failing_since >= LONG:
        await endpoint_changed(connection, vault, endpoint, "endpoint_recovered")


async def endpoint_changed(
    connection: Connection, vault: Vault, endpoint: Endpoint, change: str, reason: str | None = None
) -> None:
    telemetry.endpoint_changed(endpoint, change, reason)
    await emit(connection, vault, endpoint.tenant_id, change, _about(endpoint, reason))


async def delivery_dead(
    connection: Connection, vault: Vault, endpoint: Endpoint, delivery: Delivery, reason: str
) -> None:
    about = _about(endpoint, reason) | {
        "delivery_id": ids.render(ids.DELIVERY, delivery.id),
        "event_id": ids.render(ids.EVENT, delivery.event_id),
    }
    await emit(connection, vault, endpoint.tenant_id, "delivery_dead", about)


async def event_undelivered(
    connection: Connection, vault: Vault, event: OutboxEvent | Delivery, event_type: str, unreached: Sequence[UUID]
) -> None:
    """Addressees have no endpoint for it, may not have it any more, or filter it out; somebody expects it to arrive."""
    event_id = ids.render(ids.EVENT, event.event_id)
    subscriber_ids = [ids.render(ids.SUBSCRIBER, one) for one in unreached]
    telemetry.event_undelivered(event_id, event_type, subscriber_ids)
    about = {"event_id": event_id, "event_type": event_type, "subscriber_ids": subscriber_ids}
    with suppress(KeyMissing):  # this worker can't seal it: the log has told, and the others' events go on
        await emit(connection, vault, event.tenant_id, "event_undelivered", about)


async def filtered_out(connection: Connection, vault: Vault, refused: Sequence[tuple[Delivery, Endpoint]]) -> None:
    """What could not be asked at fan-out has kept an event back: as at fan-out, addressees are told of."""
    of = {(delivery.event_id, endpoint.subscriber_id): delivery for delivery, endpoint in refused}
    for event_id, subscriber_id in await finished.unreached(connection, of.keys()):
        delivery = of[event_id, subscriber_id]
        await event_undelivered(connection, vault, delivery, delivery.event_type, [subscriber_id])


def _about(endpoint: Endpoint, reason: str | None) -> dict[str, str | None]:
    return {
        "endpoint_id": ids.render(ids.ENDPOINT, endpoint.id),
        "subscriber_id": ids.render(ids.SUBSCRIBER, endpoint.subscriber_id),
        "reason": reason,
    }
