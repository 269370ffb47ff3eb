"""Event types: the hospital's, which ship with the product, the gateway's own, and each tenant's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal
from uuid import UUID

from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.matching import OPERATIONAL
from webhook_gateway.rules.schema_cost import SchemaRefused
from webhook_gateway.rules.views import Tree, tree_of

from . import schema_check
from .schemas import Schema

Source = Literal["catalogue", "gateway", "tenant"]


@dataclass(frozen=True, slots=True)
class EventType:
    """A name, what its data must look like, and an example.

    ``ordering_key`` is a template that is filled from the data: ``patient:{patient_id}``. ``thin`` and ``patient`` are
    JSON Pointers into the data: what a thin body has of it, and where the ids of patients are.
    """

    name: str
    description: str
    schema: Mapping[str, Any]
    example: Mapping[str, Any]
    ordering_key: str | None = None
    source: Source = "catalogue"
    thin: Sequence[str] = ()
    patient: Sequence[str] = ()


class Catalogue:
    """The event types that each tenant may use, with their schemas."""

    def __init__(self) -> None:
        self._shipped = {known.name: known for known in (*shipped(), *operational())}
        self._own: dict[UUID, dict[str, EventType]] = {}
        self._checks = asyncio.Semaphore(schema_check.AT_ONCE)
        self._compiled: dict[tuple[UUID | None, str], Schema | SchemaRefused] = {}

    def replace(self, own: Mapping[UUID, list[EventType]]) -> None:
        """Takes the tenants' own types as they are now."""
        self._own = {tenant: {known.name: known for known in types} for tenant, types in own.items()}
        self._compiled = {key: value for key, value in self._compiled.items() if key[0] is None}

    def get(self, tenant_id: UUID, name: str) -> EventType | None:
        return self._shipped.get(name) or self._own.get(tenant_id, {}).get(name)

    def all(self, tenant_id: UUID) -> list[EventType]:
        """Every type of the tenant, by name."""
        return sorted((*self._shipped.values(), *self._own.get(tenant_id, {}).values()), key=lambda known: known.name)

    async def check(self, schema: Mapping[str, Any], example: object) -> tuple[Fault, ...]:
        """Where the example of a new type breaks its schema, found in a process of its own.

        Raises:
            SchemaRefused: the schema can't be used.
        """
        return await schema_check.check(schema, example, self._checks)

    def compiled(self, tenant_id: UUID, known: EventType) -> Schema:
        """The type's schema, compiled when it is first needed.

        Raises:
            SchemaRefused: it can't be used.
        """
        key = (tenant_id if known.source == "tenant" else None, known.name)
        found = self._compiled.get(key)
        if found is None:
            try:
                found = self._compiled[key] = Schema(known.schema)
            except SchemaRefused as refused:
                found = self._compiled[key] = refused
        if isinstance(found, SchemaRefused):
            raise found
        return found


@cache
def shipped() -> tuple[EventType, ...]:
    """The hospital's event types."""
    entries = json.loads(files("webhook_gateway.intake").joinpath("catalogue.json").read_bytes())
    members = ("type", "fired_when", "schema", "example", "ordering_key", "source", "thin", "patient")
    return tuple(EventType(*({"source": "catalogue", **entry}[member] for member in members)) for entry in entries)


@cache
def thin_of(name: str) -> Tree | None:
    """What a thin body has of a type that ships with the product."""
    found = [known.thin for known in (*shipped(), *operational()) if known.name == name]
    return tree_of(found[0]) if found else None


@cache
def operational() -> tuple[EventType, ...]:
    """What the gateway says about itself. Only operators subscribe to these: ``*`` leaves them out."""
    endpoint = {
        "endpoint_id": {"type": "string"},
        "subscriber_id": {"type": "string"},
        "reason": {"type": ["string", "null"]},
    }
    example = {"endpoint_id": "ep_01h455vb4pex5vsknk084sn02q", "subscriber_id": "sub_01h455vb4pex5vsknk084sn02q"}
    delivery = {**endpoint, "delivery_id": {"type": "string"}, "event_id": {"type": "string"}}
    ids = {"delivery_id": "dlv_01h455vb4pex5vsknk084sn02q", "event_id": "evt_01h455vb4pex5vsknk084sn02q"}

    event = {
        "event_id": {"type": "string"},
        "event_type": {"type": "string"},
        "subscriber_ids": {"type": "array", "items": {"type": "string"}},
    }
    undelivered = {
        "event_id": ids["event_id"],
        "event_type": "insurance_claim.denied",
        "subscriber_ids": [example["subscriber_id"]],
    }

    def about(name: str, description: str, properties: dict[str, Any], example: dict[str, Any]) -> EventType:
        required = [name for name in ("endpoint_id", "event_id") if name in properties][:1]
        schema = {"type": "object", "title": name, "properties": properties, "required": required}
        return EventType(OPERATIONAL + name, description, schema, example, source="gateway", thin=("",))

    return (
        about("endpoint_created", "an endpoint was added", endpoint, {**example, "reason": None}),
        about("endpoint_changed", "an endpoint is set up in another way", endpoint, {**example, "reason": None}),
        about("endpoint_deleted", "an endpoint was deleted", endpoint, {**example, "reason": None}),
        about("endpoint_recovered", "an endpoint answers after an hour or more", endpoint, {**example, "reason": None}),
        about("endpoint_paused", "an administrator paused an endpoint", endpoint, {**example, "reason": "paused"}),
        about("endpoint_resumed", "an endpoint is attempted again", endpoint, {**example, "reason": None}),
        about("endpoint_url_changed", "an endpoint has another URL", endpoint, {**example, "reason": "another_host"}),
        about("endpoint_disabled", "an endpoint is no longer attempted", endpoint, {**example, "reason": "gone"}),
        about(
            "breaker_opened", "an endpoint fails and is left alone for a while", endpoint, {**example, "reason": None}
        ),
        about("breaker_closed", "an endpoint that failed answers again", endpoint, {**example, "reason": None}),
        about(
            "delivery_dead",
            "a delivery was given up: reason says why",
            delivery,
            {**example, **ids, "reason": "attempts_exhausted"},
        ),
        about("event_undelivered", "an addressee has no endpoint that gets the event", event, undelivered),
        about("test", "an administrator tests an endpoint", endpoint, {**example, "reason": None}),
    )
