"""``/v1/disclosures``: who got what about whom. A patient is named in a body only, never in a URL."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from webhook_gateway.operations import disclosures
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import granted

from .dependencies import Parts, needs, read_cursor, write_cursor
from .schemas.disclosures import Disclosure, DisclosureSearch, DisclosureVerification
from .schemas.shapes import Page

router = APIRouter(prefix="/v1/disclosures", tags=["Disclosures"])

Auditor = Annotated[Caller, needs(Scope.DISCLOSURES_READ, whole_tenant=True)]
CSV = "text/csv"
ANSWERS: Any = {
    200: {
        "description": "With `Accept: text/csv`, or that `format`, a table, and the header `Next-Cursor`.",
        "content": {CSV: {"example": ",".join(disclosures.COLUMNS) + "\r\n"}},
    }
}


@router.post(
    "/search",
    response_model=Page[Disclosure],
    operation_id="searchDisclosures",
    summary="Say who got what",
    responses=ANSWERS,
)
async def search(
    body: DisclosureSearch,
    gateway: Parts,
    caller: Auditor,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Any:
    """Lists what may have reached whom, of a patient, an event or a subscriber, newest deliveries first.

    A page may be short, or empty, before the last one. Each search is audited, a patient by a keyed hash only, and to
    look for a patient takes `patients:search`, too.
    """
    if body.patient is not None:
        caller.need(Scope.PATIENTS_SEARCH)
    asked = disclosures.Asked(
        body.patient, body.event_id, body.subscriber_id, body.since, body.until, read_cursor(body.cursor), body.limit
    )
    found = granted(await disclosures.search(gateway.database, gateway.vault, gateway.settings, caller, asked))
    items, last = found
    next_cursor = None if last is None else write_cursor(last)
    if body.format != "csv" and CSV not in accept:
        return {"items": items, "next_cursor": next_cursor}
    headers = {} if next_cursor is None else {"Next-Cursor": next_cursor}
    return Response(disclosures.as_csv(items), media_type=CSV, headers=headers)


@router.post(
    "/verify",
    response_model=Page[Disclosure],
    operation_id="verifyDisclosures",
    summary="Check what was sent",
)
async def verify(body: DisclosureVerification, gateway: Parts, caller: Auditor) -> Any:
    """Lists an event's disclosures, each with whether exactly this body was sent. Audited like a search."""
    asked = disclosures.Asked(event_id=body.event_id, before=read_cursor(body.cursor), limit=body.limit)
    sent = body.digest or (body.body or "").encode()
    found = granted(await disclosures.verify(gateway.database, gateway.vault, gateway.settings, caller, asked, sent))
    return {"items": found[0], "next_cursor": None if found[1] is None else write_cursor(found[1])}
