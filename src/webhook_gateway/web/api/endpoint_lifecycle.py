"""What operators do to an endpoint: pause, resume, test, and let a held ordering key go on."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from fastapi import APIRouter, Body, Path, Query
from sqlalchemy import RowMapping

from webhook_gateway.intake.catalogue import EventType
from webhook_gateway.intake.events import NewEvent, announce, prepare
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import endpoints, replays
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.notifications import CONFIGURATION, DELIVERIES, OUTBOX
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import Fault, conflict, invalid, not_found

from .dependencies import Change, Gateway, Parts, changing, needs, next_page, read_number_cursor
from .endpoints import find, shown
from .event_types import known_type
from .schemas.deliveries import QueuedDelivery
from .schemas.endpoint_lifecycle import HeldKeyPage, TestSend
from .schemas.endpoints import Endpoint
from .schemas.shapes import Paging
from .schemas.typed_ids import EndpointId

router = APIRouter(prefix="/v1/endpoints", tags=["Endpoints"])

Reader = Annotated[Caller, needs(Scope.ENDPOINTS_READ)]
Operator = Annotated[Caller, needs(Scope.DELIVERIES_WRITE)]

BY_HAND = "by_hand"


@router.post("/{endpoint_id}/pause", response_model=Endpoint, operation_id="pauseEndpoint", summary="Pause an endpoint")
async def pause(endpoint_id: EndpointId, gateway: Parts, caller: Operator) -> Any:
    """Stops attempts. Deliveries wait, also new ones, until the endpoint is resumed; none is dropped."""
    async with changing(gateway, caller, CONFIGURATION, OUTBOX) as change:
        row = await find(change.connection, caller, endpoint_id, lock=True)
        if row["state"] == "disabled":
            raise conflict("The endpoint is disabled, so nothing is attempted anyway. Resume it once it is mended.")
        if row["state"] == "enabled":
            row = await _set_state(gateway, change, row, "paused", BY_HAND)
        return await shown(gateway.vault, change.connection, row)


@router.post(
    "/{endpoint_id}/resume", response_model=Endpoint, operation_id="resumeEndpoint", summary="Resume an endpoint"
)
async def resume(endpoint_id: EndpointId, gateway: Parts, caller: Operator) -> Any:
    """Starts attempts again, also where the gateway has disabled the endpoint. What waited goes out now."""
    async with changing(gateway, caller, CONFIGURATION, OUTBOX, DELIVERIES) as change:
        row = await find(change.connection, caller, endpoint_id, lock=True)
        if row["state"] != "enabled":
            row = await _set_state(gateway, change, row, "enabled", None)
        return await shown(gateway.vault, change.connection, row)


@router.post(
    "/{endpoint_id}/test",
    status_code=202,
    response_model=QueuedDelivery,
    operation_id="testEndpoint",
    summary="Send a test event to an endpoint",
)
async def send_test(
    endpoint_id: EndpointId,
    gateway: Parts,
    caller: Operator,
    body: Annotated[TestSend | None, Body()] = None,
) -> Any:
    """Sends an event type's example, signed and retried like any other event, to this endpoint only."""
    wanted = body or TestSend()
    async with changing(gateway, caller, OUTBOX) as change:
        row = await find(change.connection, caller, endpoint_id, lock=True)
        if row["state"] == "disabled":
            raise conflict("The endpoint is disabled: resume it first.")
        known = await known_type(gateway, change.connection, caller, wanted.event_type)
        if known is None:
            remedy = "Give one of the types that GET /v1/event-types lists."
            raise invalid(Fault("unknown_event_type", remedy, pointer="/event_type"))
        event = prepare(gateway.vault, caller.tenant_id, _example_of(known, row), None)
        delivery_id = await replays.send_only_to(change.connection, event, endpoint_id)
        change.note(
            "endpoint.tested",
            ids.render(ids.ENDPOINT, endpoint_id),
            after={"type": known.name, "delivery_id": ids.render(ids.DELIVERY, delivery_id)},
        )
    return {"id": delivery_id, "event_id": event.id, "endpoint_id": endpoint_id}


@router.get(
    "/{endpoint_id}/held-keys",
    response_model=HeldKeyPage,
    operation_id="listHeldKeys",
    summary="List an endpoint's held ordering keys",
)
async def held_keys(endpoint_id: EndpointId, query: Annotated[Paging, Query()], gateway: Parts, caller: Reader) -> Any:
    """Lists the ordering keys of a strict endpoint that wait, since a delivery of theirs is dead."""
    async with gateway.database.begin() as connection:
        await find(connection, caller, endpoint_id)
        rows = await endpoints.held_page(
            connection, endpoint_id, after=read_number_cursor(query.cursor), limit=query.limit + 1
        )
    items, next_cursor = next_page(rows, query.limit, lambda row: int(row["ordering_key"]))
    return {
        "items": [{**row, "ordering_key": str(row["ordering_key"])} for row in items],
        "next_cursor": next_cursor,
    }


@router.post(
    "/{endpoint_id}/held-keys/{ordering_key}/release",
    response_model=Endpoint,
    operation_id="releaseHeldKey",
    summary="Let a held ordering key go on",
)
async def release_key(
    endpoint_id: EndpointId,
    ordering_key: Annotated[str, Path(pattern=r"^-?[0-9]{1,19}$", examples=["-4235713561732571313"])],
    gateway: Parts,
    caller: Operator,
) -> Any:
    """Gives up the dead delivery and sends what waits behind it. Replay the dead one first if the partner needs it."""
    number = int(ordering_key)
    async with changing(gateway, caller, DELIVERIES) as change:
        row = await find(change.connection, caller, endpoint_id, lock=True)
        if not -(2**63) <= number < 2**63 or not await endpoints.release_key(
            change.connection, caller.tenant_id, endpoint_id, number
        ):
            raise not_found("held ordering key")
        change.note(
            "endpoint.key_released", ids.render(ids.ENDPOINT, endpoint_id), after={"ordering_key": ordering_key}
        )
        return await shown(gateway.vault, change.connection, row)


async def _set_state(gateway: Gateway, change: Change, row: RowMapping, state: str, reason: str | None) -> RowMapping:
    """Moves the endpoint, and tells whoever subscribes to the gateway's own events."""
    caller, endpoint_id = change.caller, row["id"]
    moved = await endpoints.set_state(change.connection, caller.tenant_id, endpoint_id, state, reason)
    done = "resumed" if state == "enabled" else state
    change.note(
        f"endpoint.{done}",
        ids.render(ids.ENDPOINT, endpoint_id),
        before={"state": row["state"], "state_reason": row["state_reason"]},
        after={"state": state},
    )
    about = {**_names(row["id"], row["subscriber_id"]), "reason": reason}
    await announce(await driver_of(change.connection), gateway.vault, caller.tenant_id, f"endpoint_{done}", about)
    return moved


def _example_of(known: EventType, endpoint: RowMapping) -> NewEvent:
    example = dict(known.example)
    if known.source == "gateway":
        example |= _names(endpoint["id"], endpoint["subscriber_id"])
    return NewEvent(type=known.name, data=msgspec.json.encode(example), parsed=example)


def _names(endpoint_id: UUID, subscriber_id: UUID) -> dict[str, Any]:
    return {
        "endpoint_id": ids.render(ids.ENDPOINT, endpoint_id),
        "subscriber_id": ids.render(ids.SUBSCRIBER, subscriber_id),
    }
