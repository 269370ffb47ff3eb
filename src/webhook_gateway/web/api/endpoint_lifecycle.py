"""What operators do to an endpoint: pause, resume, test, send what came before, let a held ordering key go on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Path, Query, Response

from webhook_gateway.operations import backfills, endpoint_lifecycle
from webhook_gateway.operations.change import changing
from webhook_gateway.operations.endpoints import find
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import endpoints, keyring, lists, reports
from webhook_gateway.store.database import DatabaseUnavailable
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import granted

from .deliveries import shown_attempt
from .dependencies import Gateway, Parts, needs, next_page, read_cursor, read_number_cursor, write_cursor
from .endpoints import shown
from .replays import PREVIEWED, Made, shown_job
from .schemas.deliveries import AttemptQuery, EndpointAttempt
from .schemas.endpoint_lifecycle import HeldKey, Pause, SentTest, TestSend
from .schemas.endpoints import Endpoint
from .schemas.replays import NewBackfill
from .schemas.shapes import Page, Paging
from .schemas.typed_ids import EndpointId

router = APIRouter(prefix="/v1/endpoints", tags=["Endpoints"])

Reader = Annotated[Caller, needs(Scope.ENDPOINTS_READ)]
Tracer = Annotated[Caller, needs(Scope.DELIVERIES_READ)]
Operator = Annotated[Caller, needs(Scope.DELIVERIES_WRITE)]


@router.post("/{endpoint_id}/pause", response_model=Endpoint, operation_id="pauseEndpoint", summary="Pause an endpoint")
async def pause(
    endpoint_id: EndpointId, gateway: Parts, caller: Operator, body: Annotated[Pause | None, Body()] = None
) -> Any:
    """Stops attempts. Deliveries wait, also new ones, until the endpoint is resumed; none is dropped."""
    reason = (body or Pause()).reason
    async with changing(gateway.database, caller) as change:
        row = granted(await endpoint_lifecycle.pause(change, gateway.vault, endpoint_id, reason))
        return await shown(gateway.vault, change.connection, row, caller)


@router.post(
    "/{endpoint_id}/resume", response_model=Endpoint, operation_id="resumeEndpoint", summary="Resume an endpoint"
)
async def resume(endpoint_id: EndpointId, gateway: Parts, caller: Operator) -> Any:
    """Starts attempts again, also where the gateway has disabled the endpoint.

    What waits goes out from now on, also what failed before and would be due later: as many a second as the endpoint's
    rate, or 50, and not before a `Retry-After`.
    """
    async with changing(gateway.database, caller) as change:
        row = granted(await endpoint_lifecycle.resume(change, gateway.vault, endpoint_id))
        return await shown(gateway.vault, change.connection, row, caller)


@router.post(
    "/{endpoint_id}/test",
    status_code=202,
    response_model=SentTest,
    responses={200: {"model": SentTest, "description": "Its attempt is over."}},
    operation_id="testEndpoint",
    summary="Send a test event to an endpoint",
)
async def send_test(
    endpoint_id: EndpointId,
    gateway: Parts,
    caller: Operator,
    response: Response,
    body: Annotated[TestSend | None, Body()] = None,
    wait: Annotated[int, Query(ge=0, le=20, description="Seconds to wait for its attempt.")] = 0,
) -> Any:
    """Sends a type's example once to this endpoint only, marked as a test and signed like any other event.

    It goes at once where a slot is free, past a breaker that is open; a failure changes nothing of the endpoint's
    health, a success closes the breaker. With `wait` the answer is `200` with the attempt if that is over in time.
    """
    event_type = (body or TestSend()).event_type
    async with changing(gateway.database, caller) as change:
        queued = granted(
            await endpoint_lifecycle.send_test(change, gateway.vault, gateway.catalogue, endpoint_id, event_type)
        )
    response.headers["Location"] = f"/v1/deliveries/{ids.render(ids.DELIVERY, queued['id'])}"
    attempt = await _attempt_of(gateway, caller, queued["id"], wait)
    response.status_code = 202 if attempt is None else 200
    return {**queued, "attempt": attempt}


async def _attempt_of(gateway: Gateway, caller: Caller, delivery_id: UUID, wait: float) -> dict[str, Any] | None:
    """The attempt, if it is over within ``wait`` seconds. Between two looks no connection is held."""
    until, pause = monotonic() + wait, 0.05
    if gateway.waiting.locked():
        return None
    async with gateway.waiting:
        while (left := until - monotonic()) > 0:
            await asyncio.sleep(min(pause, left))
            pause = min(1.5 * pause, 0.5)
            with suppress(DatabaseUnavailable):  # it is queued all the same
                async with gateway.database.begin() as connection:
                    for attempt in await reports.attempts_of(connection, caller.tenant_id, delivery_id):
                        return shown_attempt(attempt)
    return None


@router.post(
    "/{endpoint_id}/backfill",
    status_code=202,
    response_model=Made,
    responses=PREVIEWED,
    operation_id="backfillEndpoint",
    summary="Send an endpoint what was accepted before",
)
async def backfill(
    endpoint_id: EndpointId, body: NewBackfill, gateway: Parts, caller: Operator, response: Response
) -> Any:
    """Makes a job that sends accepted events to an endpoint that was made, or widened, later: those that its types, its
    filter and `to` allow it, and that it has no delivery of. Also needs `payload:read`.

    It goes at the endpoint's rate, or 50 a second, oldest first, in order key by key; what is accepted meanwhile may
    overtake. `GET /v1/replays/{job_id}` says how far it is. With `dry_run` it says what that would be.
    """
    given = body.model_dump(exclude_none=True, exclude={"dry_run"})
    await keyring.fill(gateway.database, gateway.vault)  # the newest bodies may be sealed with a newer key
    counted = granted(await backfills.preview(gateway.database, gateway.vault, caller, endpoint_id, given))
    if body.dry_run:
        response.status_code = 200
        return counted
    async with changing(gateway.database, caller) as change:
        return shown_job(granted(await backfills.create(change, endpoint_id, given, counted)))


@router.get(
    "/{endpoint_id}/attempts",
    response_model=Page[EndpointAttempt],
    operation_id="listAttempts",
    summary="List requests to an endpoint",
)
async def attempts(
    endpoint_id: EndpointId, query: Annotated[AttemptQuery, Query()], gateway: Parts, caller: Tracer
) -> Any:
    """Lists requests, those of the newest deliveries first. A page may be short, or empty, before the last one; or a
    little longer than `limit`, with all of a delivery's."""
    async with gateway.database.reading() as connection:
        granted(await find(connection, caller, endpoint_id))
        rows, reached = await lists.attempts_page(
            connection,
            reports.Filter(caller.tenant_id, caller.subscriber_id, endpoint_id, since=query.since, until=query.until),
            outcome=query.outcome,
            status=query.status,
            before=read_cursor(query.cursor),
            limit=query.limit,
        )
    return {"items": [shown_attempt(row) for row in rows], "next_cursor": reached and write_cursor(reached)}


