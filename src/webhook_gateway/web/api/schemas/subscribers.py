"""Partner organisations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from .shapes import Body, Shown, examples, unchanged
from .typed_ids import SUFFIX, SubscriberId
from .values import THIN, TIMES, CancelOpen, Content, Description, EventTypePattern, Name, ShownContent

_SUBSCRIBER: dict[str, Any] = {
    "name": "Northside Laboratory",
    "description": "Receives orders, sends results",
    "event_types": ["lab_order.*"],
    "external_id": "lab_3",
}

PermittedTypes = Annotated[
    list[EventTypePattern], Field(max_length=100, description="What it may have: its endpoints get nothing else.")
]


def _not_ours(text: str) -> str:
    if text.startswith("sub_"):
        raise PydanticCustomError("external_id", "Don't begin with sub_: that is how our own ids begin")
    return text


ExternalId = Annotated[
    Name, AfterValidator(_not_ours), Field(description="What the hospital's own systems call it; `to` takes it, too.")
]


class NewSubscriber(Body):
    """A partner organisation to be."""

    model_config = examples(_SUBSCRIBER)

    name: Name
    description: Description = ""
    event_types: PermittedTypes = Field(default_factory=list)
    external_id: ExternalId | None = None
    content: Content = Field(Content(level="thin"), description="How much it may have of each event, at most.")


class SubscriberChanges(Body):
    """What is left out stays as it is."""

    model_config = examples({"description": "Now also pathology"})

    name: Name = unchanged()
    description: Description = unchanged()
    event_types: PermittedTypes = unchanged()
    external_id: ExternalId | None = None
    content: Content = unchanged()
    cancel_open: CancelOpen = False


class Subscriber(Shown):
    """A partner organisation."""

    model_config = examples({"id": f"sub_{SUFFIX}", **_SUBSCRIBER, "content": THIN, **TIMES})

    id: SubscriberId
    name: str
    description: str
    event_types: list[str]
    external_id: str | None
    content: ShownContent = Field(description="How much it may have of each event; its endpoints get no more.")
    created_at: datetime
    updated_at: datetime
