"""What a worker has to keep current: its copy of the configuration, and that it is known to be alive."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID

from uuid_utils.compat import uuid7

from webhook_gateway import telemetry
from webhook_gateway.crypto.vault import Vault
from webhook_gateway.host.loop import EVEN, POLL
from webhook_gateway.operations import pause
from webhook_gateway.outbound.egress import Egress
from webhook_gateway.store import configuration, keyring, workers
from webhook_gateway.store.clock import Clock
from webhook_gateway.store.database import Connection, Database, DatabaseUnavailable
from webhook_gateway.store.look import Seen, look

from .claiming import Claiming
from .due import Due
from .registry import LONG_AGO, Registry
from .watermark import LowWaterMark

HEARTBEAT = 2.0
SOON = 0.5
"""Seconds until the next heartbeat where others have no use for this one's low-water mark yet."""


@dataclass(eq=False)
class Configuration:
    """The endpoints, and what other workers learnt about them; stages that nobody may have woken are, by the way."""

    database: Database
    vault: Vault
    clock: Clock
    registry: Registry
    due: Due
    low_water_mark: LowWaterMark
    claiming: Claiming
    scan: asyncio.Event
    outbox: asyncio.Event
    forward: asyncio.Event
    upkeep: asyncio.Event
    health_known: datetime = LONG_AGO
    """Up to when."""
    _health: str | None = None
    """What the look said of it then."""
    _steps: int = 0
    """Of the clock, for upkeep to heal."""

    async def poll(self) -> float:
        """Takes over what has changed since the last round; the first one is what a worker may send by."""
        await keyring.count(self.database, self.vault)
        snapshot, newer = self.registry.snapshot, None
        async with self.database.in_turn() as connection:
            if not snapshot.version:
                await keyring.fill(self.database, self.vault)
                await pause.recognise(self.database)
            seen = await self._look(connection)
            stale = snapshot.stale_at is not None and snapshot.stale_at.timestamp() <= self.clock.now()
            stale = stale or bool(snapshot.unsendable)  # their key may be back
            if stale or seen.version != snapshot.version:
                await keyring.fill(self.database, self.vault)
                newer = await configuration.snapshot(connection, self.vault)
            if seen.health != self._health:
                learnt, known = await configuration.health_since(connection, self.health_known)
                # Whatever hour another worker wrote by: what lies ahead is read again until it is healed.
                self.health_known, self._health = min(known, datetime.fromtimestamp(self.clock.now(), UTC)), seen.health
                for endpoint_id, health in learnt.items():
                    self.registry.of(endpoint_id).health.learn(health)
        if newer is not None and newer.is_paused is not snapshot.is_paused:
            telemetry.sending_paused() if newer.is_paused else telemetry.sending_resumed()
        if newer is not None:  # the last: nothing is sent before the first, and by then no open breaker is overlooked
            self.registry.learn(newer)
        self.due.look_again()
        upkeep, self._steps = seen.upkeep or self.clock.steps != self._steps, self.clock.steps
        scan = not self.claiming.scans_itself and (bool(self.due) or seen.open is not False)
        stages = (seen.outbox, self.outbox), (seen.forward, self.forward), (upkeep, self.upkeep), (scan, self.scan)
        for is_wanted, stage in stages:
            if is_wanted:
                stage.set()
        return POLL if self.due else EVEN

    async def _look(self, connection: Connection) -> Seen:
        """Where nothing is open it saves the scan."""
        began, seen, budget = monotonic(), None, self.claiming.full_scans
        for_open = not self.claiming.scans_itself and not self.due and budget.allows()
        try:
            seen = await look(connection, self.health_known, self.low_water_mark.latest, for_open=for_open)
            return seen
        finally:
            if for_open and not (seen and seen.open):  # else a full scan comes next, and takes from it
                budget.spend(monotonic() - began)


@dataclass(eq=False)
class Membership:
    """Of the live workers, which share each endpoint's slots. A heartbeat brings the database's time, and ends sessions
    of processes that froze, too: apart from upkeep and its lock, which one of them may hold."""

    database: Database
    clock: Clock
    registry: Registry
    egress: Egress
    low_water_mark: LowWaterMark
    id: UUID = field(default_factory=uuid7)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Another number of workers is alive."""

    async def heartbeat(self) -> float:
        async with self.database.in_turn() as connection:
            name, outbox_above = f"{socket.gethostname()}:{os.getpid()}", self.low_water_mark.for_others(connection)
            known = await workers.heartbeat(connection, self.id, name, outbox_above)
        self.clock.set(known.now)
        if known.ended:
            telemetry.stalled_sessions_ended(known.ended)
        if len(known.alive) != self.registry.workers:
            self.changed.set()
        self.registry.share_with(known.alive.index(self.id), len(known.alive))
        self.egress.refuse(known.listeners)
        return HEARTBEAT if outbox_above >= 0 else SOON

    async def deregister(self) -> None:
        """After the last heartbeat, which would count this worker among the live ones again."""
        try:
            async with self.database.connection() as connection:
                await workers.deregister(connection, self.id)
        except DatabaseUnavailable as error:
            telemetry.database_unavailable("deregister", error)
