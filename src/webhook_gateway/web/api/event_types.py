"""``/v1/event-types``: what may happen. Those that ship with the product can be read, one's own can be made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.intake.catalogue import BadSchema, EventType, example_faults
from webhook_gateway.rules.matching import LONGEST_NAME, OPERATIONAL
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import event_types
from webhook_gateway.store.notifications import CONFIGURATION
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import Fault, Problem, conflict, invalid, not_found

from .dependencies import AnyCaller, Gateway, Parts, changing, needs
from .schemas.event_types import EventType as ShownEventType
from .schemas.event_types import EventTypeChanges, EventTypeList, NewEventType

router = APIRouter(prefix="/v1/event-types", tags=["Event types"])

Admin = Annotated[Caller, needs(Scope.ADMIN, whole_tenant=True)]
Name = Annotated[str, Path(max_length=LONGEST_NAME, pattern=r"^[a-z0-9_.]+$", examples=["lab_result.final"])]


@router.get("", response_model=EventTypeList, operation_id="listEventTypes", summary="List event types")
async def every(gateway: Parts, caller: AnyCaller) -> Any:
    """Lists every event type: the shipped catalogue, the gateway's own (`gateway.*`), and the hospital's own."""
    async with gateway.database.begin() as connection:
        own = [_known(row) for row in await event_types.all_of(connection, caller.tenant_id)]
    shipped = [known for known in gateway.catalogue.all(caller.tenant_id) if known.source != "tenant"]
    return {"items": sorted((*shipped, *own), key=lambda known: known.name)}


@router.get("/{name}", response_model=ShownEventType, operation_id="getEventType", summary="Look at one event type")
async def one(name: Name, gateway: Parts, caller: AnyCaller) -> Any:
    """Shows one event type with its JSON Schema and an example."""
    async with gateway.database.begin() as connection:
        known = await known_type(gateway, connection, caller, name)
    if known is None:
        raise _unknown()
    return {
        "name": known.name,
        "description": known.description,
        "ordering_key": known.ordering_key,
        "source": known.source,
        "schema": known.schema,
        "example": known.example,
    }


@router.post(
    "", status_code=201, response_model=ShownEventType, operation_id="createEventType", summary="Add an event type"
)
async def create(body: NewEventType, gateway: Parts, caller: Admin) -> Any:
    """Adds an event type of the hospital's own. Its example has to fit its schema."""
    values = body.model_dump(by_alias=True)
    _check_name(gateway, caller, body.name)
    _check_schema(body.schema_, body.example)
    async with changing(gateway, caller, CONFIGURATION) as change:
        row = await event_types.create(change.connection, caller.tenant_id, values)
        if row is None:
            raise conflict("There is an event type of this name. Change that one, or choose another name.")
        change.note("event_type.created", body.name, after=_noted(values))
    await gateway.ingest.refresh()
    return {**row, "source": "tenant"}


@router.patch("/{name}", response_model=ShownEventType, operation_id="changeEventType", summary="Change an event type")
async def change_one(name: Name, body: EventTypeChanges, gateway: Parts, caller: Admin) -> Any:
    """Changes what the body holds and leaves the rest. Events that were accepted before are not judged again."""
    values = body.model_dump(by_alias=True, exclude_unset=True)
    async with changing(gateway, caller, CONFIGURATION) as change:
        before = await event_types.get(change.connection, caller.tenant_id, name, lock=True)
        if before is None:
            raise _not_own(gateway, caller, name)
        _check_schema(values.get("schema", before["schema"]), values.get("example", before["example"]))
        row = await event_types.change(change.connection, caller.tenant_id, name, values)
        change.note(
            "event_type.changed", name, before=_noted({name: before[name] for name in values}), after=_noted(values)
        )
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
    async with changing(gateway, caller, CONFIGURATION) as change:
        if not await event_types.delete(change.connection, caller.tenant_id, name):
            raise _not_own(gateway, caller, name)
        change.note("event_type.deleted", name)
    await gateway.ingest.refresh()


async def known_type(gateway: Gateway, connection: AsyncConnection, caller: Caller, name: str) -> EventType | None:
    """A shipped type, or the tenant's own as it is now in the database."""
    known = gateway.catalogue.get(caller.tenant_id, name)
    if known is not None and known.source != "tenant":
        return known
    row = await event_types.get(connection, caller.tenant_id, name)
    return None if row is None else _known(row)


def _known(row: RowMapping) -> EventType:
    return EventType(row["name"], row["description"], row["schema"], row["example"], row["ordering_key"], "tenant")


def _check_name(gateway: Gateway, caller: Caller, name: str) -> None:
    if name.startswith(OPERATIONAL):
        raise invalid(Fault("reserved", "Choose another name: gateway. is the gateway's own.", pointer="/name"))
    known = gateway.catalogue.get(caller.tenant_id, name)
    if known is not None and known.source != "tenant":
        raise conflict("The shipped catalogue has an event type of this name. Use it, or choose another name.")


def _check_schema(schema: Mapping[str, Any], example: object) -> None:
    try:
        faults = example_faults(schema, example)
    except BadSchema:
        # The parser's own sentence may quote the schema, which was given: it is told which rules hold instead.
        remedy = "Give a JSON Schema (2020-12) that refers to nothing outside itself."
        raise invalid(Fault("schema", remedy, pointer="/schema")) from None
    if faults:
        raise invalid(*(Fault(f.rule, f.remedy, pointer="/example" + f.pointer) for f in faults[:50]))


def _noted(values: Mapping[str, Any]) -> dict[str, Any]:
    """For the audit log: schema and example by their hashes, which show that they changed without filling it up."""
    return {
        f"{name}_sha256" if name in {"schema", "example"} else name: _sha256(value)
        if name in {"schema", "example"}
        else value
        for name, value in values.items()
    }


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _not_own(gateway: Gateway, caller: Caller, name: str) -> Problem:
    if (known := gateway.catalogue.get(caller.tenant_id, name)) is not None and known.source != "tenant":
        return conflict("This event type ships with the product: it can't be changed.")
    return _unknown()


def _unknown() -> Problem:
    return not_found("event type")
