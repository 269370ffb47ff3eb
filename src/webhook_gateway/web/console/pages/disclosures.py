"""The ledger: who got what, of one patient, one partner or one event. A patient is named in a form only."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import subscribers
from webhook_gateway.web.api import disclosures
from webhook_gateway.web.api.schemas.disclosures import DisclosureSearch, DisclosureVerification
from webhook_gateway.web.console.frame import PER_PAGE, Visit, action, page

MOST = 1_000


@page("/disclosures", Scope.DISCLOSURES_READ, whole_tenant=True)
async def form(visit: Visit, found: dict[str, Any] | None = None) -> Response:
    async with visit.reading() as connection:
        rows = await subscribers.page(connection, visit.caller.tenant_id, only=None, before=None, limit=MOST)
    return visit.show("disclosures.html", "Disclosures", partners=rows, found=found)


@action("/disclosures", Scope.DISCLOSURES_READ, whole_tenant=True, form=form)
async def search(visit: Visit) -> Response:
    names = ("patient", "event_id", "subscriber_id", "cursor")
    given: dict[str, Any] = {name: visit.form.get(name) or None for name in names}
    given |= {"from": visit.moment("since"), "to": visit.moment("until"), "limit": PER_PAGE}
    as_csv = visit.form.get("do") == "csv"
    body = DisclosureSearch.model_validate({**given, "format": "csv" if as_csv else "json"})
    found = await disclosures.search(body, visit.gateway, visit.caller)
    if isinstance(found, Response):
        found.headers["Content-Disposition"] = 'attachment; filename="disclosures.csv"'
        return found
    return await form(visit, found)


@page("/disclosures/check", Scope.DISCLOSURES_READ, whole_tenant=True)
async def check(visit: Visit, found: dict[str, Any] | None = None) -> Response:
    return visit.show("disclosure_check.html", "Check what was sent", found=found)


@action("/disclosures/check", Scope.DISCLOSURES_READ, whole_tenant=True, form=check)
async def verify(visit: Visit) -> Response:
    given = {name: visit.form.get(name) or None for name in ("event_id", "body", "digest", "cursor")}
    body = DisclosureVerification.model_validate({**given, "limit": PER_PAGE})
    return await check(visit, await disclosures.verify(body, visit.gateway, visit.caller))
