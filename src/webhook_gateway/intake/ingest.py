"""Events come in: checked, sealed, and committed to the outbox before anybody is told that they were accepted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from webhook_gateway import telemetry
from webhook_gateway.crypto.vault import KeyMissing, Vault
from webhook_gateway.host.loop import Turns
from webhook_gateway.rules import ids
from webhook_gateway.rules.matching import OPERATIONAL
from webhook_gateway.rules.schema_cost import MOST, SchemaRefused
from webhook_gateway.store import configuration, keyring
from webhook_gateway.store.database import Database, DatabaseUnavailable

from .addressees import Addressees
from .catalogue import Catalogue, EventType
from .commits import Commits, EventRefused, Outcome, Receipt, RefusedBecause, Waiting
from .events import NewEvent, prepare
from .faults import Patience
from .schemas import Schema

PATIENCE = 4.5
"""Seconds that a caller waits for the commit before it is told to ask again."""
MOST_TOGETHER = 5.0 * MOST
"""Nanoseconds that judging the events of one request may cost."""


T = TypeVar("T")

_UNKNOWN = EventRefused(RefusedBecause.UNKNOWN_EVENT_TYPE)
_TOO_OLD = EventRefused(RefusedBecause.WORKERS_TOO_OLD)


class _Judge(msgspec.Struct, frozen=True):
    """What events of a type are judged by."""

    known: EventType
    schema: Schema

    def check(self, event: NewEvent, patience: Patience) -> tuple[EventType, EventRefused | None]:
        if self.schema.cost_of(event.data) > MOST:
            return self.known, EventRefused(RefusedBecause.TOO_MUCH, (self.schema.too_much(),))
        if not self.schema.is_valid(event.parsed):
            return self.known, EventRefused(RefusedBecause.SCHEMA, self.schema.faults(event.parsed, patience))
        return self.known, None


class Ingest:
    """Accepts events: each is judged, and what is not refused is prepared and waits for the next commit."""

    def __init__(self, database: Database, vault: Vault, catalogue: Catalogue, *, patient_index: bool = True) -> None:
        self._database = database
        self._vault = vault
        self._catalogue = catalogue
        self._patient_index = patient_index
        self._judges: dict[tuple[UUID, str], _Judge] = {}
        """By tenant and type, as they are now."""
        self.version, self._lacks_keys = 0, False
        """The configuration's, as of which the event types are."""
        self._turns: dict[UUID, asyncio.Lock] = {}
        self._commits = Commits(database)
        self.expect_room = self._commits.expect_room
        self._addressees = Addressees(database)

    async def accept(self, tenant_id: UUID, event: NewEvent, until: float | None = None) -> Receipt | EventRefused:
        """Stores one event; returns after its commit.

        ``until`` is the moment of monotonic time at which waiting ends, by default after `PATIENCE`.

        Raises:
            DatabaseUnavailable: it is unknown whether the event was stored: posting it again with its key is safe.
            KeyMissing: there is no key to seal it with.
        """
        (result,) = await (await self.enqueue(tenant_id, [event], monotonic() + PATIENCE if until is None else until))
        return result

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

    async def enqueue(
        self, tenant_id: UUID, events: Sequence[NewEvent], until: float
    ) -> asyncio.Future[Sequence[Receipt | EventRefused]]:
        """Judges events in the order given; those that aren't refused wait for the next commit.

        Raises:
            DatabaseUnavailable, KeyMissing: see `accept`; some of them may be stored.
        """
        self.expect_room(tenant_id, len(events))
        are_current = await self._learn(tenant_id, events, until)
        judged = [self._judge_of(tenant_id, e.type) if are_current or not e.to else _TOO_OLD for e in events]
        stored = asyncio.get_running_loop().create_future()
        if not events:
            stored.set_result(())
            return stored
        costs = [one.schema.cost_of(e.data) for e, one in zip(events, judged, strict=True) if isinstance(one, _Judge)]
        if len(judged) > 1 and sum(cost for cost in costs if cost <= MOST) > MOST_TOGETHER:
            telemetry.refused_events.labels(RefusedBecause.TOO_MUCH_TOGETHER.value).inc(len(events))
            stored.set_result([EventRefused(RefusedBecause.TOO_MUCH_TOGETHER)] * len(events))
            return stored
        waiting = Waiting(len(events), until, partial(_settle, stored))
        patience, turns = Patience(), Turns()
        for index, (event, judge) in enumerate(zip(events, judged, strict=True)):
            self._put(tenant_id, event, judge, patience, waiting, index)
            await turns.give()
        return stored

    def put(self, tenant_id: UUID, event: NewEvent, until: float, tell: Callable[[Outcome], None]) -> bool:
        """Judges one event, at once; ``tell`` is called once it is stored, or refused. False where something has to be
        asked of the database before; then nothing has happened.

        Raises:
            DatabaseUnavailable: too many wait; nothing of it is stored.
        """
        judge = self._judge_of(tenant_id, event.type)
        if judge is _UNKNOWN or not self._vault.knows(tenant_id):
            return False
        if event.to and not self._addressees.know(tenant_id, event.to):
            return False
        self.expect_room(tenant_id, 1)
        self._put(tenant_id, event, judge, Patience(), Waiting(1, until, tell), 0)
        return True

    async def run(self) -> None:
        """Keeps notifications going out; cancelled at the end."""
        await self._commits.run()

    async def refresh_all(self) -> None:
        """The same, and data keys that were lacking: with each event of an unknown type that would cost much."""
        lacked_keys = self._lacks_keys
        await self.refresh()
        if lacked_keys:
            self._lacks_keys = bool(await keyring.fill(self._database, self._vault))

    async def refresh(self) -> None:
        """Takes the time, and if anything changed the data keys and the tenants' own event types as they are now."""
        async with self._database.in_turn() as connection:
            version, now = await configuration.version_and_time(connection)
            self._database.clock.set(now)
            if version == self.version:
                return
            own: dict[UUID, list[EventType]] = {}
            for tenant_id, name, description, schema, example, key, patient in await configuration.event_types(
                connection
            ):
                known = EventType(name, description, schema, example, key, "tenant", patient=patient)
                own.setdefault(tenant_id, []).append(known)
        self._lacks_keys = bool(await keyring.fill(self._database, self._vault))
        self._catalogue.replace(own)
        self._judges.clear()
        self.version = version

    async def _learn(self, tenant_id: UUID, events: Sequence[NewEvent], until: float) -> bool:
        """False where there are workers that know of no addressees."""
        if not self._vault.knows(tenant_id):
            await _in_time(self._learn_keys(tenant_id), until)
        if any(self._judge_of(tenant_id, event.type) is _UNKNOWN for event in events):
            await _in_time(self.refresh(), until)  # one may have been made a moment ago, through another process
        addressed = [name for event in events for name in event.to or ()]
        return not addressed or await _in_time(self._addressees.learn(tenant_id, addressed), until)

    def _put(
        self,
        tenant_id: UUID,
        event: NewEvent,
        judge: _Judge | EventRefused,
        patience: Patience,
        waiting: Waiting,
        index: int,
    ) -> None:
        known, refused = (None, judge) if isinstance(judge, EventRefused) else judge.check(event, patience)
        addressees, faults = self._addressees.of(tenant_id, event) if event.to else (None, ())
        if faults and refused is None:
            refused = EventRefused(RefusedBecause.ADDRESSEE, faults)
        if refused is None:
            event_id = self._database.clock.new_id()
            prepared = prepare(self._vault, event_id, tenant_id, event, known, addressees, self._patient_index)
            self._commits.add(prepared, waiting, index)
        else:
            telemetry.refused_events.labels(refused.reason.value).inc()
            waiting.put(index, refused)

    def _judge_of(self, tenant_id: UUID, event_type: str) -> _Judge | EventRefused:
        judge = self._judges.get((tenant_id, event_type))
        if judge is not None:
            return judge
        known = self._catalogue.get(tenant_id, event_type)
        if event_type.startswith(OPERATIONAL):
            return EventRefused(RefusedBecause.RESERVED_EVENT_TYPE)
        if known is None:
            return _UNKNOWN
        try:
            judge = self._judges[tenant_id, event_type] = _Judge(known, self._catalogue.compiled(tenant_id, known))
        except SchemaRefused:
            return EventRefused(RefusedBecause.UNUSABLE_SCHEMA)
        return judge

    async def _learn_keys(self, tenant_id: UUID) -> None:
        if not self._database.clock.is_set:
            await self.refresh()
        missing = await keyring.fill(self._database, self._vault)
        if not self._vault.knows(tenant_id):
            telemetry.keys_missing(missing)
            raise KeyMissing(f"no data key for {ids.render(ids.TENANT, tenant_id)}")


def _settle(stored: asyncio.Future[Sequence[Receipt | EventRefused]], outcome: Outcome) -> None:
    if stored.done():
        return  # whoever asked has gone
    if isinstance(outcome, DatabaseUnavailable):
        stored.set_exception(outcome)
        stored.exception()  # seen: its caller may have given up
    else:
        stored.set_result(outcome)


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
