"""``/v1/replays``: sending many finished deliveries again, as a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy import RowMapping

from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import endpoints, replays, reports
from webhook_gateway.store.notifications import OUTBOX
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import conflict, not_found

from .dependencies import Parts, changing, needs, next_page, read_cursor
from .schemas.replays import NewReplay, Replay, ReplayPage
from .schemas.shapes import Paging
from .schemas.typed_ids import JobId

router = APIRouter(prefix="/v1/replays", tags=["Replays"])

Reader = Annotated[Caller, needs(Scope.DELIVERIES_READ)]
Operator = Annotated[Caller, needs(Scope.DELIVERIES_WRITE)]


@router.post(
    "", status_code=202, response_model=Replay, operation_id="createReplay", summary="Send many deliveries again"
)
async def create(body: NewReplay, gateway: Parts, caller: Operator) -> Any:
    """Makes a job that sends matching finished deliveries again, oldest first. What finishes later is left out."""
    wanted = body.model_dump(exclude_none=True)
    async with changing(gateway, caller, OUTBOX) as change:
        if body.endpoint_id is not None:
            endpoint = await endpoints.get(
                change.connection, caller.tenant_id, body.endpoint_id, subscriber_id=caller.subscriber_id
            )
            if endpoint is None:
                raise not_found("endpoint")
            if endpoint["state"] == "disabled":
                raise conflict("The endpoint is disabled: resume it first.")
        total = await reports.finished_count(
            change.connection, reports.Filter(caller.tenant_id, caller.subscriber_id, **wanted)
        )
        job = await replays.create(change.connection, caller.tenant_id, _stored(wanted, caller), total)
        change.note(
            "replay.created",
            ids.render(ids.JOB, job["id"]),
            after={**body.model_dump(mode="json", exclude_none=True), "total": total},
        )
    return _shown(job)


@router.get("", response_model=ReplayPage, operation_id="listReplays", summary="List replay jobs")
async def every(query: Annotated[Paging, Query()], gateway: Parts, caller: Reader) -> Any:
    """Lists jobs, newest first."""
    async with gateway.database.begin() as connection:
        rows = await replays.page(
            connection,
            caller.tenant_id,
            subscriber_id=caller.subscriber_id,
            before=read_cursor(query.cursor),
            limit=query.limit + 1,
        )
    items, next_cursor = next_page(rows, query.limit, lambda row: row["id"])
    return {"items": [_shown(row) for row in items], "next_cursor": next_cursor}


@router.get("/{job_id}", response_model=Replay, operation_id="getReplay", summary="Look at one replay job")
async def one(job_id: JobId, gateway: Parts, caller: Reader) -> Any:
    """Shows how far a job is."""
    async with gateway.database.begin() as connection:
        row = await replays.get(connection, caller.tenant_id, job_id, subscriber_id=caller.subscriber_id)
    if row is None:
        raise not_found("replay")
    return _shown(row)


@router.post("/{job_id}/cancel", response_model=Replay, operation_id="cancelReplay", summary="Stop a replay job")
async def cancel(job_id: JobId, gateway: Parts, caller: Operator) -> Any:
    """Stops a job where it is. What it has queued by then is still sent."""
    async with changing(gateway, caller) as change:
        before = await replays.get(
            change.connection, caller.tenant_id, job_id, subscriber_id=caller.subscriber_id, lock=True
        )
        if before is None:
            raise not_found("replay")
        row = await replays.cancel(change.connection, caller.tenant_id, job_id)
        if row is None:
            raise conflict(f"The job is {before['state']} already.")
        change.note("replay.cancelled", ids.render(ids.JOB, job_id), before={"done": before["done"]})
    return _shown(row)


def _stored(wanted: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    """As JSON can hold it, and bound to the caller's subscriber."""
    stored: dict[str, Any] = {name: str(value) for name, value in wanted.items()}
    for name in ("since", "until"):
        if name in wanted:
            stored[name] = wanted[name].isoformat()
    if caller.subscriber_id is not None:
        stored["subscriber_id"] = str(caller.subscriber_id)
    return stored


def _shown(row: RowMapping) -> dict[str, Any]:
    wanted = row["filter"]
    return {
        **row,
        "endpoint_id": UUID(wanted["endpoint_id"]) if "endpoint_id" in wanted else None,
        "type": wanted.get("type"),
        "delivery_state": wanted["state"],
        "since": wanted.get("since"),
        "until": wanted.get("until"),
    }
