"""``/v1/event-types``: what may happen. Those that ship with the product can be read, one's own can be made."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from webhook_gateway.operations import event_types
from webhook_gateway.operations.change import changing
from webhook_gateway.operations.refusals import NotFound
from webhook_gateway.rules.matching import LONGEST_NAME
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import event_types as stored
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import granted

from .dependencies import AnyCaller, Parts, needs
from .schemas.event_types import EventType as ShownEventType
from .schemas.event_types import EventTypeChanges, EventTypeList, NewEventType

router = APIRouter(prefix="/v1/event-types", tags=["Event types"])

Admin = Annotated[Caller, needs(Scope.ADMIN, whole_tenant=True)]
Name = Annotated[str, Path(max_length=LONGEST_NAME, pattern=r"^[a-z0-9_.]+$", examples=["lab_result.final"])]


@router.get("", response_model=EventTypeList, operation_id="listEventTypes", summary="List event types")
async def every(gateway: Parts, caller: AnyCaller) -> Any:
    """Lists every event type: the shipped catalogue, the gateway's own (`gateway.*`), and the hospital's own."""
    async with gateway.database.begin() as connection:
        own = [event_types.own_type(row) for row in await stored.all_of(connection, caller.tenant_id)]
    shipped = [known for known in gateway.catalogue.all(caller.tenant_id) if known.source != "tenant"]
    return {"items": sorted((*shipped, *own), key=lambda known: known.name)}


@router.get("/{name}", response_model=ShownEventType, operation_id="getEventType", summary="Look at one event type")
async def one(name: Name, gateway: Parts, caller: AnyCaller) -> Any:
    """Shows one event type with its JSON Schema and an example."""
    async with gateway.database.begin() as connection:
        known = await event_types.known_type(connection, gateway.catalogue, caller.tenant_id, name)
    return asdict(granted(known or NotFound.EVENT_TYPE))


@router.post(
    "", status_code=201, response_model=ShownEventType, operation_id="createEventType", summary="Add an event type"
)
async def create(body: NewEventType, gateway: Parts, caller: Admin) -> Any:
    """Adds an event type of the hospital's own. Its example has to fit its schema."""
    given = body.model_dump(by_alias=True)
    granted(await event_types.check(gateway.catalogue, given))
    async with changing(gateway.database, caller) as change:
        row = granted(await event_types.create(change, gateway.catalogue, given))
    await gateway.ingest.refresh()
    return {**row, "source": "tenant"}


@router.patch("/{name}", response_model=ShownEventType, operation_id="changeEventType", summary="Change an event type")
async def change_one(name: Name, body: EventTypeChanges, gateway: Parts, caller: Admin) -> Any:
    """Changes what the body holds and leaves the rest. Events that were accepted before are not judged again."""
    given = body.model_dump(by_alias=True, exclude_unset=True)
    checked = granted(await event_types.check_change(gateway.database, gateway.catalogue, caller, name, given))
    async with changing(gateway.database, caller) as change:
        row = granted(await event_types.change_one(change, gateway.catalogue, checked, given))
    await gateway.ingest.refresh()
    return {**row, "source": "tenant"}


@router.delete(
    "/{name}",
    status_code=204,
    response_class=Response,
    operation_id="deleteEventType",
    summary="Delete an event type",
)
async def delete(name: Name, gateway: Parts, caller: Admin) -> None:
    """Deletes an event type of the hospital's own: no more events of it are accepted. Accepted ones are delivered."""
    async with changing(gateway.database, caller) as change:
        granted(await event_types.delete(change, gateway.catalogue, name))
    await gateway.ingest.refresh()
