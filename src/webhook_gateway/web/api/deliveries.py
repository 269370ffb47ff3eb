"""``/v1/deliveries``: what is on its way, what became of it, and doing it again."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import RowMapping

from webhook_gateway.crypto.vault import KeyMissing, Tampered
from webhook_gateway.operations import deliveries, explain
from webhook_gateway.operations.change import changing
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import keyring, lists, reports
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import granted

from .dependencies import Gateway, Parts, needs, page_of
from .schemas.deliveries import (
    Cancelled,
    Cancelling,
    Delivery,
    DeliveryDetail,
    DeliveryQuery,
    KeptResponses,
    QueuedDelivery,
)
from .schemas.shapes import Page
from .schemas.typed_ids import DeliveryId

router = APIRouter(prefix="/v1/deliveries", tags=["Deliveries"])

Reader = Annotated[Caller, needs(Scope.DELIVERIES_READ)]
Opener = Annotated[Caller, needs(Scope.PAYLOAD_READ)]
Operator = Annotated[Caller, needs(Scope.DELIVERIES_WRITE)]


@router.get("", response_model=Page[Delivery], operation_id="listDeliveries", summary="List deliveries")
async def every(query: Annotated[DeliveryQuery, Query()], gateway: Parts, caller: Reader) -> Any:
    """Lists open and finished deliveries, newest first. A page may be short, or empty, before the last one."""
    asked = query.model_dump(exclude={"cursor", "limit"})
    wanted = reports.Filter(caller.tenant_id, caller.subscriber_id, **asked)
    return await page_of(gateway, query, partial(lists.deliveries_page, wanted=wanted), of_many=True)


@router.get("/{delivery_id}", response_model=DeliveryDetail, operation_id="getDelivery", summary="Look at one delivery")
async def one(delivery_id: DeliveryId, gateway: Parts, caller: Reader) -> Any:
    """Shows one delivery: in a sentence how it stands, and every attempt: when, how far it got, and what came back."""
    async with gateway.database.begin() as connection:
        row = granted(await explain.delivery(connection, caller, delivery_id))
        attempts = await reports.attempts_of(connection, caller.tenant_id, delivery_id)
    return {**row, "attempts": [shown_attempt(attempt) for attempt in attempts]}


@router.get(
    "/{delivery_id}/responses",
    response_model=KeptResponses,
    operation_id="getResponses",
    summary="Read what a partner answered",
)
async def responses(delivery_id: DeliveryId, gateway: Parts, caller: Opener) -> Any:
    """Shows what is kept of the answers to a delivery. They may be about a patient, so every look is audited."""
    await keyring.fill(gateway.database, gateway.vault)  # the newest answers may be sealed with a newer key
    async with changing(gateway.database, caller) as change:
        granted(await deliveries.find(change.connection, caller, delivery_id))
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
    async with changing(gateway.database, caller) as change:
        return granted(await deliveries.replay(change, delivery_id))


@router.post(
    "/{delivery_id}/cancel", response_model=Delivery, operation_id="cancelDelivery", summary="Cancel an open delivery"
)
async def cancel(delivery_id: DeliveryId, gateway: Parts, caller: Operator) -> Any:
    """Gives a pending delivery up for good. The next one of its ordering key goes on."""
    async with changing(gateway.database, caller) as change:
        return granted(await deliveries.cancel(change, delivery_id))


@router.post("/cancel", response_model=Cancelled, operation_id="cancelDeliveries", summary="Cancel a backlog")
async def cancel_many(body: Cancelling, gateway: Parts, caller: Operator) -> Any:
    """Gives up what waits and nobody is sending just now, 10,000 at a time; with `until`, nothing that comes later."""
    wanted = body.model_dump(exclude={"dry_run"}, exclude_none=True)
    async with changing(gateway.database, caller) as change:
        count, more = granted(await deliveries.cancel_many(change, wanted, dry_run=body.dry_run))
    return {"count": count, "more": more}


@router.post(
    "/{delivery_id}/try-now",
    response_model=Delivery,
    operation_id="tryDeliveryNow",
    summary="Try a pending delivery now",
)
async def try_now(delivery_id: DeliveryId, gateway: Parts, caller: Operator) -> Any:
    """Makes it due now, also where its endpoint is left alone or has asked for silence: one request finds out.

    It is an extra attempt, which isn't counted: if it fails, the delivery is due when it was before. One that is being
    sent, or waits behind another of its ordering key, is left alone.
    """
    async with changing(gateway.database, caller) as change:
        return granted(await deliveries.try_now(change, delivery_id))


def _open(gateway: Gateway, caller: Caller, row: RowMapping) -> str | None:
    try:
        opened = gateway.vault.open(caller.tenant_id, "attempts", row["id"], row["response_excerpt"])
    except (KeyMissing, Tampered):
        return None
    return opened.decode(errors="replace")


def shown_attempt(attempt: RowMapping) -> dict[str, Any]:
    digest: bytes | None = attempt["response_digest"]
    return {**attempt, "response_digest": None if digest is None else digest.hex()}
