"""Group commit: while one commit is under way, events that come meanwhile wait for the next, each tenant in turn."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from time import monotonic
from typing import Any
from uuid import UUID
from weakref import WeakSet

import msgspec

from webhook_gateway import counters, telemetry
from webhook_gateway.failpoints import reach
from webhook_gateway.intake.company import FEW, LONG_COMPANY, QUIET, Company
from webhook_gateway.rules.faults import Fault
from webhook_gateway.store import offers, outbox
from webhook_gateway.store.database import Connection, Database, DatabaseUnavailable
from webhook_gateway.store.notifications import GAP, OUTBOX, Notifier
from webhook_gateway.store.outbox import Appended

LARGEST_COMMIT = 500
LARGEST_COMMIT_BYTES = 8_388_608
PACE = 0.002
"""Seconds by which the next notification is later for each event of a commit above `FEW`: the more come at once, the
more of them share a round of fan-out, a claim and a settle."""
LONGEST_GAP = 0.05
"""Seconds between two notifications at most."""
LONGEST_QUEUE = 20_000
"""Events that wait for a commit: of one tenant that is alone; of several, each may have its part."""
SWEEPS = 0.5, 0.1
"""Seconds between two sweeps for callers who have waited too long, without any and with some who wait."""
BY_ONE = 1_000
"""Commits by one connection, which then may be replaced: to take one for each cost a lone event much."""


class Receipt(msgspec.Struct, frozen=True):
    """The event is committed. ``duplicate``: it already was, under the same idempotency key."""

    event_id: UUID
    type: str
    accepted_at: datetime
    duplicate: bool = False


class RefusedBecause(StrEnum):
    """Why an event is refused; nothing of it is stored."""

    UNKNOWN_EVENT_TYPE = "unknown_event_type"
    RESERVED_EVENT_TYPE = "reserved_event_type"
    SCHEMA = "schema"
    UNUSABLE_SCHEMA = "unusable_schema"
    TOO_MUCH = "too_much"
    TOO_MUCH_TOGETHER = "too_much_together"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    ADDRESSEE = "addressee"
    WORKERS_TOO_OLD = "workers_too_old"


class EventRefused(msgspec.Struct, frozen=True):
    reason: RefusedBecause
    faults: tuple[Fault, ...] = ()


Outcome = Sequence[Receipt | EventRefused] | DatabaseUnavailable
"""What became of the events of a request, in their order; or it is unknown whether they were stored."""


class Waiting:
    """A request whose events wait for their commit. It is told once: when none of them waits any more."""

    __slots__ = ("_left", "_results", "_tell", "is_over", "until")

    def __init__(self, count: int, until: float, tell: Callable[[Outcome], None]) -> None:
        self._results: list[Any] = [None] * count
        self._left = count
        self._tell = tell
        self.until = until
        """The moment of monotonic time at which waiting ends."""
        self.is_over = False

    def put(self, index: int, result: Receipt | EventRefused) -> None:
        self._results[index] = result
        self._left -= 1
        if not self._left:
            self.end(self._results)

    def end(self, outcome: Outcome) -> None:
        if self.is_over:
            return
        self.is_over = True
        try:
            self._tell(outcome)
        except Exception as error:  # others wait, too
            telemetry.stage_failed("answer", error)


class Commits:
    """What is prepared and waits to be stored."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queues: dict[UUID, deque[tuple[Appended, Waiting, int]]] = {}
        """By tenant, none empty; the first one's turn is next."""
        self._batch: list[tuple[Appended, Waiting, int]] = []
        """What is being stored."""
        self._committer: asyncio.Task[None] | None = None
        self._company = Company()
        self._first = 0.0
        """When the first came of those that wait."""
        self._missing = 0
        self._enough: asyncio.Future[None] | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._notifier = Notifier(database, OUTBOX)
        self._planned: WeakSet[Connection] = WeakSet()
        """Whose sessions have stored a few events before."""

    async def run(self) -> None:
        """Keeps notifications going out; cancelled at the end."""
        try:
            await self._notifier.run()
        finally:
            self._go_on()

    def expect_room(self, tenant_id: UUID, count: int) -> None:
        """To be called before anything else is done for so many events, which is what they cost.

        Raises:
            DatabaseUnavailable: too many wait.
        """
        queue = self._queues.get(tenant_id)
        if queue is not None and len(queue) + count > LONGEST_QUEUE // len(self._queues):
            raise DatabaseUnavailable("too many events wait for a commit")

    def add(self, appended: Appended, waiting: Waiting, index: int) -> None:
        if not self._queues:
            self._first = monotonic()
        queue = self._queues.get(appended.tenant_id)
        if queue is None:
            queue = self._queues[appended.tenant_id] = deque()
        queue.append((appended, waiting, index))
        self._missing -= 1
        if self._missing == 0:
            self._go_on()
        if self._committer is None:
            self._committer = asyncio.get_running_loop().create_task(self._commit_all())

    async def _commit_all(self) -> None:
        """Commits what waits, and what comes in until nothing has for a moment. It goes on when all who had something
        to say have been read: what came together is committed together."""
        try:
            while await self._gather():
                try:
                    async with self._database.connection() as connection:
                        await self._commit_by(connection)
                except Exception as error:
                    if not isinstance(error, DatabaseUnavailable):
                        telemetry.stage_failed("append", error)
                        error = DatabaseUnavailable(type(error).__name__)
                    for _, waiting, _ in self._batch:
                        waiting.end(error)
                    self._batch = []
        finally:
            self._committer, self._batch = None, []

    async def _commit_by(self, connection: Connection) -> None:
        """Until nothing comes for a moment, or another connection is to be used."""
        for _ in range(BY_ONE):
            await self._commit(connection, self._batch)
            self._batch = []
            if connection not in self._planned and not self._queues:
                self._planned.add(connection)
                await offers.plan(connection)
            if not await self._gather() or connection.is_closed() or not self._database.prefers(connection):
                break

    def _sweep(self) -> None:
        """Tells callers who have waited too long that nothing is certain; where nothing has come, `_gather` ends."""
        now, waits = monotonic(), bool(self._batch or self._queues)
        for entries in (self._batch, *self._queues.values()):
            for _, waiting, _ in entries:
                if waiting.until <= now:
                    waiting.end(DatabaseUnavailable("the commit took too long"))
        if waits or self._company.began > now - SWEEPS[0]:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEPS[waits], self._sweep)
        else:
            self._sweeping = None
            self._go_on()

    async def _gather(self) -> bool:
        """The next batch, once there is company for it."""
        if not self._batch:
            if self._sweeping is None:
                self._sweeping = asyncio.get_running_loop().call_later(SWEEPS[0], self._sweep)
            if not self._queues:
                await self._wait_for(1)
            await self._wait_for_company()
            self._batch = self._next_batch()
            self._company.begin(len(self._batch), monotonic())
        return bool(self._batch)

    async def _wait_for_company(self) -> None:
        waiting = self._count()
        if enough := self._company.enough_of_many(waiting):
            while 0 < waiting < enough and (left := self._first + LONG_COMPANY - monotonic()) > 0:
                before = waiting
                await self._wait_for(enough - waiting, min(left, QUIET))
                if (waiting := self._count()) == before:
                    break
        elif 0 < waiting < FEW:
            left = self._first + self._company.wait_of_few() - monotonic()
            if left > 0:
                await self._wait_for(FEW - waiting, left)

    def _count(self) -> int:
        return sum(map(len, self._queues.values()))

    async def _wait_for(self, events: int, seconds: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._missing, self._enough = events, loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self._go_on)
        await self._enough
        if timer is not None:
            timer.cancel()

    def _go_on(self) -> None:
        if self._enough is not None and not self._enough.done():
            self._enough.set_result(None)

    def _next_batch(self) -> list[tuple[Appended, Waiting, int]]:
        """From each tenant in turn its part of a commit, and again while there is room: whoever floods waits alone."""
        batch: list[tuple[Appended, Waiting, int]] = []
        size, tenants = 0, len(self._queues)
        while self._queues and len(batch) < LARGEST_COMMIT:
            tenant_id, queue = next(iter(self._queues.items()))
            most = min(len(batch) + max(LARGEST_COMMIT // tenants, 1), LARGEST_COMMIT)
            most_bytes = size + LARGEST_COMMIT_BYTES // tenants
            while queue and len(batch) < most and size < most_bytes:
                appended, waiting, _ = queue[0]
                if batch and size + appended.size > LARGEST_COMMIT_BYTES:
                    return batch  # its turn goes on with the next commit
                entry = queue.popleft()
                if not waiting.is_over:  # else its caller was told that nothing is certain
                    batch.append(entry)
                    size += appended.size
            del self._queues[tenant_id]
            if queue:
                self._queues[tenant_id] = queue
        return batch

    async def _commit(self, connection: Connection, batch: list[tuple[Appended, Waiting, int]]) -> None:
        began, told = monotonic(), len(batch) <= FEW
        events, clock = [appended for appended, _, _ in batch], self._database.clock
        results = await append(connection, events, notify=told, now=clock.now() if clock.is_certain() else None)
        took = monotonic() - began
        self._company.end(took)
        counters.soon(telemetry.append_seconds.observe, took)
        counters.soon(telemetry.append_events.observe, len(batch))
        reach("after_append_commit")
        if not told:
            self._notifier.ask(min(GAP + PACE * (len(batch) - FEW), LONGEST_GAP))
        if told and self._queues:  # what waits is on its way before these answers are made
            asyncio.get_running_loop().call_soon(_tell, batch, results)
        else:
            _tell(batch, results)


def _tell(batch: list[tuple[Appended, Waiting, int]], results: list[Receipt | EventRefused]) -> None:
    for (_, waiting, index), result in zip(batch, results, strict=True):
        waiting.put(index, result)


async def append(
    connection: Connection, events: list[Appended], *, notify: bool = False, now: float | None = None
) -> list[Receipt | EventRefused]:
    """Stores prepared events, each once for its idempotency key, and says what became of each.

    Of few that are for whoever wants them with their deliveries, where workers have offered to send them and the
    database's time ``now`` is known.
    """
    if notify and now is not None and _are_simple(events):
        stored = await offers.append(connection, events, now)
    else:
        stored = await outbox.append(connection, events, notify)
    counters.soon(telemetry.accepted_events.inc, len(stored))
    again = [(e.tenant_id, e.key) for e in events if e.id not in stored and e.key is not None]
    known = await outbox.earlier(connection, again) if again else {}
    return [_result(event, stored, known) for event in events]


def _are_simple(events: Sequence[Appended]) -> bool:
    """Each is for whoever wants it, and behind none of the others."""
    keys = [event.ordering_key for event in events if event.ordering_key is not None]
    return len(set(keys)) == len(keys) and all(event.addressees is None for event in events)


def _result(
    event: Appended, stored: dict[UUID, datetime], known: dict[tuple[UUID, bytes], Any]
) -> Receipt | EventRefused:
    accepted_at = stored.get(event.id)
    if accepted_at is not None:
        return Receipt(event.id, event.type, accepted_at)
    if event.key is None or (event.tenant_id, event.key) not in known:
        raise DatabaseUnavailable("its key was pruned between two statements: asking again helps")
    first = known[event.tenant_id, event.key]
    if first["fingerprint"] != event.fingerprint:
        telemetry.refused_events.labels(RefusedBecause.IDEMPOTENCY_CONFLICT.value).inc()
        return EventRefused(RefusedBecause.IDEMPOTENCY_CONFLICT)
    return Receipt(first["event_id"], event.type, first["accepted_at"], duplicate=True)
