"""Leased deliveries become requests, each in a slot; what they came to waits here until it is settled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from webhook_gateway import telemetry
from webhook_gateway.failpoints import reach
from webhook_gateway.host import tracing
from webhook_gateway.host.loop import POLL
from webhook_gateway.outbound.sender import Found, Sender
from webhook_gateway.outbound.tokens import Tokens
from webhook_gateway.rules import ids
from webhook_gateway.rules.filters import read_data
from webhook_gateway.rules.matching import may_have
from webhook_gateway.rules.model import Delivery, Endpoint
from webhook_gateway.rules.outcome import Exchange, Remedy, Unsendable, words_of
from webhook_gateway.rules.verdict import Cancel, Done, Postpone, RetryIn
from webhook_gateway.store import deliveries, finished
from webhook_gateway.store.database import Database, DatabaseUnavailable
from webhook_gateway.store.deliveries import Retried

from .bodies import Bodies
from .deliver import Attempt, Result, begin, conclude, prepare
from .due import Due
from .registry import EndpointRecord, Leased, Prefetched, Registry
from .slots import Slots
from .stats import Stats
from .unsettled import Unsettled

NOT_PERMITTED = Unsendable("not_permitted", Remedy.CANCEL)
ANOTHER_HOST = Unsendable("another_host", Remedy.CANCEL)
NOT_WANTED = Unsendable(finished.NOT_WANTED, Remedy.CANCEL)
CLOCK_GAP = 0.05
"""Seconds until what a worker has to know first is asked for again, where it isn't known yet."""


