"""Subscribers and their endpoints as one document."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .endpoints import UrlOfPartner
from .shapes import Body, Shown, examples
from .subscribers import NewSubscriber


class Partner(NewSubscriber):
    """A subscriber, known by its `external_id` or else its name, with endpoints, known by their name or else URL."""

    endpoints: list[UrlOfPartner] = Field(default_factory=list, max_length=20)


_URL = {"name": "orders", "url": "https://lab.example.com/webhooks"}


class Partners(Body):
    """What there is to be. A member that is left out stays as it is, or has its default where it is new."""

    model_config = examples(
        {"subscribers": [{"name": "Northside Laboratory", "event_types": ["lab_order.*"], "endpoints": [_URL]}]}
    )

    subscribers: list[Partner] = Field(max_length=200)


class Applying(Body):
    """How a document is applied."""

    dry_run: bool = Field(False, description="Change nothing, and answer what would be.")
    prune: bool = Field(False, description="Delete subscribers and endpoints that the document lacks.")
    cancel_open: bool = Field(False, description="Cancel open deliveries that endpoints may not have any more.")
    plan: str | None = Field(
        None, max_length=64, description="The `plan` of a dry run: `409` if it is another one now."
    )


class Step(Shown):
    """One change, as the audit log has it."""

    action: str
    subscriber: str = Field(description="Its external id, or else its name.")
    endpoint: str | None = Field(description="Its name, or else its URL; null: the subscriber itself.")
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    key: str | None = Field(description="What a new endpoint's partner verifies with, which is never shown again.")


_STEP = {"action": "endpoint.changed", "subscriber": "lab_3", "endpoint": "orders", "key": None}


class Applied(Shown):
    """What was changed, or would be: all of it or nothing."""

    model_config = examples({"plan": "9f86d081", "steps": [{**_STEP, "before": {"slots": 10}, "after": {"slots": 4}}]})

    plan: str = Field(description="Stands for the steps: equal for equal ones.")
    steps: list[Step]
