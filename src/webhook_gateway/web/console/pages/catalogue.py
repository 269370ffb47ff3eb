"""Event types: what may happen, what its data looks like, and who gets it."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from webhook_gateway.operations.permission import types_of
from webhook_gateway.rules.matching import may_have
from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.store import endpoints
from webhook_gateway.web.api import event_types, subscribers
from webhook_gateway.web.console.frame import Visit, page

MOST = 1_000


@page("/catalogue", by=Capability.VIEW)
async def every(visit: Visit) -> Response:
    found = await event_types.every(visit.gateway, visit.caller)
    asked = (visit.asked("q") or "").lower()
    rows = [known for known in found["items"] if asked in known.name or asked in known.description.lower()]
    if visit.caller.subscriber_id is not None and visit.may(Scope.ENDPOINTS_READ):
        owner = await subscribers.one(visit.caller.subscriber_id, visit.gateway, visit.caller)
        rows = [known for known in rows if may_have(tuple(owner["event_types"]), known.name)]
    return visit.show("catalogue.html", "Catalogue", rows=rows)


@page("/catalogue/{name}", by=Capability.VIEW)
async def one(visit: Visit, name: str) -> Response:
    known = await event_types.one(name, visit.gateway, visit.caller)
    gets = []
    if visit.may(Scope.ENDPOINTS_READ):
        bound: dict[str, Any] = {
            "subscriber_id": visit.caller.subscriber_id,
            "state": None,
            "before": None,
            "limit": MOST,
        }
        async with visit.reading() as connection:
            rows = await endpoints.page(connection, visit.caller.tenant_id, **bound)
            rows = [row for row in rows if may_have(types_of(row), name)]
            about = await endpoints.called(connection, visit.caller.tenant_id, [row["id"] for row in rows])
        gets = [(row, about[row["id"]]) for row in rows]
    return visit.show("event_type.html", name, known=known, gets=gets)
