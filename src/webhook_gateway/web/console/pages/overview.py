"""How the gateway stands: what waits, who is in trouble, what runs; and the first steps where there is nothing yet."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from webhook_gateway.operations import stats
from webhook_gateway.rules.matching import OPERATIONAL
from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.store import endpoints, lists, pause, replays, reports, subscribers
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.waiting import workers_alive
from webhook_gateway.web.console.frame import Visit, page

MOST, MOST_PROBLEMS = 20, 5
FEW = 50
"""Attempts in a day, up to which the first steps may be ahead: beyond, nobody asks."""


@page("/live", by=Capability.VIEW)
async def live(visit: Visit) -> Response:
    assert visit.session is not None
    return visit.gateway.live.open(visit.session.id)


@page("/", by=Capability.VIEW)
async def overview(visit: Visit) -> Response:
    caller = visit.caller
    bound = caller.tenant_id, caller.subscriber_id
    shown: dict[str, Any] = {}
    async with visit.reading() as connection:
        driver = await driver_of(connection)
        shown |= {"workers": await workers_alive(driver), "paused": await pause.state(driver)}
        if visit.may(Scope.ENDPOINTS_READ):
            shown["trouble"] = await endpoints.in_trouble(connection, *bound, limit=MOST)
            shown["held"] = await endpoints.held_everywhere(connection, *bound, limit=MOST + 1)
        if visit.may(Scope.DELIVERIES_READ):
            shown["stats"] = await stats.backlog(connection, caller)
            shown["hour"], shown["day"] = [await stats.attempts(connection, caller, of) for of in ("1h", "24h")]
            shown["problems"] = (await stats.problems(connection, caller))[:MOST_PROBLEMS]
            fail = {row["endpoint_id"] for row in shown["problems"]}
            shown["about"] = await endpoints.called(connection, caller.tenant_id, fail)
            jobs = await replays.page(connection, caller.tenant_id, subscriber_id=bound[1], before=None, limit=MOST)
            shown["running"] = [job for job in jobs if job["state"] in replays.OPEN]
    if "day" in shown:
        is_theirs = visit.may(Scope.ENDPOINTS_READ, whole_tenant=True)
        shown["steps"] = await _steps(visit) if is_theirs and shown["day"]["attempts"] <= FEW else None
    return visit.show("overview.html", "Overview", **shown)


async def _steps(visit: Visit) -> dict[str, Any] | None:
    """The newest partner, endpoint and delivery, as far as there are any; None once an event went to somebody."""
    tenant_id = visit.caller.tenant_id
    async with visit.reading() as connection:
        partners = await subscribers.page(connection, tenant_id, only=None, before=None, limit=1)
        made = await endpoints.page(connection, tenant_id, subscriber_id=None, state=None, before=None, limit=1)
        sent, _ = await lists.deliveries_page(connection, reports.Filter(tenant_id), before=None, limit=FEW)
    if any(row["reason"] != "test" and not row["type"].startswith(OPERATIONAL) for row in sent):
        return None
    return {name: next(iter(rows), None) for name, rows in (("partner", partners), ("endpoint", made), ("sent", sent))}
