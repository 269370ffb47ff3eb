"""Events come in: checked, sealed, and committed to the outbox before anybody is told that they were accepted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from enum import StrEnum
from functools import partial
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from webhook_gateway import telemetry
from webhook_gateway.crypto.vault import KeyMissing, Vault
from webhook_gateway.failpoints import reach
from webhook_gateway.host.loop import Turns
from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.matching import OPERATIONAL
from webhook_gateway.rules.schema_cost import MOST, SchemaRefused
from webhook_gateway.store import configuration, keyring, outbox
from webhook_gateway.store.database import Connection, Database, DatabaseUnavailable
from webhook_gateway.store.notifications import OUTBOX, Notifier
from webhook_gateway.store.outbox import Appended

from .addressees import Addressees
from .catalogue import Catalogue, EventType
from .events import NewEvent, prepare
from .faults import Patience
from .schemas import Schema

LARGEST_COMMIT = 500
LARGEST_COMMIT_BYTES = 8_388_608
FEW = 4
"""Events of a commit that tells the workers by itself: with more of them the lock that this takes would be felt."""
LONGEST_QUEUE = 20_000
"""Events that wait for a commit: of one tenant that is alone; of several, each may have its part."""
PATIENCE = 4.5
"""Seconds that a caller waits for the commit before it is told to ask again."""
MOST_TOGETHER = 5.0 * MOST
"""Nanoseconds that judging the events of one request may cost."""
SWEEP = 0.1
"""Seconds between two sweeps for callers who have waited too long: one timer for all of them."""


T = TypeVar("T")


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


_TOO_OLD = EventRefused(RefusedBecause.WORKERS_TOO_OLD)

Stored = asyncio.Future[Receipt | EventRefused]
"""What becomes of an event that waits for its commit; fails with `DatabaseUnavailable`."""


class _Judge(msgspec.Struct, frozen=True):
    """What an event is judged by, and the most that it may cost, in nanoseconds."""

    known: EventType
    schema: Schema
    cost: float

    def check(self, event: NewEvent, patience: Patience) -> EventType | EventRefused:
        if self.schema.is_valid(event.parsed):
            return self.known
        return EventRefused(RefusedBecause.SCHEMA, self.schema.faults(event.parsed, patience))


class Ingest:
    """Accepts events. While one commit is under way, those that arrive meanwhile wait for the next: group commit."""

    def __init__(self, database: Database, vault: Vault, catalogue: Catalogue, *, patient_index: bool = True) -> None:
        self._database = database
        self._vault = vault
        self._catalogue = catalogue
        self._prepare = partial(prepare, vault, patient_index=patient_index)
        self._version = 0
        self._queues: dict[UUID, deque[tuple[Appended, Stored]]] = {}
        """By tenant, none empty; the first one's turn is next."""
        self._turns: dict[UUID, asyncio.Lock] = {}
        self._committers: set[asyncio.Task[None]] = set()
        self._waiting: list[tuple[float, Stored]] = []
        self._sweeping: asyncio.TimerHandle | None = None
        self._notifier = Notifier(database, OUTBOX)
        self._addressees = Addressees(database)

    async def accept(self, tenant_id: UUID, event: NewEvent, until: float | None = None) -> Receipt | EventRefused:
        """Stores one event; returns after its commit.

        ``until`` is the moment of monotonic time at which waiting ends, by default after `PATIENCE`.

        Raises:
            DatabaseUnavailable: it is unknown whether the event was stored: posting it again with its key is safe.
            KeyMissing: there is no key to seal it with.
        """
        until = monotonic() + PATIENCE if until is None else until
        (result,) = await self.enqueue(tenant_id, [event], until)
        return result if isinstance(result, EventRefused) else await result

    @asynccontextmanager
    async def turn(self, tenant_id: UUID, until: float) -> AsyncIterator[None]:
        """One batch of a tenant is read and judged at a time: others' requests never wait for more than one.

        Raises:
            DatabaseUnavailable: those before it took until then.
        """
        lock = self._turns.setdefault(tenant_id, asyncio.Lock())
        await _in_time(lock.acquire(), until)
        try:
            yield
        finally:
            lock.release()

    async def enqueue(self, tenant_id: UUID, events: Sequence[NewEvent], until: float) -> list[EventRefused | Stored]:
        """Judges events in the order given; those that aren't refused wait for the next commit.

        Raises:
            DatabaseUnavailable, KeyMissing: see `accept`; some of them may be stored.
        """
        if not self._vault.knows(tenant_id):
            await _in_time(self._learn_keys(tenant_id), until)
        if any(self._is_unknown(tenant_id, event.type) for event in events):
            await _in_time(self.refresh(), until)  # one may have been made a moment ago, through another process
        judged = [self._find_judge(tenant_id, event) for event in events]
        addressed = [name for event in events for name in event.to or ()]
        if addressed and not await _in_time(self._addressees.learn(tenant_id, addressed), until):
            judged = [_TOO_OLD if event.to else judge for event, judge in zip(events, judged, strict=True)]
        if len(judged) > 1 and sum(one.cost for one in judged if isinstance(one, _Judge)) > MOST_TOGETHER:
            telemetry.refused_events.labels(RefusedBecause.TOO_MUCH_TOGETHER.value).inc(len(events))
            return [EventRefused(RefusedBecause.TOO_MUCH_TOGETHER)] * len(events)
        results: list[EventRefused | Stored] = []
        patience, turns = Patience(), Turns()
        for event, judge in zip(events, judged, strict=True):
            checked = judge if isinstance(judge, EventRefused) else judge.check(event, patience)
            addressees, faults = self._addressees.of(tenant_id, event) if event.to else (None, ())
            if faults and not isinstance(checked, EventRefused):
                checked = EventRefused(RefusedBecause.ADDRESSEE, faults)
            if isinstance(checked, EventRefused):
                telemetry.refused_events.labels(checked.reason.value).inc()
                results.append(checked)
            else:
                event_id = self._database.clock.new_id()
                appended = self._prepare(event_id, tenant_id, event, checked, addressees)
                results.append(self._enqueue(appended, until))
            await turns.give()
        return results

    async def run(self) -> None:
        """Keeps notifications going out; cancelled at the end."""
        await self._notifier.run()

    async def refresh(self) -> None:
        """Takes the time, and the tenants' own event types as they are now, if anything changed."""
        async with self._database.connection() as connection:
            await self._database.clock.ask(connection)
            version = await configuration.version(connection)
            if version == self._version:
                return
            own: dict[UUID, list[EventType]] = {}
            for tenant_id, name, description, schema, example, key, patient in await configuration.event_types(
                connection
            ):
                known = EventType(name, description, schema, example, key, "tenant", patient=patient)
                own.setdefault(tenant_id, []).append(known)
        self._catalogue.replace(own)
        self._version = version

    def _is_unknown(self, tenant_id: UUID, event_type: str) -> bool:
        return self._catalogue.get(tenant_id, event_type) is None and not event_type.startswith(OPERATIONAL)

    def _find_judge(self, tenant_id: UUID, event: NewEvent) -> _Judge | EventRefused:
        known = self._catalogue.get(tenant_id, event.type)
        if event.type.startswith(OPERATIONAL):
            return EventRefused(RefusedBecause.RESERVED_EVENT_TYPE)
        if known is None:
            return EventRefused(RefusedBecause.UNKNOWN_EVENT_TYPE)
        try:
            schema = self._catalogue.compiled(tenant_id, known)
        except SchemaRefused:
            return EventRefused(RefusedBecause.UNUSABLE_SCHEMA)
        cost = schema.cost_of(event.data)
        return (
            _Judge(known, schema, cost) if cost <= MOST else EventRefused(RefusedBecause.TOO_MUCH, (schema.too_much(),))
        )

    async def _learn_keys(self, tenant_id: UUID) -> None:
        if not self._database.clock.is_set:
            await self.refresh()
        missing = await keyring.fill(self._database, self._vault)
        if not self._vault.knows(tenant_id):
            telemetry.keys_missing(missing)
            raise KeyMissing(f"no data key for {ids.render(ids.TENANT, tenant_id)}")

    def _enqueue(self, appended: Appended, until: float) -> Stored:
        queue = self._queues.get(appended.tenant_id)
        if queue is None:
            queue = self._queues[appended.tenant_id] = deque()
        if len(queue) >= LONGEST_QUEUE // len(self._queues) and queue:
            raise DatabaseUnavailable("too many events wait for a commit")
        loop = asyncio.get_running_loop()
        stored: Stored = loop.create_future()
        queue.append((appended, stored))
        self._waiting.append((until, stored))
        if self._sweeping is None:
            self._sweeping = loop.call_later(SWEEP, self._sweep)
        # One that has ended but is not discarded yet commits nothing more.
        if all(committer.done() for committer in self._committers):
            task = loop.create_task(self._commit_all())
            self._committers.add(task)
            task.add_done_callback(self._committers.discard)
        return stored

    def _sweep(self) -> None:
        """Tells callers who have waited too long that nothing is certain."""
        now = monotonic()
        self._waiting = [waiting for waiting in self._waiting if not waiting[1].done()]
        for until, stored in self._waiting:
            if until <= now:
                _fail(stored, DatabaseUnavailable("the commit took too long"))
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP, self._sweep) if self._waiting else None

    async def _commit_all(self) -> None:
        """Commits what waits, and what comes in meanwhile, until nothing waits."""
        await asyncio.sleep(0)  # let requests that are already parsed join the first commit
        while batch := self._next_batch():
            try:
                results = await self._commit([appended for appended, _ in batch])
            except Exception as error:
                if not isinstance(error, DatabaseUnavailable):
                    telemetry.stage_failed("append", error)
                    error = DatabaseUnavailable(type(error).__name__)
                for _, stored in batch:
                    if not stored.done():
                        _fail(stored, error)
            else:
                for (_, stored), result in zip(batch, results, strict=True):
                    if not stored.done():
                        stored.set_result(result)

    def _next_batch(self) -> list[tuple[Appended, Stored]]:
        """From each tenant in turn its part of a commit, and again while there is room: whoever floods waits alone."""
        batch: list[tuple[Appended, Stored]] = []
        size, tenants = 0, len(self._queues)
        while self._queues and len(batch) < LARGEST_COMMIT:
            tenant_id, queue = next(iter(self._queues.items()))
            most = min(len(batch) + max(LARGEST_COMMIT // tenants, 1), LARGEST_COMMIT)
            most_bytes = size + LARGEST_COMMIT_BYTES // tenants
            while queue and len(batch) < most and size < most_bytes:
                appended, stored = queue[0]
                if batch and size + appended.size > LARGEST_COMMIT_BYTES:
                    return batch  # its turn goes on with the next commit
                queue.popleft()
                if not stored.done():  # its caller gave up waiting: it was told that nothing is certain
                    batch.append((appended, stored))
                    size += appended.size
            del self._queues[tenant_id]
            if queue:
                self._queues[tenant_id] = queue
        return batch

    async def _commit(self, events: list[Appended]) -> list[Receipt | EventRefused]:
        began = monotonic()
        told = len(events) <= FEW
        async with self._database.connection() as connection:
            results = await append(connection, events, notify=told)
        telemetry.append_seconds.observe(monotonic() - began)
        telemetry.append_events.observe(len(events))
        reach("after_append_commit")
        if not told:
            self._notifier.ask()
        return results


async def _in_time(work: Coroutine[Any, Any, T], until: float) -> T:
    """
    Raises:
        DatabaseUnavailable: it took until then.
    """
    try:
        async with asyncio.timeout(until - monotonic()):
            return await work
    except TimeoutError:
        raise DatabaseUnavailable("the database took too long") from None


def _fail(stored: Stored, error: DatabaseUnavailable) -> None:
    stored.set_exception(error)
    stored.exception()  # seen: its caller may have given up


async def append(
    connection: Connection, events: list[Appended], *, notify: bool = False
) -> list[Receipt | EventRefused]:
    """Stores prepared events, each once for its idempotency key, and says what became of each."""
    stored = await outbox.append(connection, events, notify)
    telemetry.accepted_events.inc(len(stored))
    again = [(e.tenant_id, e.key) for e in events if e.id not in stored and e.key is not None]
    known = await outbox.earlier(connection, again) if again else {}
    return [_result(event, stored, known) for event in events]


def _result(
    event: Appended, stored: dict[UUID, datetime], known: dict[tuple[UUID, bytes], Any]
) -> Receipt | EventRefused:
    if event.id in stored:
        return Receipt(event.id, event.type, stored[event.id])
    if event.key is None or (event.tenant_id, event.key) not in known:
        raise DatabaseUnavailable("its key was pruned between two statements: asking again helps")
    first = known[event.tenant_id, event.key]
    if first["fingerprint"] != event.fingerprint:
        telemetry.refused_events.labels(RefusedBecause.IDEMPOTENCY_CONFLICT.value).inc()
        return EventRefused(RefusedBecause.IDEMPOTENCY_CONFLICT)
    return Receipt(first["event_id"], event.type, first["accepted_at"], duplicate=True)
