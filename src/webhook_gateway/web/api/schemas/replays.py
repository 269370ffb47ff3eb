"""Jobs that send many deliveries: again, or to an endpoint that came later."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from .deliveries import HttpStatus, Outcome
from .shapes import Body, Shown, examples, matching
from .typed_ids import SUFFIX, EndpointId, EventId, JobId, SubscriberId
from .values import EventTypeName, Time

DryRun = Annotated[bool, Field(strict=True, description="Only say what would be sent: `200`, and nothing is changed.")]

Detail = Annotated[str, Field(pattern=matching(r"^[a-z0-9_]{1,60}$", "a detail's name, as in connection_refused"))]


class NewReplay(Body):
    """Which finished deliveries to send again; those that were replayed, or delivered since, are left out."""

    model_config = examples({"endpoint_id": f"ep_{SUFFIX}", "state": "dead", "since": "2026-11-22T00:00:00Z"})

    endpoint_id: EndpointId | None = None
    subscriber_id: SubscriberId | None = None
    type: EventTypeName | None = None
    state: Literal["dead", "cancelled", "delivered"] = "dead"
    since: Time | None = None
    until: Time | None = None
    outcome: Outcome | None = Field(None, description="What the last attempt met, as `GET /v1/problems` has it.")
    status: HttpStatus | None = None
    detail: Detail | None = None
    all: Literal[True] | None = Field(None, description="Everything is meant: where nothing else says which.")
    dry_run: DryRun = False


class NewBackfill(Body):
    """Which events: one, or those accepted at or after `since`, of one type or of all that the endpoint gets."""

    model_config = examples({"since": "2026-11-22T00:00:00Z", "dry_run": True})

    since: Time | None = None
    until: Time | None = None
    type: EventTypeName | None = None
    event_id: EventId | None = None
    dry_run: DryRun = False

    @model_validator(mode="after")
    def _bounded(self) -> NewBackfill:
        if self.since is None and self.event_id is None:
            raise PydanticCustomError("required", "Say since when, by `since`, or which event, by `event_id`")
        return self


class Preview(Shown):
    """What a job would send."""

    model_config = examples(
        {
            "count": 1_204,
            "more": False,
            "missing": 3,
            "second_deliveries": 12,
            "wider": 0,
            "ordering_keys": 8,
            "oldest": "2026-11-22T00:00:04Z",
            "newest": "2026-11-23T07:59:58Z",
            "minutes": 2.0,
            "notes": ["Replays are outside of order: something newer of the same ordering key may be there already."],
        }
    )

    count: int = Field(description="Exact, up to 10,000.")
    more: bool = Field(description="It was counted no further: there are more, or may be. The rest tells of `count`.")
    missing: int = Field(description="Not counted, since their bodies are no longer kept.")
    second_deliveries: int = Field(description="Those that their endpoint has had.")
    wider: int = Field(description="Those of which their endpoint gets more now than when they ended.")
    ordering_keys: int = Field(description="Ordering keys that they are of.")
    oldest: datetime | None = Field(description="When the first of their events was accepted.")
    newest: datetime | None
    minutes: float | None = Field(description="At the rate of the slowest endpoint; null where none has a rate.")
    notes: list[str] = Field(description="What partners will see of it, in sentences.")


class ReplayState(StrEnum):
    """Where a job is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class Replay(Shown):
    """A job that sends many deliveries. Those to endpoints that are deleted or disabled are left out."""

    model_config = examples(
        {
            "id": f"job_{SUFFIX}",
            "kind": "replay",
            "state": "running",
            "endpoint_id": f"ep_{SUFFIX}",
            "subscriber_id": None,
            "type": None,
            "delivery_state": "dead",
            "since": "2026-11-22T00:00:00Z",
            "until": None,
            "event_id": None,
            "outcome": None,
            "status": None,
            "detail": None,
            "total": 1_204,
            "done": 500,
            "missing": 3,
            "created_at": "2026-11-23T08:00:00Z",
            "finished_at": None,
        }
    )

    id: JobId
    kind: Literal["replay", "backfill"]
    state: ReplayState
    endpoint_id: EndpointId | None
    subscriber_id: SubscriberId | None
    type: str | None
    delivery_state: str | None = Field(description="null for a backfill.")
    since: datetime | None
    until: datetime | None
    event_id: EventId | None = Field(description="Of a backfill of one event.")
    outcome: str | None = Field(description="What their last attempts met, where that was asked for.")
    status: int | None
    detail: str | None
    total: int | None = Field(description="How many matched when it was made; null where they were too many to count.")
    done: int = Field(description="How many are queued.")
    missing: int = Field(description="How many were left out so far, since their bodies are no longer kept.")
    created_at: datetime
    finished_at: datetime | None
