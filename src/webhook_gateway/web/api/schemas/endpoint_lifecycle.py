"""How an endpoint fares: its health, the ordering keys that it holds, and a test of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from .deliveries import ATTEMPT, QUEUED, Attempt, QueuedDelivery
from .shapes import Body, Shown, examples
from .typed_ids import SUFFIX, DeliveryId, EventId
from .values import EventTypeName, Name


class Breaker(StrEnum):
    """`open`: left alone for a while; `half_open`: one request may probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class EndpointHealth(Shown):
    """What recent attempts say."""

    breaker: Breaker = Breaker.CLOSED
    failures_in_a_row: int = 0
    failing_since: datetime | None = None
    open_until: datetime | None = None
    retry_after_until: datetime | None = Field(
        None, validation_alias="held_until", description="The partner asked for silence until then (Retry-After)."
    )


class Pause(Body):
    """Why: it stands in the audit log, and in what is said of deliveries that wait, also to the partner's keys."""

    model_config = examples({"reason": "certificate change"})

    reason: Name | None = None


class TestSend(Body):
    """What to send: the example of a type that the endpoint gets, or `gateway.test`."""

    model_config = examples({"event_type": "lab_result.final"})

    event_type: EventTypeName | None = Field(None, description="null: the first that the endpoint gets.")


class SentTest(QueuedDelivery):
    """A test, and its attempt, where that was over in time: else look at the delivery."""

    model_config = examples({**QUEUED, "attempt": ATTEMPT}, {**QUEUED, "attempt": None})

    attempt: Attempt | None = None


_HELD_KEY = {
    "ordering_key": "-4235713561732571313",
    "delivery_id": f"dlv_{SUFFIX}",
    "event_id": f"evt_{SUFFIX}",
    "held_at": "2026-11-23T08:00:00Z",
    "waiting": 3,
}


class HeldKey(Shown):
    """An ordering key of a strict endpoint that waits, since a delivery of it is dead."""

    model_config = examples(_HELD_KEY)

    ordering_key: str = Field(description="The key's 64-bit hash: the key itself is not kept.")
    delivery_id: DeliveryId | None = Field(description="The dead delivery; null where a filter may keep it from you.")
    event_id: EventId | None
    held_at: datetime
    waiting: int = Field(description="Deliveries that wait behind it.")
