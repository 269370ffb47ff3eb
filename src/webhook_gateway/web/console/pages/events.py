"""Events: what was accepted, who got it, and its body behind a reason."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from starlette.responses import Response

from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.labels import is_label
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import endpoints, lists, subscribers
from webhook_gateway.web.api.dependencies import page_of
from webhook_gateway.web.api.event_reports import by_endpoint, read_payload
from webhook_gateway.web.api.event_reports import one as event
from webhook_gateway.web.api.schemas.events import EventQuery
from webhook_gateway.web.api.schemas.shapes import Paging
from webhook_gateway.web.console.frame import PER_PAGE, Visit, action, page
from webhook_gateway.web.errors import invalid


@page("/events", Scope.DELIVERIES_READ, whole_tenant=True)
async def every(visit: Visit) -> Response:
    query = EventQuery(type=visit.asked("type"), cursor=visit.asked("cursor"), limit=PER_PAGE)
    asked: dict[str, Any] = {"type": query.type, "since": visit.moment("since"), "until": visit.moment("until")}
    fetch = partial(lists.events_page, tenant_id=visit.caller.tenant_id, **asked)
    found = await page_of(visit.gateway, query, fetch, of_many=True)
    return visit.show("events.html", "Events", rows=found["items"], cursor=found["next_cursor"])


@page("/events/{event_id}", Scope.DELIVERIES_READ)
async def one(visit: Visit, event_id: UUID) -> Response:
    row = await event(event_id, visit.gateway, visit.caller)
    # Nobody's look at this page is to open the body: filters are told, not judged anew.
    reader = replace(visit.caller, scopes=visit.caller.scopes - {Scope.PAYLOAD_READ})
    query = Paging(cursor=visit.asked("cursor"), limit=PER_PAGE)
    found = await by_endpoint(event_id, query, visit.gateway, reader)
    async with visit.reading() as connection:
        shown = {one["endpoint_id"] for one in (*row["deliveries"], *found["items"])}
        about = await endpoints.called(connection, visit.caller.tenant_id, shown)
        named = await subscribers.names(connection, visit.caller.tenant_id, row.get("to") or ())
    context = {"row": row, "about": about, "named": named, "told": found["items"], "cursor": found["next_cursor"]}
    return visit.show("event.html", f"Event {ids.render(ids.EVENT, event_id)}", **context)


@action("/events/{event_id}/payload", Scope.PAYLOAD_READ, form=one)
async def payload(visit: Visit, event_id: UUID) -> Response:
    reason = visit.form.get("reason", "")
    if not is_label(reason):
        remedy = "Say why you have to read it, in one line: it stands in the audit log. Never a patient's name."
        raise invalid(Fault("reason", remedy, pointer="/reason"))
    body = await read_payload(visit.gateway, visit.caller, event_id, reason)
    return visit.show("payload.html", f"Body of {ids.render(ids.EVENT, event_id)}", event_id=event_id, body=body)
