"""``GET /v1/events``: what was accepted, and what became of it. The routes that accept are in `web/api/events.py`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.crypto.vault import KeyMissing
from webhook_gateway.operations import disclosures, explain
from webhook_gateway.operations.change import changing
from webhook_gateway.operations.content import cut_for
from webhook_gateway.operations.search import posted_with
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import keyring, lists, reports
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import Problem, granted, not_found

from .dependencies import Gateway, Parts, needs, page_of, read_cursor, write_cursor
from .schemas.events import Event, EventAtEndpoint, EventDetail, EventQuery, Payload
from .schemas.shapes import Page, Paging
from .schemas.typed_ids import EventId

router = APIRouter(prefix="/v1/events", tags=["Events"])

Reader = Annotated[Caller, needs(Scope.DELIVERIES_READ)]
WholeReader = Annotated[Caller, needs(Scope.DELIVERIES_READ, whole_tenant=True)]
Opener = Annotated[Caller, needs(Scope.PAYLOAD_READ)]

MOST_DELIVERIES = 200


@router.get("", response_model=Page[Event], operation_id="listEvents", summary="List events")
async def every(query: Annotated[EventQuery, Query()], gateway: Parts, caller: WholeReader) -> Any:
    """Lists accepted events, newest first, without their bodies. A page may be short, or empty, before the last one.

    A subscriber's key asks for deliveries instead.
    """
    asked = query.model_dump(exclude={"cursor", "limit", "idempotency_key"})
    if query.idempotency_key is not None:
        asked["only"] = await posted_with(gateway.database, gateway.vault, caller.tenant_id, query.idempotency_key)
    return await page_of(gateway, query, partial(lists.events_page, tenant_id=caller.tenant_id, **asked), of_many=True)


@router.get("/{event_id}", response_model=EventDetail, operation_id="getEvent", summary="Look at one event")
async def one(event_id: EventId, gateway: Parts, caller: Reader) -> Any:
    """Shows whether an event was fanned out, and its deliveries. Its body is another matter.

    `410` where retention has dropped the event: `GET /v1/deliveries?event_id=…` still says what became of it.
    """
    async with gateway.database.reading() as connection:
        row = await reports.event(connection, caller.tenant_id, event_id)
        deliveries = await _deliveries_of(connection, caller, event_id, MOST_DELIVERIES)
    if row is None or (caller.subscriber_id is not None and not deliveries):
        raise _gone() if deliveries else _unknown()
    told = {"to": row["addressees"], "size": row["size"]}
    return {
        **row,
        **(told if caller.subscriber_id is None else dict.fromkeys(told)),
        "fanout": "pending" if row["in_outbox"] else "done",
        "matched": len({delivery["endpoint_id"] for delivery in deliveries if delivery["reason"] is None}),
        "explanation": explain.event(row, deliveries),
        "deliveries": deliveries,
    }


@router.get(
    "/{event_id}/endpoints",
    response_model=Page[EventAtEndpoint],
    operation_id="explainEvent",
    summary="Say of each endpoint why it has an event, or has not",
)
async def by_endpoint(event_id: EventId, query: Annotated[Paging, Query()], gateway: Parts, caller: Reader) -> Any:
    """Lists endpoints, newest first: how the event's latest delivery to it stands, or why there is none, by what is set
    up now. Once the event is no longer kept only its deliveries are listed. A page may be short, or empty, before the
    last one.

    With `payload:read` a filter is judged anew, which stands in the audit log. Without, it is told what the filter
    asks for, if it is from before the event.
    """
    async with changing(gateway.database, caller) as change:
        before = read_cursor(query.cursor) or explain.NEWEST
        items, reached = granted(
            await explain.by_endpoint(change, gateway.vault, event_id, before=before, limit=query.limit)
        )
    return {"items": items, "next_cursor": reached and write_cursor(reached)}


@router.get(
    "/{event_id}/payload",
    response_class=Response,
    operation_id="getPayload",
    summary="Read an event's body",
    responses={200: {"model": Payload, "description": "The body, byte for byte as partners get it."}},
)
async def payload(event_id: EventId, gateway: Parts, caller: Opener) -> Response:
    """Shows an event's body, to a subscriber's key as much as that may have. Every look stands in the audit log."""
    return Response(await read_payload(gateway, caller, event_id), media_type="application/json")


async def read_payload(gateway: Gateway, caller: Caller, event_id: UUID, reason: str | None = None) -> bytes:
    """The body, as much of it as the caller may have. The look is audited, with the reason if there is one.

    Raises:
        Problem: 404, or 410 where it is no longer kept.
    """
    async with changing(gateway.database, caller) as change:
        sealed = await reports.body(change.connection, caller.tenant_id, event_id)
        if sealed is None:
            raise _gone() if await _deliveries_of(change.connection, caller, event_id, 1) else _unknown()
        if not await _may_see(change.connection, caller, event_id):
            raise _unknown()
        body = await _open(gateway, caller, event_id, sealed)
        if caller.subscriber_id is not None:
            row = await reports.event(change.connection, caller.tenant_id, event_id)
            event_type = "" if row is None else row["type"]
            allowed = await cut_for(change.connection, gateway.catalogue, caller, event_type, body)
            if allowed is None:
                raise _unknown()
            body = allowed
        await disclosures.note_look(change, gateway.vault, event_id, body, reason)
    return body


async def _may_see(connection: AsyncConnection, caller: Caller, event_id: UUID) -> bool:
    """A subscriber's key sees what was sent to that subscriber."""
    return caller.subscriber_id is None or bool(await _deliveries_of(connection, caller, event_id, 1))


async def _open(gateway: Gateway, caller: Caller, event_id: UUID, sealed: bytes) -> bytes:
    try:
        return gateway.vault.open(caller.tenant_id, "events", event_id, sealed)
    except KeyMissing:
        # A newer data key may have been made by another process.
        await keyring.fill(gateway.database, gateway.vault)
        return gateway.vault.open(caller.tenant_id, "events", event_id, sealed)


async def _deliveries_of(connection: AsyncConnection, caller: Caller, event_id: UUID, limit: int) -> list[Any]:
    wanted = reports.Filter(caller.tenant_id, caller.subscriber_id, event_id=event_id)
    found, _ = await lists.deliveries_page(connection, wanted, before=None, limit=limit)
    return found


def _unknown() -> Problem:
    return not_found("event")


def _gone() -> Problem:
    remedy = "GET /v1/deliveries?event_id=… still says what became of it."
    return Problem(410, "gone", f"The event was accepted, and its body is no longer kept. {remedy}")
