"""``/v1/replays``: sending many finished deliveries again, as a job."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy import RowMapping

from webhook_gateway.operations import replays
from webhook_gateway.operations.change import changing
from webhook_gateway.operations.refusals import NotFound
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import replays as stored
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import granted

from .dependencies import Parts, needs, page_of
from .schemas.replays import NewReplay, Replay
from .schemas.shapes import Page, Paging
from .schemas.typed_ids import JobId

router = APIRouter(prefix="/v1/replays", tags=["Replays"])

Reader = Annotated[Caller, needs(Scope.DELIVERIES_READ)]
Operator = Annotated[Caller, needs(Scope.DELIVERIES_WRITE)]


@router.post(
    "", status_code=202, response_model=Replay, operation_id="createReplay", summary="Send many deliveries again"
)
async def create(body: NewReplay, gateway: Parts, caller: Operator) -> Any:
    """Makes a job that sends matching finished deliveries again, oldest first. What finishes later is left out."""
    async with changing(gateway.database, caller) as change:
        return _shown(granted(await replays.create(change, body.model_dump(exclude_none=True))))


@router.get("", response_model=Page[Replay], operation_id="listReplays", summary="List replay jobs")
async def every(query: Annotated[Paging, Query()], gateway: Parts, caller: Reader) -> Any:
    """Lists jobs, newest first."""
    fetch = partial(stored.page, tenant_id=caller.tenant_id, subscriber_id=caller.subscriber_id)
    return await page_of(gateway, query, fetch, show=_shown)


@router.get("/{job_id}", response_model=Replay, operation_id="getReplay", summary="Look at one replay job")
async def one(job_id: JobId, gateway: Parts, caller: Reader) -> Any:
    """Shows how far a job is."""
    async with gateway.database.begin() as connection:
        row = await stored.get(connection, caller.tenant_id, job_id, subscriber_id=caller.subscriber_id)
    return _shown(granted(row or NotFound.REPLAY))


@router.post("/{job_id}/cancel", response_model=Replay, operation_id="cancelReplay", summary="Stop a replay job")
async def cancel(job_id: JobId, gateway: Parts, caller: Operator) -> Any:
    """Stops a job where it is. What it has queued by then is still sent."""
    async with changing(gateway.database, caller) as change:
        return _shown(granted(await replays.cancel(change, job_id)))


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
