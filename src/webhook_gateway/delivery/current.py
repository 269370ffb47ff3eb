"""What a worker has to keep current: its copy of the configuration, and that it is known to be alive."""

from __future__ import annotations

import os
import socket

from uuid_utils.compat import uuid7

from webhook_gateway import telemetry
from webhook_gateway.crypto.vault import Vault
from webhook_gateway.host.loop import POLL
from webhook_gateway.store import configuration, keyring, workers
from webhook_gateway.store.database import Database, DatabaseUnavailable

from .clock import Clock
from .due import Due
from .registry import LONG_AGO, Registry

HEARTBEAT = 2.0


class Configuration:
    """The endpoints, and what other workers learnt about them."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, registry: Registry, due: Due) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._registry = registry
        self._due = due
        self._health_known = LONG_AGO

    async def poll(self) -> float:
        snapshot = self._registry.snapshot
        async with self._database.connection() as connection:
            if not snapshot.version:
                await keyring.fill(self._database, self._vault)
            stale = snapshot.stale_at is not None and snapshot.stale_at.timestamp() <= self._clock.now()
            stale = stale or bool(snapshot.unsendable)  # their key may be back
            if stale or await configuration.version(connection) != snapshot.version:
                await keyring.fill(self._database, self._vault)
                self._registry.learn(await configuration.snapshot(connection, self._vault))
            learnt, self._health_known = await configuration.health_since(connection, self._health_known)
        for endpoint_id, health in learnt.items():
            self._registry.of(endpoint_id).health.learn(health)
        self._due.changed.set()
        return POLL


class Membership:
    """Of the live workers, which share each endpoint's slots. The database's time comes with each heartbeat."""

    def __init__(self, database: Database, clock: Clock, registry: Registry) -> None:
        self.id = uuid7()
        self._database = database
        self._clock = clock
        self._registry = registry

    async def heartbeat(self) -> float:
        async with self._database.connection() as connection:
            alive, now = await workers.heartbeat(connection, self.id, f"{socket.gethostname()}:{os.getpid()}")
        self._clock.set(now)
        self._registry.share_with(alive.index(self.id), len(alive))
        return HEARTBEAT

    async def deregister(self) -> None:
        """After the last heartbeat, which would count this worker among the live ones again."""
        try:
            async with self._database.connection() as connection:
                await workers.deregister(connection, self.id)
        except DatabaseUnavailable as error:
            telemetry.database_unavailable("deregister", error)
