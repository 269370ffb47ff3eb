"""Accepted events. How they come in is in `web/api/events.py`: the byte routes have no pydantic."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from webhook_gateway.rules.sentences import WhyNot
from webhook_gateway.rules.waiting import Reason

from .deliveries import DELIVERY, EXPLANATION, Delivery, Explanation
from .shapes import Paging, Shown, examples
from .typed_ids import SUFFIX, DeliveryId, EndpointId, EventId, SubscriberId
from .values import EventTypeName, Time

_EVENT: dict[str, Any] = {
    "id": f"evt_{SUFFIX}",
    "type": "lab_result.final",
    "timestamp": "2026-11-23T07:59:59Z",
    "accepted_at": "2026-11-23T08:00:00Z",
    "size": 812,
}


class Event(Shown):
    """An accepted event, but for its body."""

    model_config = examples(_EVENT)

    id: EventId
    type: str
    timestamp: datetime = Field(validation_alias="occurred_at")
    accepted_at: datetime
    size: int | None = Field(
        description="Bytes of the whole body; null for a subscriber's key, which may get less of it."
    )


class EventDetail(Event):
    """With what became of it."""

    model_config = examples(
        _EVENT
        | {"to": None, "fanout": "done", "waiting_for": None, "matched": 1}
        | {"explanation": {**EXPLANATION, "sentence": "It went to 1 endpoint: 1 pending."}, "deliveries": [DELIVERY]}
    )

    to: list[SubscriberId] | None = Field(description="The only subscribers that it is for; not told to one of them.")
    fanout: Literal["pending", "done"] = Field(description="Whether its deliveries have been made.")
    waiting_for: Literal[Reason.FAN_OUT, Reason.NO_WORKER] | None = Field(
        description="Why they have not; `no_worker`: no worker is alive that could make them."
    )
    matched: int = Field(description="Endpoints that wanted it.")
    explanation: Explanation
    deliveries: list[Delivery] = Field(description="The newest 200, replays included.")


class EventAtEndpoint(Shown):
    """How an event's latest delivery to an endpoint stands, or why there is none."""

    model_config = examples(
        {"endpoint_id": f"ep_{SUFFIX}", "subscriber_id": f"sub_{SUFFIX}", "delivery_id": f"dlv_{SUFFIX}"}
        | {"reason": None, "explanation": EXPLANATION}
    )

    endpoint_id: EndpointId
    subscriber_id: SubscriberId
    delivery_id: DeliveryId | None
    reason: WhyNot | None = Field(description="Why it has no delivery, of several reasons the first.")
    explanation: Explanation


class EventQuery(Paging):
    """Which events. `since` and `until` bound when they were accepted."""

    type: EventTypeName | None = None
    idempotency_key: str | None = Field(None, min_length=1, max_length=256, description="What it was posted with.")
    since: Time | None = None
    until: Time | None = None


class Payload(Shown):
    """The body that partners get."""

    model_config = examples(
        {
            "id": f"evt_{SUFFIX}",
            "type": "staff_shift.assigned",
            "timestamp": "2026-11-23T07:59:59.000Z",
            "data": {"staff_id": "st_19"},
        }
    )

    id: str
    type: str
    timestamp: str
    subject: str | None = None
    data: Any
