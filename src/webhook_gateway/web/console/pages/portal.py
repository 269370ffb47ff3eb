"""A partner's portal, as the hospital gives it: links that open it, and a look at it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from starlette.responses import RedirectResponse, Response

from webhook_gateway.operations import portal
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.web.api import portal_links, subscribers
from webhook_gateway.web.api.schemas.portal_links import NewPortalLink
from webhook_gateway.web.console.frame import Visit, action
from webhook_gateway.web.console.signed_in import PATH, PORTAL
from webhook_gateway.web.errors import granted, not_found

from .partners import one

KEPT = "If you have not kept the link, revoke it at the partner, under “Its portal”, and make another."


@action("/partners/{subscriber_id}/portal-links", Scope.ADMIN, whole_tenant=True, form=one, once=KEPT)
async def create(visit: Visit, subscriber_id: UUID) -> Response:
    given: dict[str, Any] = {"capabilities": visit.form.lines("capabilities")}
    if minutes := visit.form.number("minutes"):
        given["expires_in_seconds"] = int(60 * minutes)
    body = NewPortalLink.model_validate(given)
    owner = await subscribers.one(subscriber_id, visit.gateway, visit.caller)
    made = await portal_links.create(subscriber_id, body, visit.gateway, visit.caller, visit.request)
    return visit.show("portal_link.html", f"Link to the portal of {owner['name']}", 201, made=made, owner=owner)


@action("/partners/{subscriber_id}/portal-links/{session_id}/revoke", Scope.ADMIN, whole_tenant=True)
async def revoke(visit: Visit, subscriber_id: UUID, session_id: UUID) -> Response:
    await portal_links.revoke(subscriber_id, session_id, visit.gateway, visit.caller)
    return visit.go(f"/partners/{ids.render(ids.SUBSCRIBER, subscriber_id)}", "link")


@action("/partners/{subscriber_id}/view", Scope.ENDPOINTS_READ, whole_tenant=True)
async def view(visit: Visit, subscriber_id: UUID) -> Response:
    assert visit.session is not None
    async with visit.changing() as change:
        granted(await portal.view(change, visit.session.id, subscriber_id))
    return RedirectResponse(PORTAL, 303)


@action("/back", by=Capability.VIEW)
async def back(visit: Visit) -> Response:
    """To the console, from where somebody looked at the portal."""
    session, subscriber_id = visit.session, visit.caller.subscriber_id
    if session is None or session.viewing is None or subscriber_id is None:
        raise not_found("look at a portal")
    async with visit.changing() as change:
        await portal.leave(change, session.id, subscriber_id)
    return RedirectResponse(f"{PATH}/partners/{ids.render(ids.SUBSCRIBER, subscriber_id)}", 303)
