"""What is done to many at once: offered by a form, counted before anything is done, and confirmed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.store import endpoints
from webhook_gateway.web.errors import Problem, invalid

from .frame import Visit

TYPED_ABOVE = 1_000
"""Deliveries beyond which their number has to be typed."""


async def show(visit: Visit, kind: str, title: str, found: Any, **context: Any) -> Response:
    """The form, of a kind that its template knows, with what was ``found``, if it was counted."""
    async with visit.reading() as connection:
        context |= await offered(connection, visit)
    return visit.show("many.html", title, kind=kind, found=found, typed_above=TYPED_ABOVE, **context)


async def offered(connection: AsyncConnection, visit: Visit) -> dict[str, Any]:
    """The endpoints to choose from and their partners: what a form sends, and what it shows of each."""
    tenant_id, theirs = visit.caller.tenant_id, visit.caller.subscriber_id
    rows = (await endpoints.called(connection, tenant_id, subscriber_id=theirs)).values()
    partners = {row["subscriber_id"]: row["subscriber"] for row in rows}
    named = [(ids.render(ids.ENDPOINT, row["id"]), f"{row['subscriber']} – {row['url']}") for row in rows]
    whose = [(ids.render(ids.SUBSCRIBER, each), name) for each, name in partners.items()]
    return {"endpoints": [("", "All"), *named], "partners": [("", "All"), *whose]}


def given(visit: Visit, *names: str) -> dict[str, Any]:
    """What the form says of which are meant."""
    times = {name: visit.moment(name) for name in ("since", "until")}
    return {**{name: visit.form.get(name) or None for name in names}, **times}


def unsure(visit: Visit) -> Visit | None:
    """None where the form confirms what it was shown the count of; else the visit that is to see it, and why."""
    form = visit.form
    if form.get("do") != "confirm":
        return visit
    try:
        if form.get("counted") != form.asked_for():
            remedy = "You have changed what is asked for. It is counted anew: look, then confirm."
            raise invalid(Fault("counted", remedy, pointer=""))
        visit.expect_typed(form.get("expected", ""))
    except Problem as problem:
        return replace(visit, problem=problem)
    return None
