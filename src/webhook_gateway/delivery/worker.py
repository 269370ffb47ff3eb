"""One worker: dispatches, claims, sends and settles until it is told to stop, then drains.

Each stage is a loop around one round that returns how long to sleep; a notification, a finished request or the stop
ends that early. Little waits in memory: a delivery is claimed when a slot is free for it, or will be within moments.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from webhook_gateway import telemetry
from webhook_gateway.crypto.master_keys import load_master_keys
from webhook_gateway.crypto.vault import Vault
from webhook_gateway.host import garbage, health, scheduling, tracing, watchdog
from webhook_gateway.host.loop import SELDOM, Loop
from webhook_gateway.outbound.policy import policy_from
from webhook_gateway.outbound.resolvers import resolver_named
from webhook_gateway.outbound.sender import Sender
from webhook_gateway.outbound.tokens import Tokens
from webhook_gateway.rules.deadlines import SETTLING
from webhook_gateway.settings import Settings
from webhook_gateway.store.database import Database, DatabaseUnavailable
from webhook_gateway.store.notifications import CONFIGURATION, DELIVERIES, OUTBOX, Notifier, listen
from webhook_gateway.store.offers import LEASED

from .bodies import Bodies
from .claiming import Claiming
from .current import Configuration, Membership
from .dispatch import ROUND, Dispatch
from .due import Due
from .notices import tell
from .offers import Offers
from .registry import Registry
from .sending import Sending
from .settling import Settling
from .slots import Slots
from .stats import Stats
from .told import FanOut
from .upkeep import Upkeep, forward

STUCK, HOPELESS = 60.0, 300.0
"""Seconds without a round that ends well, after which a worker says so, and ends. One takes 15 at most."""
LOOK = 4.0
"""Seconds between two looks at that."""
UPKEEP = "upkeep"
FEW = 10
"""One of so many deliveries that a fan-out leased: nearly all are for endpoints for which others wait."""


async def run(settings: Settings) -> None:
    """Works until SIGTERM or SIGINT, then lets the requests under way finish and settles them.

    Raises:
        MasterKeysUnusable: there is no master key.
    """
    telemetry.configure(settings.log_level)
    tracing.start(settings, "worker")
    database = Database(str(settings.database_url), connections=6)
    vault = Vault(load_master_keys(settings))
    sender = Sender(policy_from(settings), resolver=resolver_named(settings.resolver), proxy=settings.egress_proxy)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    worker = Worker(settings, database, vault, sender, stopping)
    health.show(settings.worker_metrics_port, worker.stuck)
    garbage.relax()
    scheduling.take_long_turns()
    watchdog.start()
    try:
        await worker.run()
    finally:
        await sender.aclose()
        await database.close()


class Worker:
    """The parts, wired, and the order in which they stop."""

    def __init__(
        self, settings: Settings, database: Database, vault: Vault, sender: Sender, stopping: asyncio.Event
    ) -> None:
        clock, registry = database.clock, Registry()
        self._registry, due = registry, Due(clock, registry)
        self._slots = slots = Slots(
            clock, registry, due, settings.concurrency, settings.tenant_slots, settings.lease_margin
        )
        telemetry.in_flight.set_function(lambda: slots.in_flight)
        bodies, tokens, keep = Bodies(database, vault), Tokens(sender), settings.keep_responses
        notified, changed = asyncio.Event(), asyncio.Event()
        self._fan_out = FanOut(database, registry, slots, bodies, Dispatch(database, vault, registry, slots, bodies))
        outbox = self._fan_out.told
        self._stats = stats = Stats(database)
        self._sending = sending = Sending(database, bodies, sender, tokens, registry, due, slots, stats, keep, stopping)
        self._settling = Settling(database, vault, registry, due, slots, sending, keep, outbox)
        low_water_mark = self._fan_out.dispatch.low_water_mark
        self._membership = Membership(database, clock, registry, sender.egress, low_water_mark)
        about = self._membership.id, self._membership.changed
        self._offers = offers = Offers(database, registry, slots, bodies, sending, *about)
        self._notifier = Notifier(database, DELIVERIES)
        heard = {OUTBOX: outbox, DELIVERIES: notified, CONFIGURATION: changed, LEASED: offers.handed}
        self._listening = partial(listen, database, heard, own=offers.own)
        self._stopping = stopping
        self._claiming = claiming = Claiming(database, clock, due, slots, sending, changed)
        forwarding = Loop("forward", partial(forward, database))
        upkeep = Loop(UPKEEP, Upkeep(settings, database, vault, registry).poll)
        configuration = Configuration(
            *(database, vault, clock, registry, due, low_water_mark),
            *(claiming, notified, outbox, forwarding.wake, upkeep.wake),
        )
        self._stages = [
            Loop("configuration", configuration.poll, changed),
            Loop("dispatch", self._dispatch, outbox),
            Loop("send what was leased", offers.round, offers.handed),
            Loop("offer", offers.poll, offers.changed),
            Loop("claim", claiming.claim, due.changed),
            Loop("scan", claiming.scan, notified),
            forwarding,
            upkeep,
            Loop("stuck", self._end_if_stuck),
        ]
        if settings.smtp_host:
            self._stages.append(Loop("notices", partial(tell, settings, database, registry)))
        self._until_drained = [
            Loop("heartbeat", self._membership.heartbeat),
            Loop("settle", self._settling.poll, sending.unsettled.due),
            Loop("stats", stats.poll, stats.noted),
        ]

    async def run(self) -> None:
        """Until `stopping`: then claiming ends first, what is under way is settled, and the heartbeat ends last."""
        telemetry.started("worker", id=str(self._membership.id), concurrency=self._slots.concurrency)
        listening, notifying = asyncio.create_task(self._listening()), asyncio.create_task(self._notifier.run())
        until_drained = [asyncio.create_task(loop.run()) for loop in self._until_drained]
        stages = [asyncio.create_task(loop.run()) for loop in self._stages]
        await self._stopping.wait()
        for loop in self._stages:
            loop.stop()
        listening.cancel()
        await self._drain(listening, stages)
        for loop in self._until_drained:
            loop.stop()
        notifying.cancel()
        await asyncio.gather(notifying, *until_drained, return_exceptions=True)
        self._sending.tell()  # of what isn't settled, too
        with suppress(DatabaseUnavailable):
            await self._stats.flush()
        await self._membership.deregister()
        telemetry.stopped("worker", id=str(self._membership.id))

    async def _end_if_stuck(self) -> float:
        if names := self.stuck(HOPELESS):
            telemetry.worker_stuck(names)
            self._stopping.set()  # who started it starts it again
        return LOOK

    def stuck(self, seconds: float = STUCK) -> list[str]:
        """The stages that have come to nothing for so long, whatever is due. `Upkeep`'s chores may take as long."""
        loops = (*self._stages, *self._until_drained)
        return [loop.stage for loop in loops if loop.ailing() > seconds and loop.stage != UPKEEP]

    async def _drain(self, listening: asyncio.Task[None], stages: Sequence[asyncio.Task[None]]) -> None:
        """No new claims; what is under way finishes, within its own deadline, and is settled. The rest is cut."""
        try:
            async with asyncio.timeout(self._slots.longest_request() + SETTLING):
                await asyncio.gather(asyncio.wait([listening]), *stages, self._sending.drain())
                with suppress(DatabaseUnavailable):  # then those leases just end
                    await self._offers.round()  # which gives back what has come since
                await self._settling.drain()
        except TimeoutError:  # perhaps only of a stage, which can be cut short without harm
            if self._sending.in_flight or self._sending.unsettled:
                telemetry.drain_cut_short(len(self._sending.in_flight), len(self._sending.unsettled))

    async def _dispatch(self) -> float:
        if pause := self._sending.must_wait():
            return pause
        done = await self._fan_out.round()
        if not done.dequeued:
            return SELDOM
        for record in done.due:
            self._claiming.due.expect(record)
        if done.due:
            self._sending.unsettled.hurry()  # it may be behind what waits to be settled, here or elsewhere
            if self._registry.workers > 1:
                self._notifier.ask()
        if done.leased:
            try:
                await self._sending.send(done.leased)
            finally:
                self._slots.inserted(one.record for one in done.leased)
        self._offers.consider(done)
        if FEW * len(done.leased) < done.dequeued:  # before more is made: while these wait, none is leased at once
            await self._claiming.claim()
        return 0.0 if done.dequeued >= ROUND else SELDOM  # what was committed since has been notified
