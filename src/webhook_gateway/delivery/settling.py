"""What became of attempts is written down: the attempt, the verdict and the endpoint's health in one transaction."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter
from typing import NamedTuple, assert_never

from webhook_gateway import telemetry
from webhook_gateway.crypto.vault import Vault
from webhook_gateway.failpoints import reach
from webhook_gateway.host.loop import EVEN
from webhook_gateway.rules.model import DeliveryState, Endpoint, Health, Ordering
from webhook_gateway.rules.verdict import Cancel, Done, GiveUp, Postpone, RetryIn
from webhook_gateway.store import configuration, deliveries
from webhook_gateway.store.database import Connection, Database, DatabaseUnavailable, StatementTimedOut
from webhook_gateway.store.deliveries import Finished, Retried
from webhook_gateway.store.notifications import CONFIGURATION, notify

from . import operational
from .deliver import Result
from .due import Due
from .recording import attempts_of
from .registry import EndpointRecord, Leased, Registry
from .sending import NOT_WANTED, Sending
from .slots import Slots

SETTLE_GAP = 0.03
"""Seconds from one settle to the next: nobody waits for one, unless an ordering key goes on, and each is a commit."""
MOST = 10_000
"""Results of one settle."""

Results = Sequence[tuple[EndpointRecord, Result]]


class HealthChange(NamedTuple):
    record: EndpointRecord
    endpoint: Endpoint
    before: Health
    """As last saved."""
    after: Health


@dataclass(eq=False)
class Settling:
    """``outbox`` is set where operational events may have been put there, or what is there may go on.

    Of a partner's answer ``keep`` bytes are stored, sealed.
    """

    database: Database
    vault: Vault
    registry: Registry
    due: Due
    slots: Slots
    sending: Sending
    keep: int
    outbox: asyncio.Event
    unsaved: set[EndpointRecord] = field(default_factory=set)
    """Whose health a restart would forget."""
    written: asyncio.Event = field(default_factory=asyncio.Event)
    most: int = MOST
    """How many results the next settle takes."""
    not_before: float = 0.0
    unsure: int = 0
    """How many of those that wait may have been written down: a settle failed."""

    async def poll(self) -> float:
        """Settles what has arrived, and sends what goes on of its ordering keys."""
        unsettled = self.sending.unsettled
        if not unsettled.results or unsettled.wait():
            return EVEN
        if (early := self.not_before - perf_counter()) > 0:
            await asyncio.sleep(early)
        self.sending.tell()
        results = unsettled.results[: self.most]
        unsettled.began = began = perf_counter()
        changed = self._changed_health(results)
        try:
            following = await self._settle_all(results, changed)
        except DatabaseUnavailable as error:
            self.sending.is_behind = True
            self.unsure = len(unsettled.results)
            if isinstance(error, StatementTimedOut):  # fewer may get through, and others: one of these may be locked
                self.most = max(len(results) // 2, 1)
                unsettled.results = unsettled.results[len(results) :] + results
            raise
        self.most = min(2 * self.most, MOST)
        if self.sending.is_behind:
            self.sending.is_behind = False
            self.outbox.set()
        del unsettled.results[: len(results)]
        self.unsure = max(self.unsure - len(results), 0)
        not_done = [(record, result) for record, result in results if not isinstance(result.verdict.action, Done)]
        for record, result in not_done:
            if (retried := _retried(result)) is not None:
                self.due.expect(record, 0.0 if retried.latest else retried.delay)
        telemetry.settle_seconds.observe(perf_counter() - began)
        self.written.set()
        self.due.look_again()
        if changed or any(r.verdict.disable or isinstance(r.verdict.action, GiveUp) for _, r in not_done):
            self.outbox.set()  # an operational event may be in it
        if any(r.verdict.disable for _, r in not_done):
            await notify(self.database, CONFIGURATION)
        self.not_before = 0.0 if following else began + SETTLE_GAP
        if following:
            unsettled.hurry()
            await self.sending.send(following)
        return 0.0

    async def drain(self) -> None:
        """Returns when nothing waits to be settled any more."""
        while self.sending.unsettled:
            self.written.clear()
            self.sending.unsettled.hurry()
            await self.written.wait()

    def _changed_health(self, results: Results) -> list[HealthChange]:
        """What a restart must not forget."""
        self.unsaved.update(record for record, _ in results)
        self.unsaved = {record for record in self.unsaved if record.health.is_unsaved()}
        return [
            HealthChange(record, record.endpoint, record.health.saved, record.health.current)
            for record in self.unsaved
            if record.endpoint is not None
        ]

    async def _settle_all(self, results: Results, changed: Sequence[HealthChange]) -> list[Leased]:
        """All together, or else one by one, so that a result that can't be written holds up no other.

        Returns what goes on of the ordering keys and is leased to us.
        """
        try:
            following = await self._settle(results, changed, again=self.unsure > 0)
            for change in changed:
                change.record.health.saved = change.after
            return following
        except DatabaseUnavailable:
            raise
        except Exception as error:
            telemetry.stage_failed("settle", error)
        following = []
        for result in results:
            try:
                following += await self._settle([result], [], again=True)
            except DatabaseUnavailable:
                raise
            except Exception as error_of_one:
                telemetry.stage_failed("settle", error_of_one)  # its delivery's lease just ends
        return following

    async def _settle(self, results: Results, changed: Sequence[HealthChange], *, again: bool) -> list[Leased]:
        """One transaction; who lost the lease meanwhile changes nothing, but for the attempt that was made."""
        disabling = [record for record, result in results if result.verdict.disable]
        lease_to_follow = cache(self.slots.lease_to_follow)  # it takes no slot, so it is one for all of an endpoint
        finished = [f for record, result in results if (f := _finished(record, result, lease_to_follow)) is not None]
        not_done = [result for _, result in results if not isinstance(result.verdict.action, Done)]
        retried = [r for result in not_done if (r := _retried(result)) is not None]
        made = attempts_of([result for _, result in results], self.vault, self.keep)
        # Of what was delivered nobody is told, so the one statement is a transaction by itself.
        alone = not (changed or disabling or not_done)
        async with self.database.connection() as connection, nullcontext() if alone else connection.transaction():
            now = self.database.clock.now()
            settled = await deliveries.settle(connection, made, finished, retried, now, again=again)
            reach("within_settle")
            ours = [result for _, result in results if result.delivery.id in settled.ours]
            await self._settle_endpoints(connection, ours, changed)
            version = await configuration.version(connection) if disabling else 0
        self.registry.disabled(disabling, version)
        for alike, some in made:
            telemetry.attempts_recorded(alike.outcome, len(some))
        if len(ours) < len(results):
            telemetry.lease_lost(len(results) - len(ours))
        ended = Counter(f.state for f in finished if f.delivery.id in settled.ours and not f.delivery.test)
        for state, count in ended.items():
            telemetry.finished.labels(state).inc(count)
        for endpoint_id in settled.due:
            self.due.expect(self.registry.of(endpoint_id))
        return [Leased(self.registry.of(delivery.endpoint_id), delivery) for delivery in settled.leased]

    async def _settle_endpoints(
        self, connection: Connection, results: Sequence[Result], changed: Sequence[HealthChange]
    ) -> None:
        """What the results mean for their endpoints: health to keep, endpoints to disable, and who is told."""
        if changed:
            await configuration.save_health(connection, [(change.endpoint, change.after) for change in changed])
        for _, endpoint, before, after in changed:
            await operational.health_changed(connection, self.vault, endpoint, before, after, self.database.clock.now())
        for result in {r.endpoint.id: r for r in results if r.verdict.disable is not None}.values():
            reason = result.verdict.disable
            if reason is not None and await configuration.disable(connection, result.endpoint.id, reason):
                await operational.endpoint_changed(connection, self.vault, result.endpoint, "endpoint_disabled", reason)
        for result in results:
            action = result.verdict.action
            if isinstance(action, GiveUp) and self.registry.wants_dead_delivery_events(result.delivery):
                await operational.delivery_dead(connection, self.vault, result.endpoint, result.delivery, action.why)
        if refused := [(r.delivery, r.endpoint) for r in results if r.verdict.action == Cancel(NOT_WANTED.reason)]:
            await operational.filtered_out(connection, self.vault, refused)


def _finished(
    record: EndpointRecord, result: Result, lease_to_follow: Callable[[EndpointRecord], float | None]
) -> Finished | None:
    delivery = result.delivery
    hidden = NOT_WANTED.reason if delivery.unfiltered else None  # however it ends: its filter was never asked
    match result.verdict.action:
        case Done():
            lease = None if delivery.ordering_key is None else lease_to_follow(record)
            return Finished(delivery, DeliveryState.DELIVERED, lease=lease)
        case GiveUp(why):
            return Finished(
                delivery, DeliveryState.DEAD, hidden or why, hold=result.endpoint.ordering is Ordering.STRICT
            )
        case Cancel(why):
            return Finished(delivery, DeliveryState.CANCELLED, hidden or why)
        case RetryIn() | Postpone():
            return None
        case _:
            assert_never(result.verdict.action)


def _retried(result: Result) -> Retried | None:
    latest = result.endpoint.ordering is Ordering.LATEST
    match result.verdict.action:
        case Done() | GiveUp() | Cancel():
            return None
        case RetryIn(delay, retry_after):
            return Retried(result.delivery, delay, retry_after, latest=latest)
        case Postpone(delay):
            return Retried(result.delivery, delay, counted=False, latest=latest)
        case _:
            assert_never(result.verdict.action)
