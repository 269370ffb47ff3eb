"""Links to a partner's portal."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from webhook_gateway.operations.portal import LONGEST
from webhook_gateway.operations.sessions import CODE_LASTS
from webhook_gateway.rules.scopes import Capability

from .shapes import Body, Shown, examples
from .typed_ids import SUFFIX, SessionId, SubscriberId

_LINK: dict[str, Any] = {
    "id": f"ses_{SUFFIX}",
    "subscriber_id": f"sub_{SUFFIX}",
    "capabilities": ["test", "view"],
    "state": "unused",
    "created_at": "2026-11-23T08:00:00Z",
    "expires_at": "2026-11-23T08:10:00Z",
    "last_used_at": None,
}


class NewPortalLink(Body):
    """A link to be."""

    model_config = examples({"capabilities": ["view", "test"], "expires_in_seconds": 3_600})

    capabilities: list[Capability] = Field(
        [Capability.VIEW], max_length=len(Capability), description="What its reader may do; `view` goes without saying."
    )
    expires_in_seconds: int = Field(CODE_LASTS, ge=60, le=LONGEST, description="Within which it has to be opened.")


class PortalLink(Shown):
    """A link, but for the link itself."""

    model_config = examples(_LINK)

    id: SessionId = Field(description="Also that of the session that it begins.")
    subscriber_id: SubscriberId
    capabilities: list[Capability]
    state: Literal["unused", "open", "ended"] = Field(description="`open`: somebody is signed in by it.")
    created_at: datetime
    expires_at: datetime = Field(description="Of the link, or of its session once it was opened.")
    last_used_at: datetime | None = Field(validation_alias="seen_at", description="To the minute.")


class CreatedPortalLink(PortalLink):
    """With the link, which is never shown again."""

    model_config = examples({**_LINK, "url": "https://webhooks.example.org/portal/login#whp_…"})

    url: str
