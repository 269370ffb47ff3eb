"""Sending an endpoint what was accepted before it was there, or wanted it: one event, or all since a time."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from starlette.responses import Response

from webhook_gateway.operations.endpoints import find
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import endpoints
from webhook_gateway.web.api import endpoint_lifecycle
from webhook_gateway.web.api.schemas.replays import NewBackfill
from webhook_gateway.web.console import many
from webhook_gateway.web.console.frame import Visit, action, page
from webhook_gateway.web.errors import granted


@page("/endpoints/{endpoint_id}/backfill", Scope.DELIVERIES_WRITE)
async def new(visit: Visit, endpoint_id: UUID, found: dict[str, Any] | None = None) -> Response:
    async with visit.reading() as connection:
        granted(await find(connection, visit.caller, endpoint_id))
        about = await endpoints.called(connection, visit.caller.tenant_id, [endpoint_id])
    title = f"Backfill of {about[endpoint_id]['subscriber']}"
    return await many.show(visit, "backfill", title, found, about=about, endpoint_id=endpoint_id)


@action("/endpoints/{endpoint_id}/backfill", Scope.DELIVERIES_WRITE, form=new)
async def create(visit: Visit, endpoint_id: UUID) -> Response:
    unsure = many.unsure(visit)
    body = NewBackfill.model_validate({**many.given(visit, "event_id", "type"), "dry_run": unsure is not None})
    answer = await endpoint_lifecycle.backfill(endpoint_id, body, visit.gateway, visit.caller, Response())
    if unsure is not None:
        return await new(unsure, endpoint_id, answer)
    return visit.go(f"/replays/{ids.render(ids.JOB, answer['id'])}")
