"""Jobs that send many deliveries again."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from .shapes import Body, Shown, examples
from .typed_ids import SUFFIX, EndpointId, JobId
from .values import EventTypeName, Time


class NewReplay(Body):
    """Which finished deliveries to send again."""

    model_config = examples({"endpoint_id": f"ep_{SUFFIX}", "state": "dead", "since": "2026-11-22T00:00:00Z"})

    endpoint_id: EndpointId | None = None
    type: EventTypeName | None = None
    state: Literal["dead", "cancelled", "delivered"] = "dead"
    since: Time | None = None
    until: Time | None = None


class ReplayState(StrEnum):
    """Where a job is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class Replay(Shown):
    """A job that sends many deliveries again. Those to endpoints that are deleted or disabled are left out."""

    model_config = examples(
        {
            "id": f"job_{SUFFIX}",
            "state": "running",
            "endpoint_id": f"ep_{SUFFIX}",
            "type": None,
            "delivery_state": "dead",
            "since": "2026-11-22T00:00:00Z",
            "until": None,
            "total": 1_204,
            "done": 500,
            "created_at": "2026-11-23T08:00:00Z",
            "finished_at": None,
        }
    )

    id: JobId
    state: ReplayState
    endpoint_id: EndpointId | None
    type: str | None
    delivery_state: str
    since: datetime | None
    until: datetime | None
    total: int | None = Field(description="How many matched when it was made; null where they were too many to count.")
    done: int = Field(description="How many are queued again.")
    created_at: datetime
    finished_at: datetime | None
