"""Event types: the hospital's, which ship with the product, the gateway's own, and each tenant's.

Schemas are JSON Schema 2020-12, compiled once. A fault names where and which rule, never the value: it may be a
patient's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NoReturn
from uuid import UUID

import jsonschema_rs

from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.matching import OPERATIONAL

Source = Literal["catalogue", "gateway", "tenant"]


@dataclass(frozen=True, slots=True)
class EventType:
    """A name, what its data must look like, and an example.

    ``ordering_key`` is a template that is filled from the data: ``patient:{patient_id}``.
    """

    name: str
    description: str
    schema: Mapping[str, Any]
    example: Mapping[str, Any]
    ordering_key: str | None = None
    source: Source = "catalogue"


class Catalogue:
    """The event types that each tenant may use, with their validators."""

    def __init__(self) -> None:
        self._shipped = {known.name: known for known in (*shipped(), *operational())}
        self._own: dict[UUID, dict[str, EventType]] = {}
        self._validators: dict[tuple[UUID | None, str], jsonschema_rs.Draft202012Validator] = {}

    def replace(self, own: Mapping[UUID, list[EventType]]) -> None:
        """Takes the tenants' own types as they are now."""
        self._own = {tenant: {known.name: known for known in types} for tenant, types in own.items()}
        self._validators = {key: value for key, value in self._validators.items() if key[0] is None}

    def get(self, tenant_id: UUID, name: str) -> EventType | None:
        return self._shipped.get(name) or self._own.get(tenant_id, {}).get(name)

    def all(self, tenant_id: UUID) -> list[EventType]:
        """Every type of the tenant, by name."""
        return sorted((*self._shipped.values(), *self._own.get(tenant_id, {}).values()), key=lambda known: known.name)

    def is_valid(self, tenant_id: UUID, known: EventType, data: object) -> bool:
        return self._validator(tenant_id, known).is_valid(data)

    def faults(self, tenant_id: UUID, known: EventType, data: object) -> list[Fault]:
        """Every place where the data breaks the type's schema, by the schema's keyword."""
        return [_fault(error) for error in self._validator(tenant_id, known).iter_errors(data)]

    def _validator(self, tenant_id: UUID, known: EventType) -> jsonschema_rs.Draft202012Validator:
        key = (tenant_id if known.source == "tenant" else None, known.name)
        if key not in self._validators:
            self._validators[key] = compile_schema(known.schema)
        return self._validators[key]


class BadSchema(ValueError):
    """Not a JSON Schema (2020-12) that can be used here."""


def compile_schema(schema: Mapping[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """The schema's validator. References to anything outside the schema are refused: nothing is fetched.

    Raises:
        BadSchema: with a sentence that says what is wrong.
    """
    try:
        return jsonschema_rs.Draft202012Validator(dict(schema), validate_formats=True, retriever=_refuse)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise BadSchema(str(error).splitlines()[0]) from None


def example_faults(schema: Mapping[str, Any], example: object) -> list[Fault]:
    """Where a type's own example breaks its schema.

    Raises:
        BadSchema: see `compile_schema`.
    """
    return [_fault(error) for error in compile_schema(schema).iter_errors(example)]


@cache
def shipped() -> tuple[EventType, ...]:
    """The hospital's event types."""
    entries = json.loads(files("webhook_gateway.intake").joinpath("catalogue.json").read_bytes())
    return tuple(
        EventType(entry["type"], entry["fired_when"], entry["schema"], entry["example"], entry["ordering_key"])
        for entry in entries
    )


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

    def about(name: str, description: str, properties: dict[str, Any], example: dict[str, Any]) -> EventType:
        schema = {"type": "object", "title": name, "properties": properties, "required": ["endpoint_id"]}
        return EventType(OPERATIONAL + name, description, schema, example, source="gateway")

    return (
        about("endpoint_paused", "an administrator paused an endpoint", endpoint, {**example, "reason": "paused"}),
        about("endpoint_resumed", "an endpoint is attempted again", endpoint, {**example, "reason": None}),
        about("endpoint_disabled", "an endpoint is no longer attempted", endpoint, {**example, "reason": "gone"}),
        about(
            "breaker_opened", "an endpoint fails and is left alone for a while", endpoint, {**example, "reason": None}
        ),
        about("breaker_closed", "an endpoint that failed answers again", endpoint, {**example, "reason": None}),
        about("delivery_dead", "every attempt failed", delivery, {**example, **ids, "reason": "attempts_exhausted"}),
        about("test", "an administrator tests an endpoint", endpoint, {**example, "reason": None}),
    )


def _refuse(reference: str) -> NoReturn:
    raise ValueError("the schema refers to another document: put it into $defs")


def _fault(error: jsonschema_rs.ValidationError) -> Fault:
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in error.instance_path)
    rule = str(error.schema_path[-1]) if error.schema_path else "schema"
    return Fault(rule, _remedy(rule, error.kind), pointer)


def _remedy(rule: str, kind: object) -> str:
    """What to do, from the schema alone."""
    match kind:
        case jsonschema_rs.ValidationErrorKind.Required(property=name):
            return f"Add the member {name}."
        case jsonschema_rs.ValidationErrorKind.Type(types=types):
            return f"It must be of type {' or '.join(types)}."
        case jsonschema_rs.ValidationErrorKind.Format(format=name):
            return f"It must be a {name}."
        case jsonschema_rs.ValidationErrorKind.Enum():
            return "It must be one of the values that the event type's schema lists."
        case _:
            return f"It must satisfy {rule} of the event type's schema."
