"""How far behind the gateway is, what attempts came to, and what fails."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from webhook_gateway.operations.stats import Window

from .shapes import Shown, examples
from .typed_ids import SUFFIX, DeliveryId, EndpointId, SubscriberId


class EndpointBacklog(Shown):
    """What is open for one endpoint."""

    endpoint_id: EndpointId
    open: int
    sending: int
    waiting: int = Field(description="Deliveries that wait for an earlier one of their ordering key.")
    oldest_due_seconds: float | None = Field(description="How long ago the oldest one was due.")


class Stats(Shown):
    """How far behind the gateway is. Counts stop: at `counted_to`, `outbox_waiting` at 10,000."""

    model_config = examples(
        {
            "outbox_waiting": 0,
            "open": 120,
            "pending": 90,
            "sending": 10,
            "waiting": 20,
            "oldest_due_seconds": 3.5,
            "dead_24h": 2,
            "unmatched_recent": 0,
            "counted_to": 10_000,
            "endpoints": [
                {
                    "endpoint_id": f"ep_{SUFFIX}",
                    "open": 120,
                    "sending": 10,
                    "waiting": 20,
                    "oldest_due_seconds": 3.5,
                }
            ],
        }
    )

    outbox_waiting: int | None = Field(description="Accepted events not fanned out yet; null for a subscriber's key.")
    open: int
    pending: int
    sending: int
    waiting: int
    oldest_due_seconds: float | None
    dead_24h: int = Field(
        description="Those that died within 24 hours and were not sent again, but for tests, of the last 10,000 that "
        "were not delivered."
    )
    unmatched_recent: int | None = Field(description="Of the last 200 events, those that no endpoint wanted.")
    counted_to: int = Field(
        description="Of each endpoint at most so many deliveries are looked at that are overdue, so many not due yet, "
        "and so many with an ordering key. Where there are more, its numbers and the sums say at least."
    )
    endpoints: list[EndpointBacklog] = Field(description="The 50 with the largest backlog.")


class OfOutcome(Shown):
    """How many attempts came to the same."""

    outcome: str
    status: int | None
    detail: str | None
    attempts: int


class Measured(Shown):
    """Attempts, and how long those took that the partner accepted."""

    attempts: int
    accepted: int
    died: int = Field(description="Deliveries that were given up with an attempt.")
    success: float | None = Field(description="The accepted part of them, 0 to 1; null where there was none.")
    p50_seconds: float | None = Field(description="Half of the accepted took at most so long, off by a ninth at most.")
    p99_seconds: float | None = Field(description="The same of 99 in 100.")


class Bucket(Measured):
    """Those of a minute, an hour or a day."""

    begins_at: datetime


_OUTCOME = {"outcome": "rejected", "status": 503, "detail": None, "attempts": 1}
_MEASURED = {"attempts": 4, "accepted": 3, "died": 0, "success": 0.75, "p50_seconds": 0.028, "p99_seconds": 0.136}
_BUCKET = {"begins_at": "2026-11-26T08:00:00Z", **_MEASURED}
_ATTEMPTS = {"window": "24h", **_MEASURED, "outcomes": [_OUTCOME], "buckets": [_BUCKET]}


class Attempts(Measured):
    """What attempts came to, but for tests."""

    model_config = examples(_ATTEMPTS)

    window: Window
    outcomes: list[OfOutcome] = Field(description="Of all endpoints together without status and detail.")
    buckets: list[Bucket] = Field(description="All of the window; the last one is under way.")


class EndpointStats(Attempts):
    """How one endpoint fares."""

    model_config = examples({**_ATTEMPTS, "last_success_at": "2026-11-26T08:41:07Z", "backlog": None})

    last_success_at: datetime | None = Field(description="Within 90 days.")
    backlog: EndpointBacklog | None = Field(description="Null where nothing is open.")


class EndpointProblem(OfOutcome):
    """Failures of one endpoint that came to the same."""

    model_config = examples(
        {
            **_OUTCOME,
            "endpoint_id": f"ep_{SUFFIX}",
            "subscriber_id": f"sub_{SUFFIX}",
            "first_at": "2026-11-26T07:12:40Z",
            "last_at": "2026-11-26T08:41:07Z",
            "died": 0,
            "delivery_id": f"dlv_{SUFFIX}",
        }
    )

    endpoint_id: EndpointId
    subscriber_id: SubscriberId
    first_at: datetime
    last_at: datetime
    died: int = Field(description="Deliveries that were given up.")
    delivery_id: DeliveryId = Field(description="The latest of them.")
