"""A partner's portal: the links that open it, once each, and looking at it with the partner's eyes."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import RowMapping
from uuid_utils.compat import uuid7

from webhook_gateway.rules import ids
from webhook_gateway.rules.rights import Rights, not_granted
from webhook_gateway.rules.scopes import Capability, scopes_with
from webhook_gateway.store import sessions, subscribers

from .change import Change
from .refusals import NotFound, NotHeld
from .sessions import CODE_LASTS, digest

CODE = "whp_"
LONGEST = 86_400
"""Seconds within which a link has to be used, at most."""


async def create(
    change: Change, subscriber_id: UUID, capabilities: Iterable[Capability] = (), lasts: int = CODE_LASTS
) -> tuple[RowMapping, str] | NotHeld | NotFound:
    """A link's row, and its code, which is never shown again. It has no scopes but those of its capabilities."""
    connection, tenant_id = change.connection, change.actor.tenant_id
    granted = frozenset({Capability.VIEW, *capabilities})
    code, link_id, ends = CODE + secrets.token_urlsafe(32), uuid7(), datetime.now(UTC) + timedelta(seconds=lasts)
    at_last = ends.timestamp() + sessions.LONGEST
    rights = Rights(scopes=scopes_with(granted), subscriber_id=subscriber_id, capabilities=granted, expires_at=at_last)
    if beyond := not_granted(change.actor, rights):
        return NotHeld(tuple(beyond))
    if not await subscribers.get(connection, tenant_id, subscriber_id, lock=True):
        return NotFound.SUBSCRIBER
    named = ids.render(ids.SESSION, link_id)
    values = {"id": link_id, "tenant_id": tenant_id, "subscriber_id": subscriber_id, "actor": f"portal:{named}"}
    values |= {"capabilities": sorted(granted), "scopes": [], "code_hash": digest(code)}
    await sessions.create(connection, {**values, "code_expires_at": ends, "expires_at": ends})
    after = {"subscriber_id": ids.render(ids.SUBSCRIBER, subscriber_id), "capabilities": sorted(granted)}
    change.note("portal_link.created", named, after={**after, "expires_at": ends.isoformat()})
    [row] = await sessions.links(connection, tenant_id, subscriber_id, only=link_id, limit=1)
    return row, code


async def revoke(change: Change, subscriber_id: UUID, link_id: UUID) -> RowMapping | NotFound:
    """Ends a link for good, and the session that it has begun."""
    bound = change.connection, change.actor.tenant_id
    rows = await sessions.links(*bound, subscriber_id, only=link_id, limit=1)
    if not rows:
        return NotFound.PORTAL_LINK
    if await sessions.end(*bound, session_id=link_id, actor=None):
        change.note("portal_link.revoked", ids.render(ids.SESSION, link_id))
        rows = await sessions.links(*bound, subscriber_id, only=link_id, limit=1)
    return rows[0]


async def view(change: Change, session_id: UUID, subscriber_id: UUID) -> NotFound | None:
    """From now on the actor's session sees the portal as that partner does."""
    if not await subscribers.get(change.connection, change.actor.tenant_id, subscriber_id):
        return NotFound.SUBSCRIBER
    await sessions.view(change.connection, session_id, subscriber_id)
    change.note("portal.viewed", ids.render(ids.SUBSCRIBER, subscriber_id))
    return None


async def leave(change: Change, session_id: UUID, subscriber_id: UUID) -> None:
    await sessions.view(change.connection, session_id, None)
    change.note("portal.left", ids.render(ids.SUBSCRIBER, subscriber_id))
