"""Values that more than one noun has, and what is refused in them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from webhook_gateway.rules.labels import LABEL, LONGEST_LABEL, PROSE
from webhook_gateway.rules.matching import LONGEST_NAME
from webhook_gateway.rules.views import LONGEST_POINTER, MOST_POINTERS

from .shapes import Body, Shown, examples, matching

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _written_time(value: object) -> object:
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise PydanticCustomError("time", "Give an RFC 3339 time with its offset, as in 2026-11-24T09:30:00Z")


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:  # an offset at the edge of the calendar
        return value.replace(tzinfo=UTC)


Time = Annotated[AwareDatetime, BeforeValidator(_written_time), AfterValidator(_in_utc)]
"""RFC 3339 with an offset."""

Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LONGEST_LABEL,
        pattern=matching(LABEL, "printable text that neither begins nor ends with a space"),
        description="Printable text that neither begins nor ends with a space.",
    ),
]

WITHOUT_NUL = matching(r"^[^\x00]*$", "text without the character U+0000")
Description = Annotated[
    str,
    Field(
        max_length=1_000,
        pattern=matching(PROSE, "text without control characters and such as change its direction"),
        description="For people.",
    ),
]

EventTypeName = Annotated[
    str,
    Field(
        max_length=LONGEST_NAME,
        pattern=matching(
            r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$",
            "words of a-z, 0-9 and _, joined by dots, as in lab_result.final",
        ),
        description="Words joined by dots.",
        examples=["lab_result.final"],
    ),
]

EventTypePattern = Annotated[
    str,
    Field(
        max_length=LONGEST_NAME,
        pattern=matching(
            r"^(\*|[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*(\.\*)?)$",
            "the name of an event type, the beginning of some as in lab_result.*, or * for all",
        ),
        description="A name, a prefix (`lab_result.*`), or `*` for every type but the gateway's own.",
        examples=["lab_result.*"],
    ),
]

Url = Annotated[
    str,
    Field(
        max_length=2_048,
        description="Where events are POSTed: https, a public host, port 443 or 8443 unless an operator allows more.",
        examples=["https://partner.example.com/webhooks"],
    ),
]

CancelOpen = Annotated[
    bool, Field(strict=True, description="Cancel open deliveries that it may not have any more; else that is refused.")
]

Pointer = Annotated[str, Field(max_length=LONGEST_POINTER, description="A JSON Pointer (RFC 6901) into `data`.")]
Pointers = Annotated[
    list[Pointer], Field(max_length=MOST_POINTERS, description="`*` in a pointer stands for every item of a list.")
]


class Content(Body):
    """How much of an event: `full`, `fields` (what `pointers` lead to), or `thin` (what the type says)."""

    model_config = examples({"level": "fields", "pointers": ["/contact", "/starts_at"], "subject": False})

    level: Literal["full", "fields", "thin"]
    pointers: Pointers | None = Field(None, description="With `fields`, and only there. `[]` is nothing of `data`.")
    subject: bool | None = Field(None, strict=True, description="Whether `subject` is in it; by default with `full`.")

    @model_validator(mode="before")
    @classmethod
    def _by_its_level(cls, given: Any) -> Any:
        return {"level": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _pointers_with_fields(self) -> Content:
        if (self.level == "fields") is (self.pointers is None):
            raise PydanticCustomError("pointers", "Give `pointers` with the level fields, and only with it")
        return self

    @model_serializer
    def _as_stored(self) -> dict[str, Any]:
        subject = self.level == "full" if self.subject is None else self.subject
        stored = {"level": self.level, "subject": subject}
        return stored if self.pointers is None else {**stored, "pointers": self.pointers}


class ShownContent(Shown):
    """How much of an event, and what that means."""

    level: Literal["full", "fields", "thin"]
    pointers: list[str] | None = None
    subject: bool
    means: str


THIN = {"level": "thin", "pointers": None, "subject": False, "means": "It gets what a thin body of each type has …"}
TIMES = {"created_at": "2026-11-23T08:00:00Z", "updated_at": "2026-11-23T08:00:00Z"}
"""Of examples."""
