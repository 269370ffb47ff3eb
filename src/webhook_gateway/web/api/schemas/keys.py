"""API keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from webhook_gateway.rules.api_keys import MOST_NETWORKS, MOST_PATTERNS
from webhook_gateway.rules.scopes import Role, Scope

from .shapes import Body, Shown, examples
from .typed_ids import SUFFIX, KeyId, SubscriberId
from .values import EventTypePattern, Name, Time

_KEY: dict[str, Any] = {
    "name": "Laboratory information system",
    "scopes": ["events:write"],
    "subscriber_id": None,
    "event_types": ["lab_result.*"],
    "networks": ["10.20.0.0/16"],
    "expires_at": None,
}

Network = Annotated[str, Field(max_length=49, description="A network in CIDR notation.", examples=["10.20.0.0/16"])]


class NewKey(Body):
    """An API key to be: with a `role` or with `scopes`, and as narrow as you can."""

    model_config = examples(
        {"name": "Laboratory information system", "role": "producer", "event_types": ["lab_result.*"]}
    )

    name: Name
    role: Role | None = Field(None, description="A named set of scopes.")
    scopes: list[Scope] | None = Field(None, min_length=1, max_length=len(Scope))
    subscriber_id: SubscriberId | None = Field(
        None, description="The only subscriber whose things it sees and changes."
    )
    event_types: list[EventTypePattern] | None = Field(
        None,
        min_length=1,
        max_length=MOST_PATTERNS,
        description="The only event types that it may post, have sent, or let an endpoint want.",
    )
    networks: list[Network] | None = Field(
        None, min_length=1, max_length=MOST_NETWORKS, description="The only networks that it may be used from."
    )
    expires_at: Time | None = None

    @model_validator(mode="after")
    def _either(self) -> NewKey:
        if (self.role is None) == (self.scopes is None):
            raise PydanticCustomError("role_or_scopes", "Give either a role or scopes")
        return self


class Key(Shown):
    """An API key, but for the key itself."""

    model_config = examples(
        {
            "id": f"key_{SUFFIX}",
            "prefix": "whk_3kTMd09a",
            **_KEY,
            "created_at": "2026-11-23T08:00:00Z",
            "last_used_at": "2026-11-23T08:30:00Z",
            "revoked_at": None,
        }
    )

    id: KeyId
    name: str
    prefix: str = Field(description="How the key begins.")
    scopes: list[str]
    subscriber_id: SubscriberId | None
    event_types: list[str] | None
    networks: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None


class CreatedKey(Key):
    """With the key, which is never shown again."""

    key: str
