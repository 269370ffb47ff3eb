"""Who changes something, and the change: one transaction with its audit entries, and the notifications after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.host.account import user
from webhook_gateway.rules.rights import Quotas, Rights
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import audit, configuration, workers
from webhook_gateway.store.database import Database
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.notifications import CONFIGURATION, notify

from .refusals import Conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor(Rights):
    """Who asks, and what they may do. ``name`` and ``source`` (an address) are what the audit log knows them by."""

    tenant_id: UUID
    name: str
    source: str
    quotas: Quotas | None = None
    means: str = ""
    """What they act with, as a sentence has it: the key `operations`."""
    zone: tzinfo = UTC
    """In which they are told times."""


LOCAL = "local"
"""The source of what is done at this machine."""


def local_actor(tenant_id: UUID) -> Actor:
    """Whoever is at this machine and has the database's password: they could grant themselves everything."""
    everything = frozenset(Scope)
    return Actor(tenant_id=tenant_id, name=local_name(), source=LOCAL, scopes=everything, means="the command line")


def local_name() -> str:
    return f"cli:{user()}"


@dataclass(slots=True)
class Change:
    """A change under way. What it will have been is noted as it goes, and written at its end."""

    connection: AsyncConnection
    actor: Actor
    entries: list[audit.Entry] = field(default_factory=list)
    notifications: set[str] = field(default_factory=set)

    def note(
        self,
        action: str,
        target: str,
        *notifications: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        """An entry for the audit log, never a secret in it, and whom to notify once it is committed."""
        self.entries.append(audit.Entry(self.actor.name, self.actor.source, action, target, before, after))
        self.notifications.update(notifications)

    async def needs_current_workers(self) -> Conflict | None:
        """For what a worker of the version before would take for something else, and send too much."""
        driver = await driver_of(self.connection)
        if await workers.are_current(driver):
            return None
        await audit.lock(self.connection, self.actor.tenant_id)  # before the configuration, as at the end of a change
        return None if await workers.require_current(driver) else Conflict.WORKERS_TOO_OLD


@asynccontextmanager
async def rehearsing(database: Database, actor: Actor) -> AsyncIterator[Change]:
    """A change of which nothing stays, nor of its audit entries: to see what would be done, or refused."""
    async with database.begin() as connection, connection.begin_nested() as savepoint:
        yield Change(connection, actor)
        await savepoint.rollback()


@asynccontextmanager
async def changing(database: Database, actor: Actor) -> AsyncIterator[Change]:
    """A transaction that ends with its audit entries; then the notifications go out.

    What is refused has to be raised inside of it: then nothing is kept. With `CONFIGURATION` the configuration's
    version moves, too. The audit chain and the version are locked last, and in this order: changes to one tenant queue
    for as short as possible, and never deadlock.
    """
    async with database.begin() as connection:
        change = Change(connection, actor)
        yield change
        for entry in change.entries:
            await audit.write(connection, change.actor.tenant_id, entry)
        if CONFIGURATION in change.notifications:
            await configuration.changed(await driver_of(connection))
    for what in sorted(change.notifications):
        await notify(database, what)
