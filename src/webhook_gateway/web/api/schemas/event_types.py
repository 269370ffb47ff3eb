"""What may happen."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from .shapes import Body, Shown, examples, matching, unchanged
from .values import Description, EventTypeName, Pointers


def _as_json_holds_it(value: Any, depth: int = 0) -> Any:
    """
    Raises:
        PydanticCustomError: a number or text that no JSON in the database can hold, or nesting without sense.
    """
    if depth > 64:
        raise PydanticCustomError("depth", "Nest at most 64 levels deep")
    match value:
        case str():
            if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
                raise PydanticCustomError("text", "Remove the characters U+0000 and lone surrogates")
        case float():
            if not math.isfinite(value):
                raise PydanticCustomError("number", "Give a finite number")
        case dict():
            for name, member in value.items():
                _as_json_holds_it(name, depth)
                _as_json_holds_it(member, depth + 1)
        case list():
            for item in value:
                _as_json_holds_it(item, depth + 1)
        case _:
            pass
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_as_json_holds_it)]


class Source(StrEnum):
    """Who an event type comes from."""

    CATALOGUE = "catalogue"
    GATEWAY = "gateway"
    TENANT = "tenant"


_EVENT_TYPE: dict[str, Any] = {
    "name": "dialysis.session_ended",
    "description": "A dialysis session was documented as ended",
    "ordering_key": "patient:{patient_id}",
    "schema": {
        "type": "object",
        "properties": {"patient_id": {"type": "string", "x-phi": "pseudonym"}, "minutes": {"type": "integer"}},
        "required": ["patient_id"],
    },
    "example": {"patient_id": "pat_7c1e9a52", "minutes": 240},
    "thin": ["/minutes"],
    "patient": ["/patient_id"],
}

OrderingKeyTemplate = Annotated[
    str,
    Field(
        max_length=256,
        pattern=matching(
            r"^[^{}\x00-\x1f\x7f]*(\{[A-Za-z0-9_]+\}[^{}\x00-\x1f\x7f]*)+$",
            "text with at least one member of the data in braces, as in patient:{patient_id}",
        ),
        description="How the ordering key is made from the data.",
        examples=["patient:{patient_id}"],
    ),
]

Thin = Annotated[Pointers, Field(description="What of the data a thin body has. Choose what tells nothing by itself.")]
Patient = Annotated[Pointers, Field(max_length=8, description="Where the data has ids of patients.")]


class NewEventType(Body):
    """An event type of one's own."""

    model_config = examples(_EVENT_TYPE)

    name: EventTypeName
    description: Description = ""
    schema_: JsonObject = Field(alias="schema", description="JSON Schema 2020-12 of `data`. Refers to nothing outside.")
    example: JsonObject = Field(description="Data that fits the schema, with nobody's real values.")
    ordering_key: OrderingKeyTemplate | None = None
    thin: Thin = Field(default_factory=list)
    patient: Patient = Field(default_factory=list)


class EventTypeChanges(Body):
    """What is left out stays as it is. Events that were accepted before are not judged again."""

    model_config = examples({"description": "A dialysis session has ended"})

    description: Description = unchanged()
    schema_: JsonObject = unchanged(alias="schema")
    example: JsonObject = unchanged()
    ordering_key: OrderingKeyTemplate | None = None
    thin: Thin = unchanged()
    patient: Patient = unchanged()


class EventTypeSummary(Shown):
    """An event type, but for its schema and example."""

    model_config = examples(
        {name: _EVENT_TYPE[name] for name in ("name", "description", "ordering_key")} | {"source": "tenant"}
    )

    name: str
    description: str
    ordering_key: str | None
    source: Source


class EventType(EventTypeSummary):
    """What may happen, and what its data looks like."""

    model_config = examples({**_EVENT_TYPE, "source": "tenant"})

    schema_: dict[str, Any] = Field(alias="schema")
    example: dict[str, Any]
    thin: list[str]
    patient: list[str]


class EventTypeList(Shown):
    """Every event type, by name."""

    items: list[EventTypeSummary]
