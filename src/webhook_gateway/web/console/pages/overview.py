"""How the gateway stands: what waits, who is in trouble, what runs; and the first steps where there is nothing yet."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.store import endpoints, pause, subscribers
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.waiting import workers_alive
from webhook_gateway.web.api import replays, stats
from webhook_gateway.web.api.schemas.shapes import Paging
from webhook_gateway.web.console.frame import Visit, page

MOST, MOST_PROBLEMS = 20, 5


@page("/", by=Capability.VIEW)
async def overview(visit: Visit) -> Response:
    caller = visit.caller
    shown: dict[str, Any] = {"is_new": False}
    async with visit.reading() as connection:
        driver = await driver_of(connection)
        shown |= {"workers": await workers_alive(driver), "paused": await pause.state(driver)}
        if visit.may(Scope.ENDPOINTS_READ):
            bound = caller.tenant_id, caller.subscriber_id
            shown["trouble"] = await endpoints.in_trouble(connection, *bound, limit=MOST)
            shown["held"] = await endpoints.held_everywhere(connection, *bound, limit=MOST + 1)
            some = await subscribers.page(connection, caller.tenant_id, only=caller.subscriber_id, before=None, limit=1)
            shown["is_new"] = not some
    if visit.may(Scope.DELIVERIES_READ):
        shown["stats"] = await stats.totals(visit.gateway, caller)
        shown["hour"], shown["day"] = [await stats.attempts(visit.gateway, caller, of) for of in ("1h", "24h")]
        shown["problems"] = (await stats.problems(visit.gateway, caller))["items"][:MOST_PROBLEMS]
        async with visit.reading() as connection:
            fail = {row["endpoint_id"] for row in shown["problems"]}
            shown["about"] = await endpoints.called(connection, caller.tenant_id, fail)
        jobs = (await replays.every(Paging(cursor=None, limit=MOST), visit.gateway, caller))["items"]
        shown["running"] = [job for job in jobs if job["state"] in ("pending", "running")]
    return visit.show("overview.html", "Overview", **shown)
