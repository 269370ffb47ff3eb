"""Who got what: how it is asked for, and what is told."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from .shapes import Paging, Shown, examples, matching
from .typed_ids import SUFFIX, EventId, SubscriberId
from .values import Time

HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class DisclosureSearch(Paging):
    """Of whom: one of `patient`, `event_id` and `subscriber_id`."""

    model_config = examples(
        {"subscriber_id": f"sub_{SUFFIX}", "from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}
    )

    patient: str | None = Field(None, min_length=1, max_length=256, description="As events name them.")
    event_id: EventId | None = None
    subscriber_id: SubscriberId | None = None
    since: Time | None = Field(None, alias="from", description="Sent at or after; by default all that is kept.")
    until: Time | None = Field(None, alias="to", description="Sent before.")
    format: Literal["json", "csv"] = "json"

    @model_validator(mode="after")
    def _of_one(self) -> DisclosureSearch:
        if sum(one is not None for one in (self.patient, self.event_id, self.subscriber_id)) != 1:
            raise PydanticCustomError("one_of", "Give one of patient, event_id and subscriber_id")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise PydanticCustomError("range", "Give a `from` that is before `to`")
        return self


class DisclosureVerification(Paging):
    """A body as it was sent, byte for byte, or its SHA-256 (`digest`), and which event it is of."""

    model_config = examples({"event_id": f"evt_{SUFFIX}", "digest": HASH})

    event_id: EventId | None = Field(None, description="May be left out with a body, which has it as its `id`.")
    body: str | None = None
    digest: str | None = Field(None, pattern=matching(r"^[0-9a-f]{64}$", "64 hexadecimal digits, in lower case"))

    @model_validator(mode="after")
    def _one_of_both(self) -> DisclosureVerification:
        if (self.body is None) == (self.digest is None):
            raise PydanticCustomError("one_of", "Give `body` or its `digest`, and not both")
        return self


class Disclosure(Shown):
    """What may have reached somebody: an attempt, attempts that nobody wrote down, or looks at a body."""

    model_config = examples(
        {
            "at": "2026-11-23T08:00:00Z",
            "latest": None,
            "reached": "confirmed",
            "recorded": True,
            "times": 1,
            "subscriber": "Northside Insurance",
            "host": "partner.example.com",
            "content": "fields",
            "pointers": ["/claim_id"],
            "event_type": "insurance_claim.submitted",
            "event_id": f"evt_{SUFFIX}",
            "delivery_id": f"dlv_{SUFFIX}",
            "endpoint_id": f"ep_{SUFFIX}",
            "subscriber_id": f"sub_{SUFFIX}",
            "revision": 3,
            "reason": None,
            "attempt": 1,
            "status": 200,
            "fetched_by": None,
            "body_hash": HASH,
            "matches": None,
        }
    )

    at: datetime
    latest: datetime | None = Field(description="Where it is not one moment: until when.")
    reached: Literal["confirmed", "possible", "fetched"] = Field(
        description="`confirmed` by a 2xx; `possible`: it left, or may have left; `fetched` over this API."
    )
    recorded: bool = Field(description="False where a worker ended before it could write down whether it sent.")
    times: int = Field(description="How often it was sent, or fetched; where it is not recorded: at most.")
    subscriber: str | None = Field(description="Its name then. Null where the hospital's own key fetched it.")
    host: str | None = Field(description="Of the URL that it was sent to.")
    content: str | None = Field(description="How much of the event: `full`, `fields`, `thin`.")
    pointers: list[str] | None = Field(description="What of `data` at most, where that is not all.")
    event_type: str | None
    event_id: str
    delivery_id: str | None
    endpoint_id: str | None
    subscriber_id: str | None
    revision: int | None = Field(
        description="Of what the endpoint was; null where it wasn't kept yet: subscriber and host are then the oldest "
        "that are known."
    )
    reason: str | None = Field(description="`replay`, `test`, or null for the first delivery.")
    attempt: int | None
    status: int | None
    fetched_by: str | None = Field(description="The key that fetched it.")
    body_hash: str | None = Field(description="Keyed, of what was sent: see `verify`. Null before it was kept.")
    matches: bool | None = Field(None, description="Asked to verify: whether it is this body; null without a hash.")
