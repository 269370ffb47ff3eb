"""Finding what is due, and leasing as much of it as there are free slots."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from uuid_utils.compat import uuid7

from webhook_gateway import telemetry
from webhook_gateway.host import tracing
from webhook_gateway.host.loop import POLL, SELDOM
from webhook_gateway.store import deliveries
from webhook_gateway.store.clock import Clock
from webhook_gateway.store.database import FULL_SCAN, Database, DatabaseUnavailable
from webhook_gateway.store.deliveries import Claim, Wanted

from .due import Due
from .registry import Leased
from .sending import Sending
from .slots import Reservation, Slots
from .watermark import FullScanBudget

SCAN_GAP = 0.05
"""Seconds at least between two scans."""


@dataclass(eq=False)
class Claiming:
    """``changed`` is set where the configuration turns out to be old."""

    database: Database
    clock: Clock
    due: Due
    slots: Slots
    sending: Sending
    changed: asyncio.Event
    full_scans: FullScanBudget = field(default_factory=FullScanBudget)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    scan_at: float = 0.0
    """Not before, by monotonic time."""
    scans_itself: bool = True
    """Rather than where a look finds something, as while nothing is open."""

    async def claim(self) -> float:
        """Leases as much of what is due as there are free slots, and sends it; one at a time."""
        async with self.turn:
            if pause := self.sending.must_wait():
                return pause
            reservations = self.slots.reserve()
            if not reservations:
                return self._until_next_due()
            wanted = [Wanted(r.record.id, r.slots + r.prefetch, r.record.low_water_mark, r.lease) for r in reservations]
            began = monotonic()
            try:
                async with self.database.connection() as connection:
                    claim = await deliveries.claim(connection, wanted, uuid7(), self.clock.now())
            except BaseException:
                for reservation in reservations:
                    self.slots.claimed(reservation, got=0)
                raise
            telemetry.claim_seconds.observe(monotonic() - began)
            if claim.now is not None:
                self.clock.set(claim.now.timestamp())
            if leased := self._take_over(claim, reservations, began):
                for one in leased:
                    tracing.followed("claim", one.delivery.event_id, monotonic() - began)
                await self.sending.send(leased)
            return 0.0

    async def scan(self) -> float:
        """Looks for what notifications may have missed, and for what became due by time alone.

        It is a full scan, unless that would take more than a small part of the time.
        """
        self.scans_itself = True
        if self.sending.registry.workers > 1:
            self.sending.unsettled.hurry()  # another one may have put something behind what waits to be settled here
        if (early := self.scan_at - monotonic()) > 0:
            await asyncio.sleep(early)
        began = monotonic()
        marks = None if self.full_scans.allows() else self.due.low_water_marks()
        try:
            async with self.database.in_turn() as connection:
                found = await deliveries.ready(connection, marks)
        except DatabaseUnavailable:
            if marks is None and monotonic() - began >= FULL_SCAN:
                self.full_scans.spend(FULL_SCAN)
            raise
        took = monotonic() - began
        if marks is None:
            self.full_scans.spend(took)
        self.due.scanned(found, began, marks)
        if unknown := self.due.unknown():
            self.changed.set()
            async with self.database.connection() as connection, connection.transaction():
                await deliveries.cancel_of_deleted(connection, unknown)
        await self.sending.return_leases(self.slots.orphaned())
        self.scan_at = monotonic() + max(SCAN_GAP, min(5 * took, POLL))
        self.scans_itself = bool(self.due)
        return POLL if self.due else SELDOM

    def _take_over(self, claim: Claim, reservations: Sequence[Reservation], began: float) -> list[Leased]:
        leased: list[Leased] = []
        until = self.due.complete_until(began)
        for reservation in reservations:
            record, claimed = reservation.record, claim.endpoints.get(reservation.record.id)
            got = 0
            if claimed is not None:
                got = len(claimed.deliveries)
                self.due.claimed(record, claimed.first_due_at, until)
                leased += [Leased(record, delivery) for delivery in claimed.deliveries]
            self.slots.claimed(reservation, got)
            if got < reservation.slots + reservation.prefetch:
                self.due.exhausted(record, began)
        return leased

    def _until_next_due(self) -> float:
        now = self.clock.now()
        moments = [moment for moment in (self.due.next_after(now), self.slots.allowed_again()) if moment is not None]
        return min([POLL if self.due else SELDOM, *(max(moment - now, 0.001) for moment in moments)])
