"""``/v1/replays``: sending many finished deliveries again, as a job; and how far jobs are, of backfills, too."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from sqlalchemy import RowMapping

from webhook_gateway.operations import replays
from webhook_gateway.operations.change import changing
from webhook_gateway.operations.refusals import NotFound
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import replays as stored
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import granted

from .dependencies import Parts, needs, page_of
from .schemas.replays import NewReplay, Preview, Replay
from .schemas.shapes import Page, Paging
from .schemas.typed_ids import JobId

router = APIRouter(prefix="/v1/replays", tags=["Replays"])

Reader = Annotated[Caller, needs(Scope.DELIVERIES_READ)]
Operator = Annotated[Caller, needs(Scope.DELIVERIES_WRITE)]


Made = Replay | Preview
PREVIEWED: dict[int | str, dict[str, Any]] = {200: {"model": Preview, "description": "What would be sent."}}


@router.post(
    "",
    status_code=202,
    response_model=Made,
    responses=PREVIEWED,
    operation_id="createReplay",
    summary="Send many deliveries again",
)
async def create(body: NewReplay, gateway: Parts, caller: Operator, response: Response) -> Any:
    """Makes a job that sends matching finished deliveries again, oldest first. What finishes later is left out.

    With `dry_run` it says what that would be.
    """
    given = body.model_dump(exclude_none=True, exclude={"dry_run"})
    if body.dry_run:
        response.status_code = 200
        async with gateway.database.reading() as connection:
            return granted(await replays.preview(connection, caller, given))
    async with changing(gateway.database, caller) as change:
        return shown_job(granted(await replays.create(change, given)))


@router.get("", response_model=Page[Replay], operation_id="listReplays", summary="List replay jobs")
async def every(query: Annotated[Paging, Query()], gateway: Parts, caller: Reader) -> Any:
    """Lists jobs, newest first."""
    fetch = partial(stored.page, tenant_id=caller.tenant_id, subscriber_id=caller.subscriber_id)
    return await page_of(gateway, query, fetch, show=shown_job)


@router.get("/{job_id}", response_model=Replay, operation_id="getReplay", summary="Look at one replay job")
async def one(job_id: JobId, gateway: Parts, caller: Reader) -> Any:
    """Shows how far a job is."""
    async with gateway.database.begin() as connection:
        row = await stored.get(connection, caller.tenant_id, job_id, subscriber_id=caller.subscriber_id)
    return shown_job(granted(row or NotFound.REPLAY))


@router.post("/{job_id}/cancel", response_model=Replay, operation_id="cancelReplay", summary="Stop a replay job")
async def cancel(job_id: JobId, gateway: Parts, caller: Operator) -> Any:
    """Stops a job where it is. What it has queued by then is still sent."""
    async with changing(gateway.database, caller) as change:
        return shown_job(granted(await replays.cancel(change, job_id)))


def shown_job(row: RowMapping) -> dict[str, Any]:
    wanted = row["filter"]
    about = {name: wanted.get(name) for name in ("endpoint_id", "event_id")}
    about["subscriber_id"] = wanted.get("to_subscriber_id", wanted.get("subscriber_id"))
    return {
        **row,
        **{name: wanted.get(name) for name in ("type", "since", "until", *stored.MET)},
        **{name: value and UUID(value) for name, value in about.items()},
        "delivery_state": wanted.get("state"),
    }
