"""What operators do to an endpoint: pause, resume, test, and let a held ordering key go on."""

from __future__ import annotations

from uuid import UUID

import msgspec
from sqlalchemy import RowMapping

from webhook_gateway.crypto.vault import Vault
from webhook_gateway.intake.catalogue import Catalogue, EventType
from webhook_gateway.intake.events import NewEvent, prepare
from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.labels import LONGEST_LABEL, is_label
from webhook_gateway.rules.matching import TEST, fits, may_have
from webhook_gateway.rules.model import EndpointState
from webhook_gateway.store import endpoints, replays
from webhook_gateway.store.clock import new_id
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.notifications import CONFIGURATION, DELIVERIES, OUTBOX

from .change import Change
from .deliveries import BY_HAND
from .endpoints import emit_about, find, names_of
from .event_types import known_type
from .permission import types_of
from .quotas import one_test_more
from .refusals import Conflict, Invalid, NotFound, NotHeld, Refusal


async def pause(change: Change, vault: Vault, endpoint_id: UUID, reason: str | None = None) -> RowMapping | Refusal:
    """Stops attempts. Deliveries wait, also new ones; none is dropped. One that is paused keeps its ``reason``."""
    if reason is not None and not is_label(reason):
        remedy = f"Give printable text of at most {LONGEST_LABEL} characters, without a space at its ends."
        return Invalid((Fault("label", remedy, pointer="/reason"),))
    row = await find(change.connection, change.actor, endpoint_id, lock=True)
    if isinstance(row, NotFound) or row["state"] == EndpointState.PAUSED:
        return row
    if row["state"] == EndpointState.DISABLED:
        return Conflict.NOTHING_TO_PAUSE
    return await _set_state(change, vault, row, EndpointState.PAUSED, reason or BY_HAND)


async def resume(change: Change, vault: Vault, endpoint_id: UUID) -> RowMapping | NotFound:
    """Starts attempts again, also where the gateway has disabled the endpoint."""
    row = await find(change.connection, change.actor, endpoint_id, lock=True)
    if isinstance(row, NotFound) or row["state"] == EndpointState.ENABLED:
        return row
    return await _set_state(change, vault, row, EndpointState.ENABLED, None)


async def send_test(
    change: Change, vault: Vault, catalogue: Catalogue, endpoint_id: UUID, event_type: str | None
) -> dict[str, UUID] | Refusal:
    """Queues the type's example for this endpoint only; the ids of the delivery, its event and its endpoint.

    Without a type, the first that the endpoint gets.
    """
    if isinstance(row := await find(change.connection, change.actor, endpoint_id, lock=True), NotFound):
        return row
    if row["state"] == EndpointState.DISABLED:
        return Conflict.ENDPOINT_DISABLED
    if event_type is None:
        names = [known.name for known in catalogue.all(change.actor.tenant_id) if change.actor.may_send(known.name)]
        event_type = next((name for pattern in types_of(row) for name in names if fits(pattern, name)), TEST)
    known = await known_type(change.connection, catalogue, change.actor.tenant_id, event_type)
    if known is None:
        remedy = "Give one of the types that GET /v1/event-types lists."
        return Invalid((Fault("unknown_event_type", remedy, pointer="/event_type"),))
    if not change.actor.may_send(event_type):
        return NotHeld((event_type,))
    if not may_have(types_of(row), event_type):
        remedy = f"Give a type that the endpoint gets (see its effective_event_types), {TEST}, or none."
        return Invalid((Fault("not_wanted", remedy, pointer="/event_type"),))
    if exhausted := await one_test_more(change):
        return exhausted
    event_id = await new_id(await driver_of(change.connection))
    event = prepare(vault, event_id, change.actor.tenant_id, _example_of(known, row), None)
    delivery_id = await replays.send_only_to(change.connection, event, endpoint_id)
    after = {"type": known.name, "delivery_id": ids.render(ids.DELIVERY, delivery_id)}
    change.note("endpoint.tested", ids.render(ids.ENDPOINT, endpoint_id), OUTBOX, after=after)
    return {"id": delivery_id, "event_id": event.id, "endpoint_id": endpoint_id}


async def release_key(change: Change, endpoint_id: UUID, ordering_key: int) -> RowMapping | NotFound:
    """Gives up the dead delivery that holds the key, and sends what waits behind it."""
    if isinstance(row := await find(change.connection, change.actor, endpoint_id, lock=True), NotFound):
        return row
    if not -(2**63) <= ordering_key < 2**63 or not await endpoints.release_key(
        change.connection, change.actor.tenant_id, endpoint_id, ordering_key
    ):
        return NotFound.HELD_KEY
    after = {"ordering_key": str(ordering_key)}
    change.note("endpoint.key_released", ids.render(ids.ENDPOINT, endpoint_id), DELIVERIES, after=after)
    return row


async def _set_state(
    change: Change, vault: Vault, row: RowMapping, state: EndpointState, reason: str | None
) -> RowMapping:
    """Moves the endpoint, and tells whoever subscribes to the gateway's own events."""
    tenant_id, done = change.actor.tenant_id, "resumed" if state is EndpointState.ENABLED else state
    moved = await endpoints.set_state(change.connection, tenant_id, row["id"], state, reason, change.actor.means)
    change.note(
        f"endpoint.{done}",
        ids.render(ids.ENDPOINT, row["id"]),
        *(CONFIGURATION, DELIVERIES),
        before={"state": row["state"], "state_reason": row["state_reason"]},
        after={"state": state, "state_reason": reason},
    )
    await emit_about(change, vault, row, f"endpoint_{done}", reason)
    return moved


def _example_of(known: EventType, endpoint: RowMapping) -> NewEvent:
    example = dict(known.example)
    if known.source == "gateway":
        example |= names_of(endpoint)
    return NewEvent(type=known.name, data=msgspec.json.encode(example), parsed=example, test=True)
