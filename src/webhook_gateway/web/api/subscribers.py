"""``/v1/subscribers``: partner organisations."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlalchemy import RowMapping

from webhook_gateway.operations import subscribers
from webhook_gateway.operations.change import changing
from webhook_gateway.operations.content import meaning
from webhook_gateway.operations.refusals import NotFound
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.rules.views import view_of
from webhook_gateway.store import subscribers as stored
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import granted

from .dependencies import Parts, needs, page_of
from .schemas.shapes import Page, Paging
from .schemas.subscribers import NewSubscriber, Subscriber, SubscriberChanges
from .schemas.typed_ids import SubscriberId

router = APIRouter(prefix="/v1/subscribers", tags=["Subscribers"])

Reader = Annotated[Caller, needs(Scope.ENDPOINTS_READ)]
Writer = Annotated[Caller, needs(Scope.ENDPOINTS_WRITE, whole_tenant=True)]


@router.post(
    "", status_code=201, response_model=Subscriber, operation_id="createSubscriber", summary="Add a subscriber"
)
async def create(body: NewSubscriber, gateway: Parts, caller: Writer) -> Any:
    """Adds a partner organisation, and says what it may have. Name and `external_id` are its own among subscribers."""
    async with changing(gateway.database, caller) as change:
        return shown(granted(await subscribers.create(change, gateway.catalogue, body.model_dump())))


@router.get("", response_model=Page[Subscriber], operation_id="listSubscribers", summary="List subscribers")
async def every(query: Annotated[Paging, Query()], gateway: Parts, caller: Reader) -> Any:
    """Lists subscribers, newest first. A subscriber's own key sees that one only."""
    return await page_of(
        gateway, query, partial(stored.page, tenant_id=caller.tenant_id, only=caller.subscriber_id), show=shown
    )


@router.get(
    "/{subscriber_id}", response_model=Subscriber, operation_id="getSubscriber", summary="Look at one subscriber"
)
async def one(subscriber_id: SubscriberId, gateway: Parts, caller: Reader) -> Any:
    """Shows one subscriber."""
    async with gateway.database.begin() as connection:
        row = await stored.get(connection, caller.tenant_id, subscriber_id)
    found = NotFound.SUBSCRIBER if row is None or caller.subscriber_id not in (None, subscriber_id) else row
    return shown(granted(found))


@router.patch(
    "/{subscriber_id}", response_model=Subscriber, operation_id="changeSubscriber", summary="Change a subscriber"
)
async def change_one(subscriber_id: SubscriberId, body: SubscriberChanges, gateway: Parts, caller: Writer) -> Any:
    """Changes what the body holds and leaves the rest. What it may have counts within two seconds, also for what waits.

    `409` with their count where open deliveries would be cut off, unless `cancel_open` is true: then they are cancelled
    (`not_permitted`), those under way end and aren't tried again, and their ordering keys go on.
    """
    async with changing(gateway.database, caller) as change:
        given = body.model_dump(exclude_unset=True)
        return shown(granted(await subscribers.change_one(change, gateway.catalogue, subscriber_id, given)))


@router.delete(
    "/{subscriber_id}",
    status_code=204,
    response_class=Response,
    operation_id="deleteSubscriber",
    summary="Delete a subscriber",
)
async def delete(subscriber_id: SubscriberId, gateway: Parts, caller: Writer, force: bool = False) -> None:
    """Deletes a subscriber and its keys. What was sent stays known.

    `409` while it has endpoints, unless `force` is true: then they go, too, and their open deliveries are cancelled.
    """
    async with changing(gateway.database, caller) as change:
        granted(await subscribers.delete(change, gateway.vault, subscriber_id, force=force))
    gateway.callers.forget()


def shown(row: RowMapping) -> dict[str, Any]:
    return {**row, "content": meaning(view_of(row["content"]))}