@router.get(
    "/{endpoint_id}/held-keys",
    response_model=Page[HeldKey],
    operation_id="listHeldKeys",
    summary="List an endpoint's held ordering keys",
)
async def held_keys(endpoint_id: EndpointId, query: Annotated[Paging, Query()], gateway: Parts, caller: Reader) -> Any:
    """Lists the ordering keys of a strict endpoint that wait, since a delivery of theirs is dead."""
    async with gateway.database.begin() as connection:
        granted(await find(connection, caller, endpoint_id))
        after, unfiltered = read_number_cursor(query.cursor), caller.subscriber_id is None
        rows = await endpoints.held_page(
            connection, endpoint_id, after=after, limit=query.limit + 1, unfiltered=unfiltered
        )
    items, next_cursor = next_page(rows, query.limit, lambda row: int(row["ordering_key"]))
    return {
        "items": [{**row, "ordering_key": str(row["ordering_key"])} for row in items],
        "next_cursor": next_cursor,
    }


@router.post(
    "/{endpoint_id}/held-keys/{ordering_key}/release",
    response_model=Endpoint,
    operation_id="releaseHeldKey",
    summary="Let a held ordering key go on",
)
async def release_key(
    endpoint_id: EndpointId,
    ordering_key: Annotated[str, Path(pattern=r"^-?[0-9]{1,19}$", examples=["-4235713561732571313"])],
    gateway: Parts,
    caller: Operator,
) -> Any:
    """Gives up the dead delivery and sends what waits behind it. Replay the dead one first if the partner needs it."""
    async with changing(gateway.database, caller) as change:
        row = granted(await endpoint_lifecycle.release_key(change, endpoint_id, int(ordering_key)))
        return await shown(gateway.vault, change.connection, row, caller)
