"""``/v1/search``: what a text is, and where it leads."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter

from webhook_gateway.operations.search import search
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.web.callers import Caller

from .dependencies import Parts, needs, read_cursor, write_cursor
from .schemas.search import Search, SearchAnswer

router = APIRouter(prefix="/v1/search", tags=["Search"])

Reader = Annotated[Caller, needs(Scope.DELIVERIES_READ)]


@router.post("", response_model=SearchAnswer, operation_id="search", summary="Find an id, a key or a patient")
async def find(body: Search, gateway: Parts, caller: Reader) -> Any:
    """Says what a text is: an id of the gateway's, or an idempotency key that came with events.

    With the scope `patients:search` it is looked for among ordering keys, subjects and patients, too; that look is
    audited, by a keyed hash. A subscriber's key finds what its endpoints were sent.
    """
    before = read_cursor(body.cursor)
    answer = await search(gateway.database, gateway.vault, caller, body.q.strip(), before=before, limit=body.limit)
    return {**asdict(answer), "next_cursor": answer.reached and write_cursor(answer.reached)}
