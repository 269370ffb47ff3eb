"""A few events come with their deliveries made and leased, where this worker has offered to send their type at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from uuid import UUID

from webhook_gateway.host.loop import SELDOM
from webhook_gateway.rules.model import Ordering
from webhook_gateway.store import offers
from webhook_gateway.store.database import Database
from webhook_gateway.store.notifications import Heard, OwnChannel
from webhook_gateway.store.offers import Handed, Offer

from .bodies import Bodies
from .dispatch import FEW, Round, note_fanned_out
from .registry import Leased, OfType, Registry
from .sending import Sending
from .slots import Slots
from .told import first_attempt, is_simple

AGAIN = 2.0
"""Seconds between two offers for a type, or from one that was withdrawn: what came the long way was not by it."""

BEHIND = 32
"""Results that are not written down from which on no more is sent at once: they would come twice if a kill came now.
More than usually wait for the next settle at the rates at which events come alone, or by few."""


@dataclass(eq=False)
class Offers:
    """Makes offers, and sends what comes by them."""

    database: Database
    registry: Registry
    slots: Slots
    bodies: Bodies
    sending: Sending
    worker_id: UUID
    changed: asyncio.Event
    """Set where other workers are alive, too."""
    own: OwnChannel = field(default_factory=OwnChannel)
    handed: Heard = field(init=False)
    _among: int = 1
    """Workers, when offers were made."""
    _wanted: dict[OfType, bool] = field(default_factory=dict)
    """Whether it is to be made or withdrawn."""
    _changed_at: dict[OfType, float] = field(default_factory=dict)
    _refused: list[Leased] = field(default_factory=list)
    """What there was no room for: the next round gives it back."""

    def __post_init__(self) -> None:
        self.handed = Heard(self._send_at_once)

    def consider(self, done: Round) -> None:
        """Where all that came of a few events could be leased, that can be done by who stores one like them."""
        for of_type in done.of_types if not done.due else ():
            if self.registry.is_first_for(*of_type):
                self._change(of_type, True)

    async def poll(self) -> float:
        """Makes and withdraws offers; all of them where another number of workers is alive: each has its part."""
        wanted, self._wanted = self._wanted, {}
        if self._among != self.registry.workers:
            async with self.database.connection() as connection:
                await offers.withdraw(connection, self.worker_id)
            self._among = self.registry.workers
        for of_type, is_made in wanted.items():
            name, made = self.own.name, self._offer(*of_type) if is_made else None
            async with self.database.connection() as connection:
                if not is_made:
                    await offers.withdraw(connection, self.worker_id, *of_type)
                elif name is not None and made is not None:
                    await offers.offer(connection, self.worker_id, name, made)
        return SELDOM

    async def round(self) -> float:
        """Sends what came without its body. What there was no room for is given back, and with it the offer."""
        if leased := [one for handed in self._take() for one in self._lease(handed)]:
            try:
                await self.sending.send(leased)
            finally:
                self.slots.inserted(one.record for one in leased)
        refused, self._refused = self._refused, []
        for one in refused:
            self._change((one.delivery.tenant_id, one.delivery.event_type), False)
        await self.sending.return_leases(refused, self.sending.must_wait())
        return SELDOM

    def _send_at_once(self, words: str) -> bool:
        """What came with its body, without a task's turn."""
        try:
            handed = offers.read_handed(words)
        except ValueError:  # of another version: that lease just ends
            return True
        if handed.body is None or (body := self.bodies.opened(handed)) is None:
            return False
        leased = self._lease(handed)
        self._refused += self.sending.begin(leased, {handed.event_id: body})
        self.slots.inserted(one.record for one in leased)
        if self._refused:
            self.handed.set()
        return True

    def _lease(self, handed: Handed) -> list[Leased]:
        """Those of its deliveries for which there is room."""
        began = time.perf_counter()
        leased: list[Leased] = []
        must_wait = self.sending.stopping.is_set() or self.sending.must_wait()
        is_behind = must_wait or len(self.sending.unsettled) >= BEHIND
        may_send = not is_behind and self.slots.is_in_time(handed.leased_at)
        for endpoint_id in handed.endpoint_ids:
            record = self.registry.of(endpoint_id)
            fits = may_send and self.slots.lease_on_insert(record) is not None
            in_order = record.endpoint is None or record.endpoint.ordering is not Ordering.NONE
            delivery = first_attempt(handed, endpoint_id, handed.lease_id, in_order)
            (leased if fits else self._refused).append(Leased(record, delivery))
        note_fanned_out([handed], len(handed.endpoint_ids) + handed.waits, began)
        if handed.waits:
            self.sending.unsettled.hurry()  # it may be behind what waits to be settled
        return leased

    def _take(self) -> Iterator[Handed]:
        for words in self.handed.take():
            with suppress(ValueError):  # of another version: that lease just ends
                yield offers.read_handed(words)

    def _change(self, of_type: OfType, is_made: bool) -> None:
        now = time.monotonic()
        if not is_made or now > self._changed_at.get(of_type, -inf) + AGAIN:
            self._changed_at[of_type] = now
            self._wanted[of_type] = is_made
            self.changed.set()

    def _offer(self, tenant_id: UUID, event_type: str) -> Offer | None:
        """None where what comes in between may depend on more than its type."""
        endpoints = self.registry.matcher.match(tenant_id, event_type)
        if not 0 < len(endpoints) <= FEW or not all(is_simple(one) and one.rate is None for one in endpoints):
            return None
        return Offer(
            *(tenant_id, event_type, self.registry.snapshot.version, [endpoint.id for endpoint in endpoints]),
            [endpoint.ordering is not Ordering.NONE for endpoint in endpoints],
            [self.slots.lease(endpoint) for endpoint in endpoints],
        )
