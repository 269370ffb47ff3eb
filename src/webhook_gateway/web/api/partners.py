"""``/v1/partners``: subscribers and their endpoints as code."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from webhook_gateway.operations import partners
from webhook_gateway.operations.change import changing, rehearsing
from webhook_gateway.operations.partners import Wanted
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import granted

from .dependencies import Parts, needs
from .schemas.partners import Applied, Applying, Partners

router = APIRouter(prefix="/v1/partners", tags=["Subscribers"])


@router.post("", response_model=Applied, operation_id="applyPartners", summary="Apply a document of partners")
async def apply(
    body: Partners,
    query: Annotated[Applying, Query()],
    gateway: Parts,
    caller: Annotated[Caller, needs(Scope.ENDPOINTS_WRITE, whole_tenant=True)],
) -> Any:
    """Makes subscribers and endpoints as the document says, in one transaction, and answers each step.

    Done twice, the second time has no steps. A `secret` that is not the newest one rotates: for a day both sign.
    """
    wanted = [_wanted(one, [_wanted(endpoint) for endpoint in one.endpoints]) for one in body.subscribers]
    parts = (gateway.vault, gateway.catalogue, gateway.policy)
    async with (rehearsing if query.dry_run else changing)(gateway.database, caller) as change:
        applying = partners.Applying(change, *parts, query.prune, query.cancel_open)
        steps = granted(await applying.apply(wanted, query.plan))
    gateway.callers.forget()
    if query.dry_run:  # keys that were made are none
        steps = [replace(step, key=None) for step in steps]
    return {"plan": partners.digest(steps), "steps": steps}


def _wanted(one: BaseModel, endpoints: list[Wanted] | None = None) -> Wanted:
    given = one.model_dump(include=one.model_fields_set, exclude={"endpoints"})
    return Wanted(given, one.model_dump(exclude={"endpoints"}), endpoints or [])