@dataclass(eq=False)
class Sending:
    """The requests of one worker. Of a partner's answer ``keep`` bytes are held on to."""

    database: Database
    bodies: Bodies
    sender: Sender
    tokens: Tokens
    registry: Registry
    due: Due
    slots: Slots
    stats: Stats
    keep: int
    stopping: asyncio.Event
    in_flight: set[Attempt] = field(default_factory=set)
    """Requests, each in a slot."""
    none_in_flight: asyncio.Event = field(default_factory=asyncio.Event)
    unsettled: Unsettled = field(default_factory=Unsettled)
    is_behind: bool = False
    """What was sent can't be written down just now: sending more would only make more of it come twice."""

    def must_wait(self) -> float:
        """Seconds to wait where nothing may be leased.

        It couldn't be written down, sending is paused, or the time and the endpoints' health aren't known yet.
        """
        if self.is_behind or self.registry.snapshot.is_paused:
            return POLL
        return 0.0 if self.database.clock.is_set and self.registry.snapshot.version else CLOCK_GAP

    async def send(self, leased: Sequence[Leased]) -> None:
        """Begins the requests of deliveries whose slots are reserved; those prefetched are queued."""
        try:
            bodies = await self.bodies.of([one.delivery for one in leased])
        except BaseException:
            with suppress(Exception):  # then their leases just end
                await self._give_up(leased, POLL)
            raise
        if self.stopping.is_set():  # the drain may be over: nobody would wait for what begins now
            await self._give_up(leased)
            return
        await self.return_leases(self.begin(leased, bodies))

    def begin(self, leased: Sequence[Leased], bodies: Mapping[UUID, bytes | Unsendable]) -> Sequence[Leased]:
        """As `send`, of what may be sent now. Returns what isn't: its slot was taken meanwhile, and there is no request
        that it could follow."""
        reach("after_lease")
        queued: set[EndpointRecord] = set()
        for one in leased:
            body = bodies[one.delivery.event_id]
            if self.slots.begin(one, body):
                self._begin(one.record, one.delivery, body)
            else:
                queued.add(one.record)
        return self.slots.orphaned(queued) if queued else ()

    async def return_leases(self, leased: Sequence[Leased], delay: float = 0.0) -> None:
        """Those deliveries were not attempted; they are due again after ``delay`` seconds."""
        if leased:
            retried = [Retried(one.delivery, delay, counted=False) for one in leased]
            async with self.database.connection() as connection, connection.transaction():
                await deliveries.settle(connection, [], [], retried, self.database.clock.now())
            for one in leased:
                self.due.expect(one.record, delay)

    def tell(self) -> None:
        """Logs and counts attempts, some together: for each alone that takes three times as long."""
        untold, self.unsettled.untold = self.unsettled.untold, []
        for result in untold:
            self.stats.note(result)
            telemetry.attempt_made(result.endpoint, result.delivery, result.exchange, result.verdict)

    async def drain(self) -> None:
        """What is under way ends, within its own deadline."""
        with suppress(DatabaseUnavailable):  # then those leases just end
            await self.return_leases(self.slots.orphaned(stopping=True))
        while self.in_flight:
            self.none_in_flight.clear()
            await self.none_in_flight.wait()

    async def _give_up(self, leased: Sequence[Leased], delay: float = 0.0) -> None:
        for one in leased:
            self.slots.not_sent(one.record)
        await self.return_leases(leased, delay)

    def _begin(self, record: EndpointRecord, delivery: Delivery, body: bytes | Unsendable) -> None:
        """One slot's work: a delivery, and whatever was prefetched for the same endpoint."""
        following: Prefetched | None
        while True:
            try:
                if self._is_under_way(record, delivery, body):
                    return
            except Exception as error:
                telemetry.stage_failed("deliver", error)  # the lease ends by itself; the attempt is counted
            following = self._next(record)
            if following is None:
                return
            delivery, body = following.delivery, following.body

    def _is_under_way(self, record: EndpointRecord, delivery: Delivery, body: bytes | Unsendable) -> bool:
        """Begins an attempt; false where it has ended with that."""
        if (attempt := self._prepare(record, delivery, body)) is None:
            return False
        found = begin(self.sender, self.tokens, attempt, partial(self._ended, record, attempt))
        if isinstance(found, Exchange):
            self._conclude(record, attempt, found)
            return False
        self.in_flight.add(attempt)
        if found is not None:
            attempt.task = asyncio.create_task(self._wait(record, attempt, found))
        return True

    async def _wait(self, record: EndpointRecord, attempt: Attempt, coming: Coroutine[Any, Any, Exchange]) -> None:
        found: Found | Exception
        try:
            found = await coming
        except Exception as error:
            found = error
        self._ended(record, attempt, found)

    def _ended(self, record: EndpointRecord, attempt: Attempt, found: Found | Exception) -> None:
        try:
            if isinstance(found, Exchange):
                self._conclude(record, attempt, found)
            elif isinstance(found, Exception):
                raise found
            else:
                attempt.task = asyncio.create_task(self._wait(record, attempt, found))
                return
        except Exception as error:
            telemetry.stage_failed("deliver", error)
        if (following := self._next(record)) is not None:
            self._begin(record, following.delivery, following.body)
        self.in_flight.discard(attempt)
        if not self.in_flight:
            self.none_in_flight.set()

    def _next(self, record: EndpointRecord) -> Prefetched | None:
        following = self.slots.next_or_free(record, not (self.must_wait() or self.stopping.is_set()))
        self.due.look_again()
        return following

    def _prepare(self, record: EndpointRecord, delivery: Delivery, body: bytes | Unsendable) -> Attempt | None:
        endpoint = record.endpoint
        if endpoint is None:
            return None  # deleted since the claim: its deliveries are cancelled
        if not may_have(endpoint.event_types, delivery.event_type):
            body = NOT_PERMITTED
        elif delivery.reason is not None and delivery.is_for_another_host(endpoint):
            body = ANOTHER_HOST
        elif record.lacks_key:
            body = Unsendable("key_missing", Remedy.WAIT)
        elif isinstance(body, bytes) and delivery.unfiltered and not _is_wanted(endpoint, body):
            body = NOT_WANTED
        elif isinstance(body, bytes):
            body = self.registry.cut(endpoint, delivery.event_type, body)
            if delivery.unfiltered:
                delivery = replace(delivery, unfiltered=None)  # judged, once
        return prepare(delivery, endpoint, body, self.database.clock.now(), self.keep)

    def _conclude(self, record: EndpointRecord, attempt: Attempt, exchange: Exchange) -> None:
        delivery, endpoint, health = attempt.delivery, attempt.endpoint, record.health
        result = conclude(attempt, exchange, health, self.database.clock.now())
        if not isinstance(result.verdict.action, Done) and _is_cut_off(record, result):
            result = replace(result, verdict=replace(result.verdict, action=Cancel(NOT_PERMITTED.reason)))
        verdict = result.verdict
        share = self.registry.share(record, endpoint.slots)
        if isinstance(verdict.action, Done) or not delivery.test:
            health.note(exchange.outcome, exchange.duration, verdict.health, share)
        if verdict.disable is not None:
            self.registry.disable(record)
        self.unsettled.add(record, result)
        if tracing.traces(delivery.event_id):
            _trace(result)


def _trace(result: Result) -> None:
    delivery, exchange = result.delivery, result.exchange
    outcome, status, _ = words_of(exchange.outcome)
    tracing.followed(
        "attempt",
        delivery.event_id,
        exchange.duration,
        delivery_id=ids.render(ids.DELIVERY, delivery.id),
        endpoint_id=ids.render(ids.ENDPOINT, delivery.endpoint_id),
        attempt=delivery.attempt,
        outcome=outcome,
        status=status,
    )


def _is_wanted(endpoint: Endpoint, body: bytes) -> bool:
    """By the filter, where that could not be asked when the delivery was made."""
    if not endpoint.is_filtered:
        return True
    return endpoint.filter is not None and endpoint.filter.matches(read_data(body))


def _is_cut_off(record: EndpointRecord, result: Result) -> bool:
    """Whether it would be tried again, though the endpoint may not have it any more: a change while it was sent."""
    if record.endpoint is None or not isinstance(result.verdict.action, (RetryIn, Postpone)):
        return False
    return not may_have(record.endpoint.event_types, result.delivery.event_type)
