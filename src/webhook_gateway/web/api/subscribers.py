"""``/v1/subscribers``: partner organisations."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlalchemy.exc import IntegrityError

from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import subscribers
from webhook_gateway.store.notifications import CONFIGURATION
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import Problem, conflict, not_found

from .dependencies import Parts, changing, needs, next_page, read_cursor
from .schemas.shapes import Paging
from .schemas.subscribers import NewSubscriber, Subscriber, SubscriberChanges, SubscriberPage
from .schemas.typed_ids import SubscriberId

router = APIRouter(prefix="/v1/subscribers", tags=["Subscribers"])

Reader = Annotated[Caller, needs(Scope.ENDPOINTS_READ)]
Writer = Annotated[Caller, needs(Scope.ENDPOINTS_WRITE, whole_tenant=True)]


@router.post(
    "", status_code=201, response_model=Subscriber, operation_id="createSubscriber", summary="Add a subscriber"
)
async def create(body: NewSubscriber, gateway: Parts, caller: Writer) -> Any:
    """Adds a partner organisation. Its name is its own among the hospital's subscribers."""
    async with changing(gateway, caller) as change:
        row = await subscribers.create(change.connection, caller.tenant_id, **body.model_dump())
        if row is None:
            raise _name_taken()
        change.note("subscriber.created", ids.render(ids.SUBSCRIBER, row["id"]), after=body.model_dump())
    return row


@router.get("", response_model=SubscriberPage, operation_id="listSubscribers", summary="List subscribers")
async def every(query: Annotated[Paging, Query()], gateway: Parts, caller: Reader) -> Any:
    """Lists subscribers, newest first. A subscriber's own key sees that one only."""
    async with gateway.database.begin() as connection:
        rows = await subscribers.page(
            connection,
            caller.tenant_id,
            only=caller.subscriber_id,
            before=read_cursor(query.cursor),
            limit=query.limit + 1,
        )
    items, next_cursor = next_page(rows, query.limit, lambda row: row["id"])
    return {"items": items, "next_cursor": next_cursor}


@router.get(
    "/{subscriber_id}", response_model=Subscriber, operation_id="getSubscriber", summary="Look at one subscriber"
)
async def one(subscriber_id: SubscriberId, gateway: Parts, caller: Reader) -> Any:
    """Shows one subscriber."""
    async with gateway.database.begin() as connection:
        row = await subscribers.get(connection, caller.tenant_id, subscriber_id)
    if row is None or caller.subscriber_id not in (None, subscriber_id):
        raise _unknown()
    return row


@router.patch(
    "/{subscriber_id}", response_model=Subscriber, operation_id="changeSubscriber", summary="Change a subscriber"
)
async def change_one(subscriber_id: SubscriberId, body: SubscriberChanges, gateway: Parts, caller: Writer) -> Any:
    """Changes what the body holds and leaves the rest."""
    changes = body.model_dump(exclude_unset=True)
    try:
        async with changing(gateway, caller) as change:
            before = await subscribers.get(change.connection, caller.tenant_id, subscriber_id)
            row = before and await subscribers.change(change.connection, caller.tenant_id, subscriber_id, changes)
            if before is None or row is None:
                raise _unknown()
            change.note(
                "subscriber.changed",
                ids.render(ids.SUBSCRIBER, subscriber_id),
                before={name: before[name] for name in changes},
                after=changes,
            )
    except IntegrityError:
        raise _name_taken() from None
    return row


@router.delete(
    "/{subscriber_id}",
    status_code=204,
    response_class=Response,
    operation_id="deleteSubscriber",
    summary="Delete a subscriber",
)
async def delete(subscriber_id: SubscriberId, gateway: Parts, caller: Writer) -> None:
    """Deletes a subscriber with its endpoints and keys, and cancels its open deliveries. What was sent stays known."""
    async with changing(gateway, caller, CONFIGURATION) as change:
        gone = await subscribers.delete(change.connection, caller.tenant_id, subscriber_id)
        if gone is None:
            raise _unknown()
        change.note("subscriber.deleted", ids.render(ids.SUBSCRIBER, subscriber_id), before=gone)
    gateway.callers.forget()


def _unknown() -> Problem:
    return not_found("subscriber")


def _name_taken() -> Problem:
    return conflict("Another subscriber has this name. Choose another name, or use that subscriber.")
