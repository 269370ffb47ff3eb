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
from .registry import EndpointRecord, Leased, OfType, Registry
from .sending import Sending
from .slots import Slots
from .told import first_attempt, is_simple

AGAIN = 2.0
"""Seconds between two offers for a type, or from one that was withdrawn: what came the long way was not by it."""

BEHIND = 16
"""Results that are not written down from which on no more is sent at once: they would come twice if a kill came now."""


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
    _orphaned: list[Leased] = field(default_factory=list)
    """What was to be sent at once, and is given back in the next round."""

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
        """Sends what came. What there is no room for any more is given back, and with it the offer."""
        leased: list[Leased] = []
        refused, self._orphaned = self._orphaned, []
        must_wait, began = self.sending.must_wait(), time.perf_counter()
        for handed in self._take():
            if handed.body is not None:
                self.bodies.keep({handed.event_id: handed.tenant_id}, {handed.event_id: handed.body})
            may_send = self._may_send(handed)
            for one in self._deliveries(handed):
                fits = may_send and self.slots.lease_on_insert(one.record) is not None
                (leased if fits else refused).append(one)
            self._note(handed, began)
        if leased:
            try:
                await self.sending.send(leased)
            finally:
                self.slots.inserted(one.record for one in leased)
        for one in refused:
            self._change((one.delivery.tenant_id, one.delivery.event_type), False)
        await self.sending.return_leases(refused, must_wait)
        return SELDOM

    def _send_at_once(self, words: str) -> bool:
        """As `round`, without a task's turn: what came with its body, where there is room for all of it."""
        began = time.perf_counter()
        try:
            handed = offers.read_handed(words)
        except ValueError:
            return False
        if handed.body is None or self.sending.stopping.is_set() or not self._may_send(handed):
            return False
        if (body := self.bodies.opened(handed.tenant_id, handed.event_id, handed.body)) is None:
            return False
        leased = self._deliveries(handed)
        for count, one in enumerate(leased):
            if self.slots.lease_on_insert(one.record) is None:
                for fits in leased[:count]:
                    self.slots.not_sent(fits.record)
                return False
        if orphaned := self.sending.begin(leased, {handed.event_id: body}):
            self._orphaned += orphaned
            self.handed.set()
        self.slots.inserted(one.record for one in leased)
        self._note(handed, began)
        return True

    def _may_send(self, handed: Handed) -> bool:
        is_behind = self.sending.must_wait() or len(self.sending.unsettled) >= BEHIND
        return not is_behind and self.slots.is_in_time(handed.leased_at)

    def _deliveries(self, handed: Handed) -> list[Leased]:
        records = [self.registry.of(endpoint_id) for endpoint_id in handed.endpoint_ids]
        return [Leased(one, first_attempt(handed, one.id, handed.lease_id, _is_in_order(one))) for one in records]

    def _note(self, handed: Handed, began: float) -> None:
        note_fanned_out([handed], len(handed.endpoint_ids) + handed.waits, began)
        if handed.waits:
            self.sending.unsettled.hurry()  # it may be behind what waits to be settled

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


def _is_in_order(record: EndpointRecord) -> bool:
    return record.endpoint is None or record.endpoint.ordering is not Ordering.NONE
