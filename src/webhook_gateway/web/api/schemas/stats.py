"""How far behind the gateway is."""

from __future__ import annotations

from pydantic import Field

from .shapes import Shown, examples
from .typed_ids import SUFFIX, EndpointId


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
    dead_24h: int = Field(description="Those that died within 24 hours, among the last 20,000 not delivered.")
    unmatched_recent: int | None = Field(description="Of the last 200 events, those that no endpoint wanted.")
    counted_to: int = Field(
        description="Of each endpoint at most so many deliveries are looked at that are overdue, so many not due yet, "
        "and so many with an ordering key. Where there are more, its numbers and the sums say at least."
    )
    endpoints: list[EndpointBacklog] = Field(description="The 50 with the largest backlog.")
