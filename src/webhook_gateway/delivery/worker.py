"""One worker: dispatches, claims, sends and settles until it is told to stop, then drains.

Each stage is a loop around one round that returns how long to wait; a notification, a finished request or the stop
ends the wait early. Little waits in memory: a delivery is claimed when a slot is free for it, or will be within
moments.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from webhook_gateway import telemetry
from webhook_gateway.crypto.master_keys import load_master_keys
from webhook_gateway.crypto.vault import Vault
from webhook_gateway.failpoints import reach
from webhook_gateway.host import garbage
from webhook_gateway.outbound.policy import policy_from
from webhook_gateway.outbound.sender import Sender
from webhook_gateway.outbound.tokens import Tokens
from webhook_gateway.rules.model import Delivery, Ordering
from webhook_gateway.rules.outcome import Unsendable
from webhook_gateway.rules.verdict import GiveUp, Postpone, RetryAt
from webhook_gateway.settings import Settings
from webhook_gateway.store import configuration, deliveries, keyring, workers
from webhook_gateway.store.database import COMPLETE_LOOK, Database, DatabaseUnavailable
from webhook_gateway.store.deliveries import Retried
from webhook_gateway.store.notifications import CONFIGURATION, DELIVERIES, OUTBOX, Notifier, listen, notify

from .bodies import Bodies
from .deliver import Result, attempt, settle
from .dispatch import Dispatch
from .slots import HealthChange, Slots
from .upkeep import Upkeep
from .watermark import CompleteLooks

POLL = 1.0
"""Seconds after which a stage looks by itself, notified or not."""
SCAN_GAP = 0.05
"""Seconds at least between two looks at what is due."""
SETTLE_GAP = 0.02
"""Seconds from one settle to the next: nobody waits for one, unless an ordering key goes on, and each is a commit."""
BEAT = 2.0
DRAIN_MARGIN = 12.0
"""Seconds beyond the longest deadline under way that a stopping worker waits for its requests and the database."""
AWAY = (0.2, 2.0)
"""Seconds to wait when the database is away: first, and at most."""


async def run(settings: Settings) -> None:
    """Works until SIGTERM or SIGINT, then lets the requests under way finish and settles them.

    Raises:
        MasterKeysUnusable: there is no master key.
    """
    telemetry.configure(settings.log_level)
    database = Database(str(settings.database_url), connections=6)
    vault = Vault(load_master_keys(settings))
    sender = Sender(policy_from(settings), proxy=settings.egress_proxy)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    worker = Worker(settings, database, vault, sender, stopping)
    telemetry.serve(settings.worker_metrics_port)
    garbage.relax()
    try:
        await worker.run()
    finally:
        await sender.aclose()
        await database.close()


class Worker:
    """The stages and what they share."""

    def __init__(
        self, settings: Settings, database: Database, vault: Vault, sender: Sender, stopping: asyncio.Event
    ) -> None:
        self._settings = settings
        self._database = database
        self._vault = vault
        self._sender = sender
        self._tokens = Tokens(sender)
        self._stopping = stopping
        self._id = uuid7()
        self._slots = Slots(settings.concurrency, settings.tenant_slots or None, lease_margin=settings.lease_margin)
        self._bodies = Bodies(database, vault)
        self._dispatch = Dispatch(database, vault, self._slots)
        self._upkeep = Upkeep(settings, database)
        self._notifier = Notifier(database, DELIVERIES)
        self._lanes: set[asyncio.Task[None]] = set()
        self._results: list[Result] = []
        self._complete_looks = CompleteLooks()
        self._is_behind = False
        """What was sent can't be written down just now: sending more would only make more of it come twice."""
        self._outbox, self._due, self._hinted, self._changed, self._tidying = (asyncio.Event() for _ in range(5))
        self._arrived, self._settled, self._beating = (asyncio.Event() for _ in range(3))
        self._drained = asyncio.Event()
        self._health_known = datetime(2000, 1, 1, tzinfo=UTC)

    async def run(self) -> None:
        telemetry.started("worker", id=str(self._id), concurrency=self._settings.concurrency)
        heard = {OUTBOX: self._outbox, DELIVERIES: self._hinted, CONFIGURATION: self._changed}
        supporting = [
            asyncio.create_task(listen(self._database, heard)),
            asyncio.create_task(self._notifier.run()),
            asyncio.create_task(self._loop("heartbeat", self._beat, self._beating, until=self._drained)),
            asyncio.create_task(self._loop("settle", self._settle, self._arrived, until=self._drained)),
        ]
        stages = [
            asyncio.create_task(self._loop("configuration", self._refresh, self._changed)),
            asyncio.create_task(self._loop("dispatch", self._fan_out, self._outbox)),
            asyncio.create_task(self._loop("claim", self._claim, self._due)),
            asyncio.create_task(self._loop("scan", self._scan, self._hinted)),
            asyncio.create_task(self._loop("upkeep", self._upkeep.round, self._tidying)),
        ]
        await self._stopping.wait()
        for wake in (self._outbox, self._due, self._hinted, self._changed, self._tidying):
            wake.set()
        await asyncio.gather(*stages)
        await self._drain()
        for task in supporting[:2]:
            task.cancel()
        await asyncio.gather(*supporting, return_exceptions=True)
        await self._leave()
        telemetry.stopped("worker", id=str(self._id))

    async def _drain(self) -> None:
        """No new claims; what is under way finishes, within its own deadline, and is settled."""
        try:
            async with asyncio.timeout(self._slots.longest_deadline() + DRAIN_MARGIN):
                with suppress(DatabaseUnavailable):  # then those leases just end
                    await self._hand_back(self._slots.stranded(stopping=True))
                if self._lanes:
                    await asyncio.wait(self._lanes)
                while self._results:
                    self._settled.clear()
                    self._arrived.set()
                    await self._settled.wait()
        except TimeoutError:
            telemetry.drain_cut_short(len(self._lanes), len(self._results))
        self._drained.set()
        self._arrived.set()
        self._beating.set()

    async def _leave(self) -> None:
        """After the last heartbeat, which would count this worker among the live ones again."""
        try:
            async with self._database.connection() as connection:
                await workers.leave(connection, self._id)
        except DatabaseUnavailable as error:
            telemetry.database_unavailable("leave", error)

    # The stages, in the order of the road. Each does one round and returns how many seconds to wait.

    async def _fan_out(self) -> float:
        if pause := self._held_up():
            return pause
        done = await self._dispatch.fan_out()
        if not done.taken:
            return POLL
        for endpoint_id in done.endpoints:
            self._slots.touch(endpoint_id)
        if done.endpoints:
            self._due.set()
            if self._slots.workers > 1:
                self._notifier.ask()
        if done.leased:
            try:
                await self._send(done.leased)
            finally:
                self._slots.born({delivery.endpoint_id for delivery in done.leased})
        return 0.0

    async def _scan(self) -> float:
        """A look at what is due: what notifications may have missed, and what became due by time alone.

        It is complete, unless that would take more than a small part of the time.
        """
        began = time.monotonic()
        floors = None if self._complete_looks.are_due() else self._slots.floors()
        try:
            async with self._database.connection() as connection:
                ready = await deliveries.ready(connection, floors)
        except DatabaseUnavailable:
            if floors is None and time.monotonic() - began >= COMPLETE_LOOK:
                self._complete_looks.took(COMPLETE_LOOK)
            raise
        took = time.monotonic() - began
        if floors is None:
            self._complete_looks.took(took)
        self._slots.expect(ready, began, floors)
        if unknown := self._slots.unknown():
            self._changed.set()
            async with self._database.connection() as connection, connection.transaction():
                await deliveries.cancel_orphans(connection, unknown)
        await self._hand_back(self._slots.stranded())
        self._due.set()
        await asyncio.sleep(max(SCAN_GAP, min(5 * took, POLL)))
        return POLL

    async def _claim(self) -> float:
        if pause := self._held_up():
            return pause
        wanted = self._slots.wanted()
        if not wanted:
            return self._until_next_due()
        began = time.monotonic()
        try:
            async with self._database.connection() as connection:
                claimed, due_at, now = await deliveries.claim(connection, wanted, uuid7())
        except BaseException:
            self._slots.claim_failed()
            raise
        telemetry.claim_seconds.observe(time.monotonic() - began)
        if now is not None:
            self._slots.set_clock(now.timestamp())
        self._slots.claimed(wanted, claimed, due_at, began)
        if claimed:
            await self._send(claimed)
        return 0.0

    def _held_up(self) -> float:
        """Seconds to wait where nothing may be sent: it couldn't be written down, or the time isn't known yet."""
        if self._is_behind:
            return POLL
        return 0.0 if self._slots.knows_time else SCAN_GAP

    async def _send(self, leased: list[Delivery]) -> None:
        """Begins the requests of deliveries whose slots are reserved; those leased ahead queue."""
        reach("after_lease")
        try:
            bodies = await self._bodies.of(leased)
        except BaseException:
            for delivery in leased:
                self._slots.give_back(delivery.endpoint_id)
            with suppress(Exception):  # then their leases just end
                await self._hand_back(leased, POLL)
            raise
        if self._stopping.is_set():  # the drain may be over: nobody would wait for what begins now
            for delivery in leased:
                self._slots.give_back(delivery.endpoint_id)
            await self._hand_back(leased)
            return
        queued: set[UUID] = set()
        for delivery in leased:
            if self._slots.begin(delivery, bodies[delivery.event_id]):
                lane = asyncio.create_task(self._deliver(delivery, bodies[delivery.event_id]))
                self._lanes.add(lane)
                lane.add_done_callback(self._lanes.discard)
            else:
                queued.add(delivery.endpoint_id)
        telemetry.in_flight.set(self._slots.in_flight)
        if stranded := self._slots.stranded(queued):  # a slot was taken meanwhile, and there is no request to follow
            await self._hand_back(stranded)
            self._due.set()

    async def _deliver(self, delivery: Delivery, body: bytes | Unsendable) -> None:
        """One slot's work: a delivery, and whatever was leased ahead for the same endpoint."""
        while True:
            try:
                await self._attempt(delivery, body)
            except Exception as error:
                telemetry.stage_failed("deliver", error)  # the lease ends by itself; the attempt is counted
            goes_on = not self._is_behind and not self._stopping.is_set()
            following = self._slots.next_or_end(delivery.endpoint_id, goes_on)
            self._due.set()
            telemetry.in_flight.set(self._slots.in_flight)
            if following is None:
                return
            delivery, body, _ = following

    async def _attempt(self, delivery: Delivery, body: bytes | Unsendable) -> None:
        endpoint = self._slots.snapshot.endpoints.get(delivery.endpoint_id)
        if endpoint is None:
            return  # deleted since the claim: its deliveries are cancelled
        if endpoint.id in self._slots.snapshot.unsendable:
            body = Unsendable("key_missing", waits=True)
        result = await attempt(
            self._sender, self._tokens, self._slots, delivery, endpoint, body, self._settings.keep_responses
        )
        self._slots.note(endpoint, result.exchange.outcome, result.exchange.duration, result.verdict)
        self._results.append(result)
        self._arrived.set()
        telemetry.attempt_made(endpoint, delivery, result.exchange, result.verdict)

    async def _settle(self) -> float:
        if not self._results:
            return POLL
        results, began = self._results[:], time.perf_counter()
        changed = self._slots.changed_health()
        try:
            following = await self._settle_all(results, changed)
        except DatabaseUnavailable:
            self._is_behind = True
            raise
        if self._is_behind:
            self._is_behind = False
            self._outbox.set()
        del self._results[: len(results)]
        for result in results:
            self._expect_retry(result)
        telemetry.settle_seconds.observe(time.perf_counter() - began)
        self._settled.set()
        self._due.set()
        if changed or any(r.verdict.disable or isinstance(r.verdict.action, GiveUp) for r in results):
            self._outbox.set()  # it may have been announced
        if any(r.verdict.disable for r in results):
            await notify(self._database, CONFIGURATION)
        if following:
            await self._send(following)
        else:
            await asyncio.sleep(SETTLE_GAP - (time.perf_counter() - began))
        return 0.0

    async def _settle_all(self, results: list[Result], changed: list[HealthChange]) -> list[Delivery]:
        """All together, or else one by one, so that a result that can't be written holds up no other.

        Returns what goes on of the ordering keys and is leased to us.
        """
        try:
            following = await self._settle_together(results, changed)
            self._slots.health_saved(changed)
            return following
        except DatabaseUnavailable:
            raise
        except Exception as error:
            telemetry.stage_failed("settle", error)
        following = []
        for result in results:
            try:
                following += await self._settle_together([result], [])
            except DatabaseUnavailable:
                raise
            except Exception as problem_of_one:
                telemetry.stage_failed("settle", problem_of_one)  # its delivery's lease just ends
        return following

    async def _hand_back(self, leased: list[Delivery], delay: float = 0.0) -> None:
        """Gives up leases of deliveries that were not attempted; they are due again after ``delay`` seconds."""
        if leased:
            async with self._database.connection() as connection, connection.transaction():
                await deliveries.settle(connection, [], [], [Retried(d, delay, counted=False) for d in leased])
            for delivery in leased:
                self._slots.touch(delivery.endpoint_id, self._slots.now() + delay)

    def _expect_retry(self, result: Result) -> None:
        """The delay counts from the settle, by the database's clock: to look earlier would be to look in vain."""
        if isinstance(action := result.verdict.action, RetryAt | Postpone):
            latest = result.endpoint.ordering is Ordering.LATEST
            delay = 0.0 if latest else max(action.when - result.ended, 0.0)
            self._slots.touch(result.endpoint.id, self._slots.now() + delay)

    async def _settle_together(self, results: list[Result], changed: list[HealthChange]) -> list[Delivery]:
        async with self._database.connection() as connection:
            done, version = await settle(
                connection, self._vault, self._slots, results, changed, self._settings.keep_responses
            )
        for endpoint_id in done.due:
            self._slots.touch(endpoint_id)
        if version is not None:
            self._slots.disabled([r.endpoint.id for r in results if r.verdict.disable], version)
        return done.leased

    async def _refresh(self) -> float:
        """Takes over the configuration when its version moved, and what other workers learnt about endpoints."""
        async with self._database.connection() as connection:
            if not self._slots.snapshot.version:
                await keyring.fill(self._database, self._vault)
            stale_at = self._slots.snapshot.stale_at
            stale = stale_at is not None and stale_at.timestamp() <= self._slots.now()
            stale = stale or bool(self._slots.snapshot.unsendable)  # their key may be back
            if stale or await configuration.version(connection) != self._slots.snapshot.version:
                await keyring.fill(self._database, self._vault)
                self._slots.learn(await configuration.snapshot(connection, self._vault))
            learnt, self._health_known = await configuration.health_since(connection, self._health_known)
        self._slots.learn_health(learnt)
        self._due.set()
        return POLL

    async def _beat(self) -> float:
        async with self._database.connection() as connection:
            alive, now = await workers.beat(connection, self._id, f"{socket.gethostname()}:{os.getpid()}")
        self._slots.set_clock(now)
        self._slots.share_with(alive.index(self._id), len(alive))
        return BEAT

    def _until_next_due(self) -> float:
        due_at = self._slots.next_due()
        return POLL if due_at is None else min(max(due_at - self._slots.now(), 0.001), POLL)

    async def _loop(
        self, stage: str, round: Callable[[], Awaitable[float]], wake: asyncio.Event, until: asyncio.Event | None = None
    ) -> None:
        """Rounds of one stage until the stop, which wakes it, too; an error costs a wait, never the worker."""
        stop = until or self._stopping
        patience = AWAY[0]
        while not stop.is_set():
            wake.clear()
            waits_for = wake
            try:
                pause = await round()
                patience = AWAY[0]
            except Exception as error:
                if isinstance(error, DatabaseUnavailable):
                    telemetry.database_unavailable(stage, error)
                else:
                    telemetry.stage_failed(stage, error)
                waits_for = stop  # a notification doesn't mend what failed
                pause, patience = patience, min(patience * 2, AWAY[1])
            if pause > 0 and not stop.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await waits_for.wait()
