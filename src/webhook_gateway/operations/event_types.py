"""What may happen: a tenant's own event types. Those that ship with the product can't be changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.intake.catalogue import Catalogue, EventType
from webhook_gateway.rules import views
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.matching import OPERATIONAL
from webhook_gateway.rules.schema_cost import SchemaRefused
from webhook_gateway.store import event_types
from webhook_gateway.store.database import Database
from webhook_gateway.store.notifications import CONFIGURATION

from .change import Actor, Change
from .refusals import Conflict, Invalid, NotFound, Refusal

POINTERS = ("thin", "patient")
FITS_NOTHING = "Point at something that a schema of its event types names: GET /v1/event-types/{name} shows it."


async def check(catalogue: Catalogue, given: Mapping[str, Any]) -> Invalid | None:
    """Whether the schema can be used, and what else is given fits it; before any transaction: it takes a while."""
    try:
        found = await catalogue.check(given["schema"], given["example"])
    except SchemaRefused as refused:
        return Invalid((Fault("schema", str(refused), pointer=f"/schema{refused.pointer}"),))
    faults = [Fault(f.rule, f.remedy, pointer=f"/example{f.pointer}") for f in found]
    for member in POINTERS:
        faults += faults_of_pointers(given[member], [given["schema"]], f"/{member}")
    return Invalid(tuple(faults)) if faults else None


def faults_of_pointers(pointers: Sequence[str], schemas: Sequence[Mapping[str, Any]], place: str) -> list[Fault]:
    """Pointers that are none, or fit the data of none of these schemas."""
    if wrong := views.faults_of(pointers):
        return [Fault(fault.rule, fault.remedy, pointer=f"{place}{fault.pointer}") for fault in wrong]
    return [
        Fault("pointer", FITS_NOTHING, pointer=f"{place}/{at}")
        for at, pointer in enumerate(pointers)
        if not any(views.fits(schema, pointer) for schema in schemas)
    ]


async def check_change(
    database: Database, catalogue: Catalogue, actor: Actor, name: str, given: Mapping[str, Any]
) -> RowMapping | Refusal:
    """The type as it is before the change, if it may become what is ``given`` (see `check`)."""
    async with database.begin() as connection:
        before = await event_types.get(connection, actor.tenant_id, name)
    if before is None:
        return _not_own(catalogue, actor, name)
    return await check(catalogue, {**before, **given}) or before


async def create(change: Change, catalogue: Catalogue, given: Mapping[str, Any]) -> RowMapping | Refusal:
    """``given`` are its columns, which have been checked."""
    name = given["name"]
    if name.startswith(OPERATIONAL):
        remedy = "Choose another name: gateway. is the gateway's own."
        return Invalid((Fault("reserved", remedy, pointer="/name"),))
    if _ships(catalogue, change.actor, name):
        return Conflict.EVENT_TYPE_SHIPPED
    row = await event_types.create(change.connection, change.actor.tenant_id, given)
    if row is None:
        return Conflict.EVENT_TYPE_EXISTS
    change.note("event_type.created", name, CONFIGURATION, after=_noted(given))
    return row


async def change_one(
    change: Change, catalogue: Catalogue, checked: RowMapping, given: Mapping[str, Any]
) -> RowMapping | Refusal:
    """Changes what is ``given`` and leaves the rest. Events that were accepted before are not judged again.

    ``checked`` is the type as it was when the change was checked.
    """
    name = checked["name"]
    before = await event_types.get(change.connection, change.actor.tenant_id, name, lock=True)
    if before is None:
        return _not_own(catalogue, change.actor, name)
    if any(before[name] != checked[name] for name in ("schema", "example", *POINTERS)):
        return Conflict.EVENT_TYPE_CHANGED
    row = await event_types.change(change.connection, change.actor.tenant_id, name, given)
    kept = _noted({column: before[column] for column in given})
    change.note("event_type.changed", name, CONFIGURATION, before=kept, after=_noted(given))
    return row


async def delete(change: Change, catalogue: Catalogue, name: str) -> Refusal | None:
    """No more events of it are accepted. Accepted ones are delivered."""
    if not await event_types.delete(change.connection, change.actor.tenant_id, name):
        return _not_own(catalogue, change.actor, name)
    change.note("event_type.deleted", name, CONFIGURATION)
    return None


async def known_type(connection: AsyncConnection, catalogue: Catalogue, tenant_id: UUID, name: str) -> EventType | None:
    """A shipped type, or the tenant's own as it is now in the database."""
    known = catalogue.get(tenant_id, name)
    if known is not None and known.source != "tenant":
        return known
    row = await event_types.get(connection, tenant_id, name)
    return None if row is None else own_type(row)


def own_type(row: RowMapping) -> EventType:
    return EventType(**{part.name: {"source": "tenant", **row}[part.name] for part in fields(EventType)})


def _ships(catalogue: Catalogue, actor: Actor, name: str) -> bool:
    known = catalogue.get(actor.tenant_id, name)
    return known is not None and known.source != "tenant"


def _not_own(catalogue: Catalogue, actor: Actor, name: str) -> Conflict | NotFound:
    return Conflict.EVENT_TYPE_SHIPPED if _ships(catalogue, actor, name) else NotFound.EVENT_TYPE


def _noted(values: Mapping[str, Any]) -> dict[str, Any]:
    """For the audit log: schema and example by their hashes, which show that they changed without filling it up."""
    hashed = {"schema", "example"} & values.keys()
    noted = {f"{name}_sha256" if name in hashed else name: value for name, value in values.items()}
    return noted | {f"{name}_sha256": _sha256(values[name]) for name in hashed}


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
