"""Events: what was accepted, who got it, and its body behind a reason."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from starlette.responses import Response

from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.store import endpoints, lists, subscribers
from webhook_gateway.web.api.dependencies import page_of
from webhook_gateway.web.api.event_reports import by_endpoint, read_payload
from webhook_gateway.web.api.event_reports import one as event
from webhook_gateway.web.api.schemas.events import EventQuery
from webhook_gateway.web.api.schemas.shapes import Paging
from webhook_gateway.web.console.frame import PER_PAGE, Visit, action, page
from webhook_gateway.web.errors import Problem


@page("/events", Scope.DELIVERIES_READ, whole_tenant=True)
async def every(visit: Visit) -> Response:
    query = EventQuery(type=visit.asked("type"), cursor=visit.asked("cursor"), limit=PER_PAGE)
    asked: dict[str, Any] = {"type": query.type, "since": visit.moment("since"), "until": visit.moment("until")}
    fetch = partial(lists.events_page, tenant_id=visit.caller.tenant_id, **asked)
    found = await page_of(visit.gateway, query, fetch, of_many=True)
    return visit.show("events.html", "Events", rows=found["items"], cursor=found["next_cursor"])


@page("/events/{event_id}", Scope.DELIVERIES_READ, by=Capability.VIEW)
async def one(visit: Visit, event_id: UUID) -> Response:
    row = await _kept(visit, event_id)
    # Nobody's look at this page is to open the body: filters are told, not judged anew.
    reader = replace(visit.caller, scopes=visit.caller.scopes - {Scope.PAYLOAD_READ})
    query = Paging(cursor=visit.asked("cursor"), limit=PER_PAGE)
    found = await by_endpoint(event_id, query, visit.gateway, reader)
    async with visit.reading() as connection:
        deliveries = row["deliveries"] if row else []
        shown = {one["endpoint_id"] for one in (*deliveries, *found["items"])}
        about = await endpoints.called(connection, visit.caller.tenant_id, shown)
        named = await subscribers.names(connection, visit.caller.tenant_id, (row and row.get("to")) or ())
    context = {"row": row, "about": about, "named": named, "told": found["items"], "cursor": found["next_cursor"]}
    context |= {"event_id": event_id, "deliveries": deliveries}
    return visit.show("event.html", f"Event {ids.render(ids.EVENT, event_id)}", **context)


async def _kept(visit: Visit, event_id: UUID) -> dict[str, Any] | None:
    """None where its day has gone, and only its deliveries are known."""
    try:
        found: dict[str, Any] = await event(event_id, visit.gateway, visit.caller)
    except Problem as problem:
        if problem.status_code != 410:
            raise
        return None
    return found


@action("/events/{event_id}/payload", Scope.PAYLOAD_READ, form=one)
async def payload(visit: Visit, event_id: UUID) -> Response:
    body = await read_payload(visit.gateway, visit.caller, event_id, visit.reason())
    return visit.show("payload.html", f"Body of {ids.render(ids.EVENT, event_id)}", event_id=event_id, body=body)
