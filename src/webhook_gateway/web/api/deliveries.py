"""``/v1/deliveries``: what is on its way, what became of it, and doing it again."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.crypto.vault import KeyMissing, Tampered
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import deliveries, endpoints, keyring, replays, reports
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.notifications import DELIVERIES, OUTBOX
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import conflict, not_found

from .dependencies import Gateway, Parts, changing, needs, next_page, read_cursor
from .schemas.deliveries import Delivery, DeliveryDetail, DeliveryPage, DeliveryQuery, KeptResponses, QueuedDelivery
from .schemas.typed_ids import DeliveryId

router = APIRouter(prefix="/v1/deliveries", tags=["Deliveries"])

Reader = Annotated[Caller, needs(Scope.DELIVERIES_READ)]
Opener = Annotated[Caller, needs(Scope.PAYLOAD_READ)]
Operator = Annotated[Caller, needs(Scope.DELIVERIES_WRITE)]

CANCELLED_BY_HAND = "by_hand"


@router.get("", response_model=DeliveryPage, operation_id="listDeliveries", summary="List deliveries")
async def every(query: Annotated[DeliveryQuery, Query()], gateway: Parts, caller: Reader) -> Any:
    """Lists open and finished deliveries, newest first."""
    asked = query.model_dump(exclude={"cursor", "limit"})
    wanted = reports.Filter(caller.tenant_id, caller.subscriber_id, **asked)
    async with gateway.database.begin() as connection:
        rows = await reports.deliveries_page(
            connection, wanted, before=read_cursor(query.cursor), limit=query.limit + 1
        )
    items, next_cursor = next_page(rows, query.limit, lambda row: row["id"])
    return {"items": items, "next_cursor": next_cursor}


@router.get("/{delivery_id}", response_model=DeliveryDetail, operation_id="getDelivery", summary="Look at one delivery")
async def one(delivery_id: DeliveryId, gateway: Parts, caller: Reader) -> Any:
    """Shows one delivery with every attempt: when, how far it got, and what came back."""
    async with gateway.database.begin() as connection:
        row = await _find(connection, caller, delivery_id)
        attempts = await reports.attempts_of(connection, caller.tenant_id, delivery_id)
    return {**row, "attempts": [{**attempt, "response_sha256": _hex(attempt)} for attempt in attempts]}


@router.get(
    "/{delivery_id}/responses",
    response_model=KeptResponses,
    operation_id="getResponses",
    summary="Read what a partner answered",
)
async def responses(delivery_id: DeliveryId, gateway: Parts, caller: Opener) -> Any:
    """Shows what is kept of the answers to a delivery. They may be about a patient, so every look is audited."""
    await keyring.fill(gateway.database, gateway.vault)  # the newest answers may be sealed with a newer key
    async with changing(gateway, caller) as change:
        await _find(change.connection, caller, delivery_id)
        rows = await reports.responses_of(change.connection, caller.tenant_id, delivery_id)
        change.note("responses.read", ids.render(ids.DELIVERY, delivery_id), after={"count": len(rows)})
    return {"items": [{**row, "excerpt": _open(gateway, caller, row)} for row in rows]}


@router.post(
    "/{delivery_id}/replay",
    status_code=202,
    response_model=QueuedDelivery,
    operation_id="replayDelivery",
    summary="Send a finished delivery again",
)
async def replay(delivery_id: DeliveryId, gateway: Parts, caller: Operator) -> Any:
    """Sends the same event to the same endpoint as a new delivery: same `webhook-id`, same body, outside any order."""
    async with changing(gateway, caller, OUTBOX) as change:
        row = await _find(change.connection, caller, delivery_id)
        if row["state"] not in reports.FINAL_STATES:
            raise conflict(f"The delivery is {row['state']}: only one that is finished can be replayed.")
        endpoint = await endpoints.get(change.connection, caller.tenant_id, row["endpoint_id"], lock=True)
        if endpoint is None:
            raise conflict("The delivery's endpoint was deleted, so there is nowhere to send it.")
        if endpoint["state"] == "disabled":
            raise conflict("The delivery's endpoint is disabled: resume it first.")
        if await reports.event(change.connection, caller.tenant_id, row["event_id"]) is None:
            raise conflict("The event's body is no longer kept, so it can't be sent again.")
        new = await replays.replay(
            change.connection,
            caller.tenant_id,
            event_id=row["event_id"],
            type=row["type"],
            endpoint_id=row["endpoint_id"],
            reason="replay",
        )
        change.note(
            "delivery.replayed",
            ids.render(ids.DELIVERY, delivery_id),
            after={"delivery_id": ids.render(ids.DELIVERY, new)},
        )
    return {"id": new, "event_id": row["event_id"], "endpoint_id": row["endpoint_id"]}


@router.post(
    "/{delivery_id}/cancel", response_model=Delivery, operation_id="cancelDelivery", summary="Cancel an open delivery"
)
async def cancel(delivery_id: DeliveryId, gateway: Parts, caller: Operator) -> Any:
    """Gives a pending delivery up for good. The next one of its ordering key goes on."""
    async with changing(gateway, caller, DELIVERIES) as change:
        row = await _find(change.connection, caller, delivery_id)
        if row["state"] in reports.FINAL_STATES:
            raise conflict(f"The delivery is {row['state']} already.")
        if row["waiting_for"] == "fan_out":
            raise conflict("The delivery has not left the outbox yet: cancel it in a moment.")
        gone = await deliveries.cancel(
            await driver_of(change.connection),
            tenant_id=caller.tenant_id,
            ids=[delivery_id],
            endpoint_id=None,
            reason=CANCELLED_BY_HAND,
        )
        if not gone:
            raise conflict("The delivery is being sent just now. Look at it again when this attempt is over.")
        change.note("delivery.cancelled", ids.render(ids.DELIVERY, delivery_id), before={"attempt": row["attempt"]})
        return await _find(change.connection, caller, delivery_id)


async def _find(connection: AsyncConnection, caller: Caller, delivery_id: UUID) -> RowMapping:
    """The delivery, if the caller may see it.

    Raises:
        Problem: 404.
    """
    row = await reports.delivery(connection, reports.Filter(caller.tenant_id, caller.subscriber_id), delivery_id)
    if row is None:
        raise not_found("delivery")
    return row


def _open(gateway: Gateway, caller: Caller, row: RowMapping) -> str | None:
    try:
        opened = gateway.vault.open(caller.tenant_id, "attempts", row["id"], row["response_excerpt"])
    except (KeyMissing, Tampered):
        return None
    return opened.decode(errors="replace")


def _hex(attempt: RowMapping) -> str | None:
    sha256: bytes | None = attempt["response_sha256"]
    return None if sha256 is None else sha256.hex()
