"""Signing in to the console, by a key or by a one-time code, and signing out.

What a browser holds is a secret of 32 random bytes; the database has its hash.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import sessions, tenants
from webhook_gateway.store.database import Database
from webhook_gateway.store.driver import driver_of

from .change import Actor, Change, changing, local_actor
from .refusals import NotFound

CODE = "whc_"
CODE_LASTS = 600
"""Seconds within which a one-time code has to be used."""


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def begin(change: Change, key_id: UUID | None, person: str | None = None) -> str:
    """The secret of a new session of the actor: with a key it has the key's rights, whatever becomes of them.
    ``person`` is how somebody is called whose actor's name is another's id."""
    actor, secret = change.actor, secrets.token_urlsafe(32)
    values = {
        "actor": actor.name,
        "key_id": key_id,
        "person": person,
        "scopes": None if key_id else sorted(actor.scopes),
        "source": actor.source,
        "hash": digest(secret),
        "seen_at": datetime.now(UTC),
        "expires_at": datetime.now(UTC) + timedelta(seconds=sessions.LONGEST),
    }
    session_id = await sessions.create(change.connection, {"tenant_id": actor.tenant_id, **values})
    await sessions.forget(await driver_of(change.connection), actor.tenant_id)
    change.note("session.begun", ids.render(ids.SESSION, session_id), after={"person": person} if person else None)
    return secret


async def offer(change: Change, scopes: Iterable[str]) -> str:
    """A code that begins a session of the actor with these scopes, once."""
    actor, code = change.actor, CODE + secrets.token_urlsafe(32)
    ends = datetime.now(UTC) + timedelta(seconds=CODE_LASTS)
    values = {"actor": actor.name, "code_hash": digest(code), "code_expires_at": ends, "expires_at": ends}
    values |= {"tenant_id": actor.tenant_id, "scopes": sorted(scopes)}
    session_id = await sessions.create(change.connection, values)
    change.note("session.offered", ids.render(ids.SESSION, session_id), after={"scopes": sorted(scopes)})
    return code


def link(address: str, code: str, where: str = "console") -> str:
    """Where the code is given. What stands behind the ``#`` stays in the browser: it is in no log, and no Referer."""
    return f"{address.rstrip('/')}/{where}/login#{code}"


async def first_link(url: str, address: str) -> str:
    """A link for an administrator of the default tenant, who is at this machine.

    Raises:
        DatabaseUnavailable: see `Database`.
    """
    database = Database(url, connections=2)
    try:
        async with database.connection() as connection:
            tenant_id = await tenants.find(connection, tenants.DEFAULT)
        assert tenant_id is not None
        async with changing(database, local_actor(tenant_id)) as change:
            return link(address, await offer(change, [Scope.ADMIN]))
    finally:
        await database.close()


async def exchange(change: Change, code: str, source: str) -> str | NotFound:
    """The secret of the session that the code begins. ``change`` takes over who offered it."""
    secret = secrets.token_urlsafe(32)
    row = await sessions.exchange(await driver_of(change.connection), digest(code), digest(secret), source)
    if row is None:
        return NotFound.SESSION
    change.actor = Actor(tenant_id=row["tenant_id"], name=row["actor"], source=source, scopes=frozenset())
    change.note("session.begun", ids.render(ids.SESSION, row["id"]))
    return secret


async def end(change: Change, session_id: UUID | None, *, of_all: bool) -> int | NotFound:
    """Ends one session, or every one: the actor's own, or with ``of_all`` anybody's. Says how many."""
    actor = None if of_all else change.actor.name
    ended = await sessions.end(change.connection, change.actor.tenant_id, session_id=session_id, actor=actor)
    if not ended and session_id is not None:
        return NotFound.SESSION
    target = "all" if session_id is None else ids.render(ids.SESSION, session_id)
    change.note("session.ended", target, after={"sessions": ended})
    return ended
