"""``/v1/subscribers/{subscriber_id}/portal-links``: links by which a partner opens its portal."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from webhook_gateway.operations import portal
from webhook_gateway.operations.change import changing
from webhook_gateway.operations.refusals import NotFound
from webhook_gateway.operations.sessions import link
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import sessions, subscribers
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import granted

from .dependencies import Parts, needs, page_of
from .schemas.portal_links import CreatedPortalLink, NewPortalLink, PortalLink
from .schemas.shapes import Page, Paging
from .schemas.typed_ids import SessionId, SubscriberId

router = APIRouter(prefix="/v1/subscribers/{subscriber_id}/portal-links", tags=["Subscribers"])

Admin = Annotated[Caller, needs(Scope.ADMIN, whole_tenant=True)]


@router.post(
    "",
    status_code=201,
    response_model=CreatedPortalLink,
    operation_id="createPortalLink",
    summary="Make a link to a subscriber's portal",
)
async def create(
    subscriber_id: SubscriberId, body: NewPortalLink, gateway: Parts, caller: Admin, request: Request
) -> Any:
    """Makes a link that opens the portal once. The answer holds it, and it is never shown again.

    It shows deliveries, problems and endpoints of this subscriber and no payload, and lets its reader do what its
    capabilities say: change endpoints (`endpoint`), rotate secrets (`secret`), send tests (`test`), send again what has
    ended (`replay`). The session that it begins ends after 30 minutes without use and after 12 hours in any case.
    """
    async with changing(gateway.database, caller) as change:
        row, code = granted(await portal.create(change, subscriber_id, body.capabilities, body.expires_in_seconds))
    address = gateway.settings.public_url or str(request.base_url)
    return {**row, "url": link(address, code, "portal")}


@router.get(
    "",
    response_model=Page[PortalLink],
    operation_id="listPortalLinks",
    summary="List links to a subscriber's portal",
)
async def every(subscriber_id: SubscriberId, query: Annotated[Paging, Query()], gateway: Parts, caller: Admin) -> Any:
    """Lists links, newest first, for 30 days also those that have ended."""
    async with gateway.database.begin() as connection:
        granted(await subscribers.get(connection, caller.tenant_id, subscriber_id) or NotFound.SUBSCRIBER)
    fetch = partial(sessions.links, tenant_id=caller.tenant_id, subscriber_id=subscriber_id)
    return await page_of(gateway, query, fetch)


@router.post(
    "/{session_id}/revoke",
    response_model=PortalLink,
    operation_id="revokePortalLink",
    summary="Revoke a link to a subscriber's portal",
)
async def revoke(subscriber_id: SubscriberId, session_id: SessionId, gateway: Parts, caller: Admin) -> Any:
    """Ends a link for good, and at once the session that it has begun. One that has ended stays as it is."""
    async with changing(gateway.database, caller) as change:
        return granted(await portal.revoke(change, subscriber_id, session_id))
