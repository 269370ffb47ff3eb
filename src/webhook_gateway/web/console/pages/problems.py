"""What fails, by endpoint and outcome: gone when the endpoint takes something again."""

from __future__ import annotations

from starlette.responses import Response

from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.store import endpoints
from webhook_gateway.web.api import stats
from webhook_gateway.web.console.frame import Visit, page


@page("/problems", Scope.DELIVERIES_READ, by=Capability.VIEW)
async def every(visit: Visit) -> Response:
    rows = (await stats.problems(visit.gateway, visit.caller))["items"]
    async with visit.reading() as connection:
        about = await endpoints.called(connection, visit.caller.tenant_id, {row["endpoint_id"] for row in rows})
    return visit.show("problems.html", "Problems", rows=rows, about=about)
