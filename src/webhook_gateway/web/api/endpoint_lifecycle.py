"""What operators do to an endpoint: pause, resume, test, and let a held ordering key go on."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query

from webhook_gateway.operations import endpoint_lifecycle
from webhook_gateway.operations.change import changing
from webhook_gateway.operations.endpoints import find
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import endpoints
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import granted

from .dependencies import Parts, needs, next_page, read_number_cursor
from .endpoints import shown
from .schemas.deliveries import QueuedDelivery
from .schemas.endpoint_lifecycle import HeldKeyPage, TestSend
from .schemas.endpoints import Endpoint
from .schemas.shapes import Paging
from .schemas.typed_ids import EndpointId

router = APIRouter(prefix="/v1/endpoints", tags=["Endpoints"])

Reader = Annotated[Caller, needs(Scope.ENDPOINTS_READ)]
Operator = Annotated[Caller, needs(Scope.DELIVERIES_WRITE)]


@router.post("/{endpoint_id}/pause", response_model=Endpoint, operation_id="pauseEndpoint", summary="Pause an endpoint")
async def pause(endpoint_id: EndpointId, gateway: Parts, caller: Operator) -> Any:
    """Stops attempts. Deliveries wait, also new ones, until the endpoint is resumed; none is dropped."""
    async with changing(gateway.database, caller) as change:
        row = granted(await endpoint_lifecycle.pause(change, gateway.vault, endpoint_id))
        return await shown(gateway.vault, change.connection, row)


@router.post(
    "/{endpoint_id}/resume", response_model=Endpoint, operation_id="resumeEndpoint", summary="Resume an endpoint"
)
async def resume(endpoint_id: EndpointId, gateway: Parts, caller: Operator) -> Any:
    """Starts attempts again, also where the gateway has disabled the endpoint. What waited goes out now."""
    async with changing(gateway.database, caller) as change:
        row = granted(await endpoint_lifecycle.resume(change, gateway.vault, endpoint_id))
        return await shown(gateway.vault, change.connection, row)


@router.post(
    "/{endpoint_id}/test",
    status_code=202,
    response_model=QueuedDelivery,
    operation_id="testEndpoint",
    summary="Send a test event to an endpoint",
)
async def send_test(
    endpoint_id: EndpointId,
    gateway: Parts,
    caller: Operator,
    body: Annotated[TestSend | None, Body()] = None,
) -> Any:
    """Sends an event type's example, signed and retried like any other event, to this endpoint only."""
    event_type = (body or TestSend()).event_type
    async with changing(gateway.database, caller) as change:
        return granted(
            await endpoint_lifecycle.send_test(change, gateway.vault, gateway.catalogue, endpoint_id, event_type)
        )


@router.get(
    "/{endpoint_id}/held-keys",
    response_model=HeldKeyPage,
    operation_id="listHeldKeys",
    summary="List an endpoint's held ordering keys",
)
async def held_keys(endpoint_id: EndpointId, query: Annotated[Paging, Query()], gateway: Parts, caller: Reader) -> Any:
    """Lists the ordering keys of a strict endpoint that wait, since a delivery of theirs is dead."""
    async with gateway.database.begin() as connection:
        granted(await find(connection, caller, endpoint_id))
        rows = await endpoints.held_page(
            connection, endpoint_id, after=read_number_cursor(query.cursor), limit=query.limit + 1
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
        return await shown(gateway.vault, change.connection, row)
