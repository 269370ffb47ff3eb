"""API keys: only their hashes are here."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import uuid_utils.compat as uuid_utils
from sqlalchemy import RowMapping, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.rules import api_keys as form
from webhook_gateway.rules import ids

from .database import Connection
from .rows import every, first, one
from .tables import api_keys

FIND = """
-- find a key: by the hash of what the caller sent; `stale` asks for its last use to be written down
SELECT id, tenant_id, name, scopes, subscriber_id, event_types, networks, expires_at,
       last_used_at IS NULL OR last_used_at < now() - interval '1 minute' AS stale
FROM api_keys
WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""

TOUCH = """
-- touch a key: at most once a minute, whoever of the processes is first; who finds it locked need not wait
UPDATE api_keys SET last_used_at = now()
WHERE id = (SELECT id FROM api_keys
            WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
            FOR NO KEY UPDATE SKIP LOCKED)
"""

_SHOWN = [column for column in api_keys.c if column.name != "hash"]


@dataclass(frozen=True, slots=True)
class NewKey:
    """``event_types`` are patterns, ``networks`` are CIDRs; None means no such restriction."""

    name: str
    scopes: Sequence[str]
    subscriber_id: UUID | None = None
    event_types: Sequence[str] | None = None
    networks: Sequence[str] | None = None
    expires_at: datetime | None = None


async def issue(connection: AsyncConnection, tenant_id: UUID, new: NewKey) -> tuple[RowMapping, str]:
    """The new key's row, and the key itself: nobody can ever read it again."""
    key = form.new_key(secrets.token_bytes(form.ENTROPY_BYTES))
    statement = (
        insert(api_keys)
        .values(
            id=uuid_utils.uuid7(),
            tenant_id=tenant_id,
            name=new.name,
            prefix=form.name_of(key),
            hash=form.digest(key),
            scopes=sorted(new.scopes),
            subscriber_id=new.subscriber_id,
            event_types=None if new.event_types is None else list(new.event_types),
            networks=None if new.networks is None else list(new.networks),
            expires_at=new.expires_at,
        )
        .returning(*_SHOWN)
    )
    return await one(connection, statement), key


async def find(connection: Connection, digest: bytes) -> dict[str, Any] | None:
    """The live key with that digest, or None: unknown, expired and revoked look the same."""
    row = await connection.fetchrow(FIND, digest)
    return dict(row) if row else None


async def touch(connection: Connection, key_id: UUID) -> None:
    await connection.execute(TOUCH, key_id)


async def get(connection: AsyncConnection, tenant_id: UUID, key_id: UUID) -> RowMapping | None:
    found = select(*_SHOWN).where(api_keys.c.tenant_id == tenant_id, api_keys.c.id == key_id)
    return await first(connection, found)


async def page(connection: AsyncConnection, tenant_id: UUID, *, before: UUID | None, limit: int) -> list[RowMapping]:
    """Keys, newest first, also the revoked ones."""
    rows = select(*_SHOWN).where(api_keys.c.tenant_id == tenant_id)
    if before is not None:
        rows = rows.where(api_keys.c.id < before)
    return await every(connection, rows.order_by(api_keys.c.id.desc()).limit(limit))


async def names(connection: AsyncConnection, tenant_id: UUID, key_ids: Sequence[UUID]) -> dict[str, str]:
    """Of those given, the revoked ones, too, by id as it is written."""
    rows = select(api_keys.c.id, api_keys.c.name).where(
        api_keys.c.tenant_id == tenant_id, api_keys.c.id.in_(list(key_ids))
    )
    return {ids.render(ids.KEY, row.id): row.name for row in await connection.execute(rows)}


async def revoke(connection: AsyncConnection, tenant_id: UUID, key_id: UUID) -> RowMapping | None:
    """The revoked key; one that was revoked before keeps its time."""
    statement = (
        update(api_keys)
        .where(api_keys.c.tenant_id == tenant_id, api_keys.c.id == key_id)
        .values(revoked_at=func.coalesce(api_keys.c.revoked_at, func.now()))
        .returning(*_SHOWN)
    )
    return await first(connection, statement)


async def revoke_of_subscriber(connection: AsyncConnection, tenant_id: UUID, subscriber_id: UUID) -> int:
    """How many keys went with their subscriber."""
    statement = (
        update(api_keys)
        .where(
            api_keys.c.tenant_id == tenant_id,
            api_keys.c.subscriber_id == subscriber_id,
            api_keys.c.revoked_at.is_(None),
        )
        .values(revoked_at=func.now())
    )
    return (await connection.execute(statement)).rowcount
