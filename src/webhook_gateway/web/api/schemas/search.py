"""What a text is found to be."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from webhook_gateway.intake.lookups import Kind

from .shapes import Paging, Shown, examples
from .typed_ids import SUFFIX

Noun = Literal["event", "delivery", "endpoint", "subscriber", "replay", "key"]
What = Noun | Kind

_EVENT: dict[str, Any] = {
    "kind": "event",
    "id": f"evt_{SUFFIX}",
    "type": "lab_result.final",
    "found_by": ["patient"],
    "at": "2026-11-23T08:00:00Z",
    "link": f"/v1/events/evt_{SUFFIX}",
    "deliveries": f"/v1/deliveries?event_id=evt_{SUFFIX}",
}


class Search(Paging):
    """What to look for. It is in the body, since a URL is written down in many places."""

    model_config = examples({"q": f"evt_{SUFFIX}"})

    q: str = Field(min_length=1, max_length=256, description="An id, or a key that came with an event.")


class Hit(Shown):
    """Something that the text leads to."""

    model_config = examples(_EVENT)

    kind: Noun
    id: str
    type: str | None = Field(description="Of an event that is still kept.")
    found_by: list[What]
    at: datetime = Field(description="When it was accepted, or made.")
    link: str = Field(description="Where to look at it; of an event whose day has gone, what became of it.")
    deliveries: str | None = Field(description="Where its deliveries are listed.")


class SearchAnswer(Shown):
    """What the text is found to be on this page, and where that leads, newest first."""

    model_config = examples(
        {
            "found": ["patient"],
            "items": [_EVENT],
            "next_cursor": None,
            "not_searched": [],
            "indexed_since": "2026-11-01T08:00:00Z",
        }
    )

    found: list[What] = Field(description="Empty where it is nothing that is known here.")
    items: list[Hit]
    next_cursor: str | None = Field(description="Where the next page begins, also after one that is short, or empty.")
    not_searched: list[What] = Field(description="What it may be, too, and the key lacks the scope to look for.")
    indexed_since: datetime = Field(
        description="Events accepted before are found by their id, and for 72 hours by their idempotency key."
    )
