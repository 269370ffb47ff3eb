"""Sending many finished deliveries again: counted first, then confirmed, then watched."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from starlette.responses import Response

from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.store import endpoints, subscribers
from webhook_gateway.web.api import replays
from webhook_gateway.web.api.schemas.replays import NewReplay
from webhook_gateway.web.api.schemas.shapes import Paging
from webhook_gateway.web.console import many
from webhook_gateway.web.console.frame import PER_PAGE, Visit, action, page


@page("/replays", Scope.DELIVERIES_READ, by=Capability.VIEW)
async def every(visit: Visit) -> Response:
    found = await replays.every(Paging(cursor=visit.asked("cursor"), limit=PER_PAGE), visit.gateway, visit.caller)
    async with visit.reading() as connection:
        whose = [row["endpoint_id"] for row in found["items"] if row["endpoint_id"] is not None]
        about = await endpoints.called(connection, visit.caller.tenant_id, whose)
    context = {"rows": found["items"], "cursor": found["next_cursor"], "about": about}
    return visit.show("replays.html", "Replays", **context)


@page("/replays/new", Scope.DELIVERIES_WRITE, by=Capability.REPLAY)
async def new(visit: Visit, found: dict[str, Any] | None = None) -> Response:
    return await many.show(visit, "replay", "New replay", found)


@action("/replays/new", Scope.DELIVERIES_WRITE, form=new, by=Capability.REPLAY)
async def create(visit: Visit) -> Response:
    given = many.given(visit, "endpoint_id", "subscriber_id", "type", "outcome", "status", "detail")
    is_all, unsure = not any(given.values()), many.unsure(visit)
    given |= {"state": visit.form.get("state") or "dead", "all": True if is_all else None}
    body = NewReplay.model_validate({**given, "dry_run": unsure is not None})
    answer = await replays.create(body, visit.gateway, visit.caller, Response())
    if unsure is not None:
        return await new(unsure, answer)
    return visit.go(f"/replays/{ids.render(ids.JOB, answer['id'])}")


@page("/replays/{job_id}", Scope.DELIVERIES_READ, by=Capability.VIEW)
async def one(visit: Visit, job_id: UUID) -> Response:
    row = await replays.one(job_id, visit.gateway, visit.caller)
    async with visit.reading() as connection:
        whose = [] if row["endpoint_id"] is None else [row["endpoint_id"]]
        about = await endpoints.called(connection, visit.caller.tenant_id, whose)
        named = await subscribers.names(connection, visit.caller.tenant_id, filter(None, [row["subscriber_id"]]))
    context = {"row": row, "about": about, "named": named, "minute": timedelta(minutes=1)}
    return visit.show("replay.html", f"Replay {ids.render(ids.JOB, job_id)}", **context)


@action("/replays/{job_id}/cancel", Scope.DELIVERIES_WRITE, form=one, by=Capability.REPLAY)
async def cancel(visit: Visit, job_id: UUID) -> Response:
    await replays.cancel(job_id, visit.gateway, visit.caller)
    return visit.go(f"/replays/{ids.render(ids.JOB, job_id)}", "cancelled")
