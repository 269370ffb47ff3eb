"""Events on their way to endpoints, and what came of each attempt."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from webhook_gateway.rules.model import DeliveryState
from webhook_gateway.rules.waiting import Reason

from .shapes import Body, Paging, Shown, examples
from .typed_ids import SUFFIX, AttemptId, DeliveryId, EndpointId, EventId, SubscriberId
from .values import EventTypeName, Time

QUEUED = {"id": f"dlv_{SUFFIX}", "event_id": f"evt_{SUFFIX}", "endpoint_id": f"ep_{SUFFIX}"}


class QueuedDelivery(Shown):
    """A delivery that is on its way."""

    model_config = examples(QUEUED)

    id: DeliveryId
    event_id: EventId
    endpoint_id: EndpointId


WAITING_FOR = "\n".join(
    (
        "Why it is not attempted now, null where it has ended; of several reasons the one that lasts longest:\n",
        *(f"- `{reason}`: {reason.sentence}" for reason in Reason),
    )
)

DELIVERY: dict[str, Any] = {
    "id": f"dlv_{SUFFIX}",
    "event_id": f"evt_{SUFFIX}",
    "type": "lab_result.final",
    "endpoint_id": f"ep_{SUFFIX}",
    "subscriber_id": f"sub_{SUFFIX}",
    "subscriber": "Northside Laboratory",
    "state": "pending",
    "state_reason": None,
    "reason": None,
    "attempt": 2,
    "next_attempt_at": "2026-11-23T08:01:07Z",
    "waiting_for": "retry",
    "due_before": None,
    "created_at": "2026-11-23T08:00:00Z",
    "finished_at": None,
    "replayed_as": None,
}


class Delivery(Shown):
    """One event on its way to one endpoint."""

    model_config = examples(DELIVERY)

    id: DeliveryId
    event_id: EventId
    type: str
    endpoint_id: EndpointId
    subscriber_id: SubscriberId
    subscriber: str = Field(description="Its name, also where it was deleted since.")
    state: DeliveryState
    state_reason: str | None = Field(description="Why it is dead or cancelled.")
    reason: str | None = Field(description="`replay`, `backfill` or `test`; null where fan-out made it.")
    attempt: int = Field(description="Attempts so far.")
    next_attempt_at: datetime | None = Field(
        validation_alias="due_at",
        description="In the past where it is due; null where that is not a matter of time.",
    )
    waiting_for: Reason | None = Field(description=WAITING_FOR)
    due_before: int | None = Field(
        description="Where it is due: deliveries to the same endpoint that are due before it, counted up to 100."
    )
    created_at: datetime | None
    finished_at: datetime | None
    replayed_as: DeliveryId | None = Field(
        description="The delivery that sends it again, and stands for it from then on."
    )


EXPLANATION = {
    "sentence": "Next try in 4 minutes: attempt 3 of 10, after 503.",
    "next": "attempt 3 of 10",
    "next_at": "2026-11-23T08:05:00Z",
}


class Explanation(Shown):
    """How it stands, in a sentence for people, and what happens next. Times in the sentence are UTC."""

    model_config = examples(EXPLANATION)

    sentence: str
    next: str | None
    next_at: datetime | None = Field(description="null where that is not a matter of time.")


ATTEMPT: dict[str, Any] = {
    "id": f"att_{SUFFIX}",
    "attempt": 1,
    "started_at": "2026-11-23T08:00:00Z",
    "duration": 0.182,
    "phase": "answered",
    "outcome": "rejected",
    "status": 503,
    "detail": None,
    "tls_version": "TLSv1.3",
    "sends": 1,
    "response_length": 19,
    "response_type": "text/plain",
    "response_digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}


class Attempt(Shown):
    """One HTTP request. `phase` says how far it got: from `sent` on, the partner may have the event."""

    model_config = examples(ATTEMPT)

    id: AttemptId
    attempt: int
    started_at: datetime
    duration: float = Field(description="Seconds.")
    phase: str
    outcome: str
    status: int | None
    detail: str | None
    tls_version: str | None
    sends: int = Field(description="2 where a kept connection was closed, and the same request was sent again at once.")
    response_length: int | None
    response_type: str | None
    response_digest: str | None = Field(
        description="Equal for equal answers: a keyed hash, which tells nobody without the key what was in one."
    )


Outcome = Literal["accepted", "rejected", "timed_out", "unreachable", "blocked", "unsendable"]
HttpStatus = Annotated[int, Field(ge=100, le=599, description="The partner's HTTP status.")]


class EndpointAttempt(Attempt):
    """One HTTP request, and for which delivery."""

    model_config = examples({"delivery_id": f"dlv_{SUFFIX}", "event_id": f"evt_{SUFFIX}", **ATTEMPT})

    delivery_id: DeliveryId
    event_id: EventId


class AttemptQuery(Paging):
    """Which attempts. `since` and `until` bound when their deliveries were made."""

    outcome: Outcome | None = None
    status: HttpStatus | None = None
    since: Time | None = None
    until: Time | None = None


class KeptResponse(Shown):
    """What is kept of a partner's answer to one attempt."""

    model_config = examples(
        {
            "id": f"att_{SUFFIX}",
            "attempt": 1,
            "status": 422,
            "response_type": "text/plain",
            "excerpt": "no such lab",
        }
    )

    id: AttemptId
    attempt: int
    status: int | None
    response_type: str | None
    excerpt: str | None = Field(description="Bytes that are no UTF-8 are replaced; null: it can't be opened.")


class KeptResponses(Shown):
    """First attempt first. Empty where the gateway keeps no answers, or partners gave none."""

    items: list[KeptResponse]


class DeliveryDetail(Delivery):
    """With its attempts, first one first."""

    explanation: Explanation
    attempts: list[Attempt]


class Cancelling(Body):
    """Which open deliveries to give up, by one of these at least. `since` and `until` bound when they were made."""

    model_config = examples({"endpoint_id": f"ep_{SUFFIX}", "type": "lab_result.final", "dry_run": True})

    endpoint_id: EndpointId | None = None
    subscriber_id: SubscriberId | None = None
    type: EventTypeName | None = None
    since: Time | None = None
    until: Time | None = None
    dry_run: bool = Field(False, strict=True, description="Only count them.")


class Cancelled(Shown):
    """How many were given up, or with `dry_run` would be: 10,000 at most."""

    model_config = examples({"count": 10_000, "more": True})

    count: int
    more: bool = Field(description="There are more: ask again for the rest.")


class DeliveryQuery(Paging):
    """Which deliveries. `since` and `until` bound when they were made."""

    endpoint_id: EndpointId | None = None
    event_id: EventId | None = None
    type: EventTypeName | None = None
    state: DeliveryState | None = None
    since: Time | None = None
    until: Time | None = None
