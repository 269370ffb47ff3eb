"""Statistics: how far behind the gateway is, what attempts came to, and what fails."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from webhook_gateway.operations import stats
from webhook_gateway.operations.stats import Window
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import granted

from .dependencies import Parts, needs
from .schemas.shapes import Page
from .schemas.stats import Attempts, EndpointProblem, EndpointStats, Stats
from .schemas.typed_ids import EndpointId

router = APIRouter(prefix="/v1", tags=["Stats"])

Reader = Annotated[Caller, needs(Scope.DELIVERIES_READ)]
OverTime = Annotated[Window, Query(description="Until now, in buckets of a minute, an hour or, of 90 days, a day.")]


@router.get("/stats", response_model=Stats, operation_id="getStats", summary="See how far behind the gateway is")
async def totals(gateway: Parts, caller: Reader) -> Any:
    """Counts what is open. A subscriber's key sees the deliveries to its own endpoints."""
    async with gateway.database.reading() as connection:
        told = await stats.backlog(connection, caller)
        return {**told, "unmatched_recent": await stats.unmatched(connection, caller)}


@router.get(
    "/stats/attempts", response_model=Attempts, operation_id="getAttemptStats", summary="See what attempts came to"
)
async def attempts(gateway: Parts, caller: Reader, window: OverTime = "24h") -> Any:
    """Success, and how long it took, of all endpoints together; a subscriber's key sees those of its own.

    Workers write every five seconds what they have counted, also for `GET /v1/endpoints/{id}/stats`.
    """
    async with gateway.database.reading() as connection:
        return await stats.attempts(connection, caller, window)


@router.get(
    "/endpoints/{endpoint_id}/stats",
    response_model=EndpointStats,
    operation_id="getEndpointStats",
    summary="See how an endpoint fares",
)
async def of_endpoint(endpoint_id: EndpointId, gateway: Parts, caller: Reader, window: OverTime = "24h") -> Any:
    """Success, and how long it took, when the endpoint last took something, and what is open for it."""
    async with gateway.database.reading() as connection:
        return granted(await stats.of_endpoint(connection, caller, endpoint_id, window))


@router.get(
    "/problems", response_model=Page[EndpointProblem], operation_id="listProblems", summary="See which endpoints fail"
)
async def problems(gateway: Parts, caller: Reader, endpoint_id: EndpointId | None = None) -> Any:
    """Failures by endpoint and outcome since the endpoint last took something, the latest first, at most 200.

    What ended in success is no problem any more. In the minute of that success (an hour later: in its hour) failures
    before and after it are not told apart.
    """
    async with gateway.database.reading() as connection:
        return {"items": await stats.problems(connection, caller, endpoint_id)}
