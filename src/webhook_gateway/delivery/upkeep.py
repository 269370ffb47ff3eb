"""What keeps the tables small and the operators' jobs going. One worker at a time does it; any can take over."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from time import monotonic, time

import asyncpg

from webhook_gateway import telemetry
from webhook_gateway.crypto.vault import KeyMissing, Vault
from webhook_gateway.host.loop import POLL, SELDOM
from webhook_gateway.operations import backfills
from webhook_gateway.rules.model import DeliveryState
from webhook_gateway.settings import Settings
from webhook_gateway.store import (
    advisory_locks,
    attempt_stats,
    configuration,
    forwarding,
    healing,
    partitions,
    permission,
    replays,
    retention,
)
from webhook_gateway.store.database import Connection, Database
from webhook_gateway.store.notifications import OUTBOX, notify

from . import operational
from .registry import Registry

REPLAYS = 500
"""Deliveries that a replay job queues in one transaction."""
ROUND = 1.0
CHORES = 600.0
"""Seconds between two rounds over partitions and old keys."""
CHORES_AGAIN = 60.0
"""Seconds until the next one where a table was busy, or the time is in doubt."""
MERGE = 60.0
"""Seconds between two merges of what workers have counted."""
LARGEST_DIFFERENCE = 3_600.0
"""Seconds between this machine's clock and the database's with which something may be dropped."""


async def forward(database: Database) -> float:
    """Brings forward what waits at endpoints that answer again, a slice of each. Whoever comes first does it."""
    async with database.connection() as connection:
        seconds = await forwarding.forward(connection, database.clock.now())
    return SELDOM if seconds is None else min(seconds, POLL)


class Upkeep:
    def __init__(self, settings: Settings, database: Database, vault: Vault, registry: Registry) -> None:
        self._settings = settings
        self._database = database
        self._vault = vault
        self._registry = registry
        self._chores_at = self._merge_at = monotonic()
        self._healed = 0
        """Steps of the clock."""
        self._slices: deque[Callable[[Connection], Awaitable[int | None]]] = deque(
            [
                permission.cancel_some,
                partial(replays.run_some, limit=REPLAYS),
                partial(backfills.run_some, vault=vault),
            ]
        )

    async def poll(self) -> float:
        """A slice of each kind of work, and now and then the daily chores; returns how many seconds to sleep."""
        async with self._database.connection() as connection:
            steps = self._database.clock.steps
            is_due = steps != self._healed or monotonic() >= min(self._chores_at, self._merge_at)
            if not (is_due or await permission.slices_wait(connection)):
                return SELDOM
            if not await advisory_locks.try_lock(connection, advisory_locks.UPKEEP):
                return ROUND
            try:
                if steps != self._healed:
                    while await healing.heal(connection, self._settings.lease_margin):
                        pass
                    self._healed = steps
                if monotonic() >= self._chores_at and self._registry.snapshot.version:
                    await self._do_chores(connection)
                if monotonic() >= self._merge_at:
                    self._merge_at = monotonic() + MERGE
                    await attempt_stats.merge(connection)
                self._slices.rotate()  # what runs out of time lets the other begin the next round
                done = [await work(connection) for work in self._slices]
            finally:
                try:
                    await advisory_locks.unlock(connection, advisory_locks.UPKEEP)
                except BaseException:
                    connection.terminate()  # the lock must not live on in the pool
                    raise
        if any(done):
            await notify(self._database, OUTBOX)  # a replay may have put something there
        return ROUND if all(count is None for count in done) else 0.0

    async def _do_chores(self, connection: Connection) -> None:
        self._chores_at = monotonic() + CHORES_AGAIN
        with suppress(asyncpg.LockNotAvailableError, KeyMissing):  # a table is busy, with a backup for example
            await partitions.make_all(connection)
            if self._registry.snapshot.is_paused or not await self._knows_the_time(connection):
                return  # what is too old in a copy may be what it was made for
            await self._end_open(connection)
            await self._drop(connection)
            while await partitions.prune_keys(connection, self._settings.retain_idempotency_hours):
                pass
            async with connection.transaction():
                await configuration.seal_queries(connection, self._vault)
            self._chores_at = monotonic() + CHORES

    async def _knows_the_time(self, connection: Connection) -> bool:
        """Whether this machine says about the same as the database: what is dropped in a wrong year is gone."""
        await (clock := self._database.clock).ask(connection)
        if abs(difference := clock.now() - time()) > LARGEST_DIFFERENCE:
            telemetry.clocks_differ(difference)
            return False
        return clock.is_certain()

    async def _end_open(self, connection: Connection) -> None:
        """Nobody has brought them to an end, nor will: an operator is told, and bodies go."""
        count = 0
        while True:
            async with connection.transaction():
                ended = await retention.end_open(connection, self._settings.retain_open_days)
                for one in ended:
                    endpoint = self._registry.of(one.endpoint_id).endpoint
                    if endpoint is not None and self._registry.wants_dead_delivery_events(one):
                        await operational.delivery_dead(connection, self._vault, endpoint, one, retention.TOO_LONG)
            if not ended:
                break
            telemetry.finished.labels(DeliveryState.DEAD).inc(len(ended))
            count += len(ended)
        if count:
            telemetry.open_too_long(count)

    async def _drop(self, connection: Connection) -> None:
        today = await partitions.today(connection)
        before = today - timedelta(days=self._settings.retain_bodies_days)
        await retention.forget(connection, before)
        dropped = await retention.drop_bodies(connection, before)
        before = today - timedelta(days=self._settings.retain_metadata_days)
        for cut in (partitions.FINISHED, partitions.ATTEMPTS, partitions.LOOKUPS):
            dropped += await partitions.drop_before(connection, cut, before)
        if dropped:
            telemetry.partitions_dropped(dropped)
