"""What attempts came to: counted in the worker's memory, and written down every few seconds, by no settle."""

from __future__ import annotations

import asyncio
from time import monotonic

from uuid_utils.compat import uuid7

from webhook_gateway.rules.histogram import added, size_of
from webhook_gateway.rules.outcome import Accepted, words_of
from webhook_gateway.rules.verdict import Cancel, Done, GiveUp
from webhook_gateway.store import attempt_stats
from webhook_gateway.store.attempt_stats import Counted, Kind
from webhook_gateway.store.database import Database
from webhook_gateway.store.notifications import STATS, notify

from .deliver import Result

FLUSH = 5.0
"""Seconds from one flush to the next: a worker that is killed has not written so much."""
IDLE = 3_600.0


class Stats:
    """While nothing is sent nothing is written, and nobody wakes up."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[Kind, Counted] = {}
        self._unwritten: list[tuple[Kind, Counted]] = []
        self._flush_at = 0.0
        self.noted = asyncio.Event()

    def note(self, result: Result) -> None:
        """But what an endpoint is not to have, or perhaps not to know of. A test that it took says when it last took
        something, which ends its problems, and is no attempt; one that failed is nothing, as for its health."""
        delivery, exchange, action = result.delivery, result.exchange, result.verdict.action
        is_test = delivery.test
        if isinstance(action, Cancel) or delivery.unfiltered or (is_test and not isinstance(action, Done)):
            return
        ended, (outcome, status, detail) = result.began + exchange.duration, words_of(exchange.outcome)
        kind = Kind(int(ended // 60) * 60, delivery.tenant_id, delivery.endpoint_id, outcome)
        if not isinstance(exchange.outcome, Accepted):
            kind = kind._replace(status=status, detail=detail)
        counted = self._counts.get(kind)
        if counted is None:
            counted = self._counts[kind] = Counted(uuid7(), ended, ended, delivery.id)
            self.noted.set()
        if ended > counted.last_at:
            counted.last_at, counted.delivery_id = ended, delivery.id
        if is_test:
            return
        size = size_of(exchange.duration)
        if size >= len(counted.durations):
            counted.durations += [0] * (size + 1 - len(counted.durations))
        counted.durations[size] += 1
        counted.attempts += 1
        counted.died += isinstance(action, GiveUp)

    async def poll(self) -> float:
        """Writes down what was counted since the last time; returns how many seconds to sleep."""
        if not (self._counts or self._unwritten):
            return IDLE
        if (early := self._flush_at - monotonic()) > 0:
            return early
        await self.flush()
        return 0.0

    async def flush(self) -> None:
        """
        Raises:
            DatabaseUnavailable: it stays for the next time.
        """
        counts, self._counts = self._counts, {}
        self._unwritten += [*counts.items(), *_of_tenants(counts).items()]
        if self._unwritten:
            async with self._database.connection() as connection:
                await attempt_stats.add(connection, self._unwritten)
            self._unwritten.clear()
            self._flush_at = monotonic() + FLUSH
            await notify(self._database, STATS)


def _of_tenants(counts: dict[Kind, Counted]) -> dict[Kind, Counted]:
    """The sum for each tenant, so that a look at all of its endpoints need not add them up."""
    totals: dict[Kind, Counted] = {}
    for kind, one in counts.items():
        whole = Kind(kind.begins, kind.tenant_id, kind.tenant_id, kind.outcome)
        total = totals.setdefault(whole, Counted(uuid7(), one.first_at, one.last_at, one.delivery_id))
        total.last_at = max(total.last_at, one.last_at)
        total.durations = added((total.durations, one.durations))
        total.attempts += one.attempts
        total.died += one.died
    return totals
