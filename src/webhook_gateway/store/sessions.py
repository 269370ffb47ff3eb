"""Who is signed in to the console: only hashes of what a browser holds are here.

A one-time code is a session that has not begun, and so is a link to a partner's portal, whose rows have capabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import uuid_utils.compat as uuid_utils
from sqlalchemy import ColumnElement, RowMapping, and_, case, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .database import Connection
from .rows import every
from .tables import api_keys, sessions

IDLE = 1_800
"""Seconds after which a session ends that nobody has used."""
LONGEST = 43_200
"""Seconds after which a session ends in any case."""
KEPT_DAYS = 30
"""For which one that has ended is listed."""

FIND = """
-- find a session: by the hash of its cookie, with the rights that its key has now; with a key or subscriber it ends
SELECT s.id, s.tenant_id, s.actor, s.person, k.name, coalesce(k.scopes, s.scopes) AS scopes,
       coalesce(k.subscriber_id, s.subscriber_id) AS subscriber_id, k.event_types, k.networks, k.expires_at,
       s.expires_at AS ends_at, s.seen_at < now() - interval '1 minute' AS stale,
       s.capabilities, s.viewing, coalesce(v.name, p.name) AS partner
FROM sessions s LEFT JOIN api_keys k ON k.id = s.key_id LEFT JOIN subscribers p ON p.id = s.subscriber_id
     LEFT JOIN subscribers v ON v.id = s.viewing
WHERE s.hash = $1 AND s.ended_at IS NULL AND s.expires_at > now() AND s.seen_at > now() - make_interval(secs => $2)
  AND k.revoked_at IS NULL AND coalesce(k.expires_at > now(), true) AND p.deleted_at IS NULL
"""

TOUCH = "UPDATE sessions SET seen_at = now() WHERE id = $1"

EXCHANGE = """
-- exchange: a one-time code for a session, once
UPDATE sessions SET hash = $2, source = $3, seen_at = now(), expires_at = now() + make_interval(secs => $4),
                    code_hash = NULL
WHERE code_hash = $1 AND code_expires_at > now() AND ended_at IS NULL
RETURNING id, tenant_id, actor
"""

SPEND = """
-- spend: a form's token, once; the newest 200 are remembered
UPDATE sessions SET spent = ($2::uuid || spent)[1:200] WHERE id = $1 AND NOT $2 = ANY (spent)
"""

UNSPEND = "UPDATE sessions SET spent = array_remove(spent, $2) WHERE id = $1"

FORGET = """
-- forget: sessions that have ended long ago
DELETE FROM sessions WHERE tenant_id = $1 AND greatest(expires_at, code_expires_at) < now() - make_interval(days => $2)
"""


async def find(connection: Connection, hashed: bytes) -> dict[str, Any] | None:
    row = await connection.fetchrow(FIND, hashed, float(IDLE))
    return dict(row) if row else None


async def touch(connection: Connection, session_id: UUID) -> None:
    await connection.execute(TOUCH, session_id)


async def exchange(connection: Connection, code_hash: bytes, hashed: bytes, source: str) -> dict[str, Any] | None:
    """The session that the code was for has begun, unless it was used before, or is too old."""
    row = await connection.fetchrow(EXCHANGE, code_hash, hashed, source, float(LONGEST))
    return dict(row) if row else None


async def spend(connection: Connection, session_id: UUID, token: UUID) -> bool:
    """Whether the form with the token was not sent before, to whichever process."""
    return await connection.execute(SPEND, session_id, token) == "UPDATE 1"


async def unspend(connection: Connection, session_id: UUID, token: UUID) -> None:
    await connection.execute(UNSPEND, session_id, token)


async def forget(connection: Connection, tenant_id: UUID) -> None:
    await connection.execute(FORGET, tenant_id, KEPT_DAYS)


async def create(connection: AsyncConnection, values: Mapping[str, Any]) -> UUID:
    """The id of a new session, or of one to be. ``values`` are columns."""
    session_id: UUID = values.get("id") or uuid_utils.uuid7()
    await connection.execute(insert(sessions).values({**values, "id": session_id}))
    return session_id


async def page(connection: AsyncConnection, tenant_id: UUID, *, actor: str | None, limit: int) -> list[RowMapping]:
    """Those that have not ended, newest first, and codes that nobody has used; of one actor, or all."""
    rows = (
        select(sessions, api_keys.c.name.label("key_name"))
        .join(api_keys, api_keys.c.id == sessions.c.key_id, isouter=True)
        .where(*_open(tenant_id, actor))
    )
    return await every(connection, rows.order_by(sessions.c.id.desc()).limit(limit))


async def end(connection: AsyncConnection, tenant_id: UUID, *, session_id: UUID | None, actor: str | None) -> int:
    """Ends one, or all, of one actor's or of everybody's. Says how many."""
    statement = update(sessions).where(*_open(tenant_id, actor)).values(ended_at=func.now())
    if session_id is not None:
        statement = statement.where(sessions.c.id == session_id)
    return (await connection.execute(statement)).rowcount


async def view(connection: AsyncConnection, session_id: UUID, subscriber_id: UUID | None) -> None:
    """As whose partner the session looks at the portal; None for nobody's."""
    await connection.execute(update(sessions).where(sessions.c.id == session_id).values(viewing=subscriber_id))


async def links(
    connection: AsyncConnection,
    tenant_id: UUID,
    subscriber_id: UUID,
    *,
    only: UUID | None = None,
    live: bool = False,
    before: UUID | None = None,
    limit: int,
) -> list[RowMapping]:
    """A partner's links, newest first, also those that have ended, unless what is ``live`` is asked for; or one."""
    begun = case((sessions.c.hash.is_(None), "unused"), else_="open")
    is_live = and_(*_open(tenant_id, None))
    state = case((is_live, begun), else_="ended").label("state")
    shown = (
        sessions.c[name] for name in ("id", "subscriber_id", "capabilities", "created_at", "expires_at", "seen_at")
    )
    rows = select(*shown, state).where(
        sessions.c.tenant_id == tenant_id,
        sessions.c.subscriber_id == subscriber_id,
        sessions.c.capabilities.is_not(None),
    )
    if only is not None:
        rows = rows.where(sessions.c.id == only)
    if live:
        rows = rows.where(is_live)
    if before is not None:
        rows = rows.where(sessions.c.id < before)
    return await every(connection, rows.order_by(sessions.c.id.desc()).limit(limit))


def _open(tenant_id: UUID, actor: str | None) -> list[ColumnElement[bool]]:
    begun = sessions.c.seen_at > func.now() - timedelta(seconds=IDLE)
    unused = sessions.c.hash.is_(None) & (sessions.c.code_expires_at > func.now())
    live = [sessions.c.ended_at.is_(None), sessions.c.expires_at > func.now(), begun | unused]
    whose = [] if actor is None else [sessions.c.actor == actor]
    return [sessions.c.tenant_id == tenant_id, *live, *whose]
