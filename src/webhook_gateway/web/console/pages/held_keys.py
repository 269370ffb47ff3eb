"""Ordering keys that wait for somebody: what waits behind what, and letting it go on."""

from __future__ import annotations

from uuid import UUID

from starlette.responses import Response

from webhook_gateway.operations import endpoint_lifecycle
from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.store import endpoints
from webhook_gateway.web.console.frame import Visit, action, page
from webhook_gateway.web.errors import granted, not_found

MOST = 100


@page("/held-keys", Scope.ENDPOINTS_READ, by=Capability.VIEW)
async def every(visit: Visit) -> Response:
    bound = visit.caller.tenant_id, visit.caller.subscriber_id
    async with visit.reading() as connection:
        rows = await endpoints.held_everywhere(connection, *bound, limit=MOST)
        about = await endpoints.called(connection, bound[0], {row["endpoint_id"] for row in rows})
    return visit.show("held_keys.html", "Held keys", rows=rows, about=about, most=MOST)


@action("/endpoints/{endpoint_id}/held-keys/{ordering_key}/release", Scope.DELIVERIES_WRITE, by=Capability.REPLAY)
async def release(visit: Visit, endpoint_id: UUID, ordering_key: str) -> Response:
    if not ordering_key.removeprefix("-").isdecimal() or len(ordering_key) > 20:
        raise not_found("held ordering key")
    async with visit.changing() as change:
        granted(await endpoint_lifecycle.release_key(change, endpoint_id, int(ordering_key)))
    return visit.go("/held-keys", "released")
