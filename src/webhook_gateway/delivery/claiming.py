"""Finding what is due, and leasing as much of it as there are free slots."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

from uuid_utils.compat import uuid7

from webhook_gateway import telemetry
from webhook_gateway.host.loop import POLL
from webhook_gateway.store import deliveries
from webhook_gateway.store.database import COMPLETE_LOOK, Database, DatabaseUnavailable
from webhook_gateway.store.deliveries import Claim, Wanted

from .clock import Clock
from .due import Due
from .registry import Leased
from .sending import Sending
from .slots import Reservation, Slots
from .watermark import CompleteLooks

SCAN_GAP = 0.05
"""Seconds at least between two scans."""


class Claiming:
    """``changed`` is set where the configuration turns out to be old."""

    def __init__(
        self, database: Database, clock: Clock, due: Due, slots: Slots, sending: Sending, changed: asyncio.Event
    ) -> None:
        self._database = database
        self._clock = clock
        self._due = due
        self._slots = slots
        self._sending = sending
        self._changed = changed
        self._full_scans = CompleteLooks()

    async def claim(self) -> float:
        if pause := self._sending.must_wait():
            return pause
        reservations = self._slots.reserve()
        if not reservations:
            return self._until_next_due()
        wanted = [Wanted(r.record.id, r.slots + r.prefetch, r.record.low_water_mark, r.lease) for r in reservations]
        began = monotonic()
        try:
            async with self._database.connection() as connection:
                claim = await deliveries.claim(connection, wanted, uuid7())
        except BaseException:
            self._slots.claim_failed(reservations)
            raise
        telemetry.claim_seconds.observe(monotonic() - began)
        if claim.now is not None:
            self._clock.set(claim.now.timestamp())
        if leased := self._take_over(claim, reservations, began):
            await self._sending.send(leased)
        return 0.0

    async def scan(self) -> float:
        """Looks for what notifications may have missed, and for what became due by time alone.

        It is a full scan, unless that would take more than a small part of the time.
        """
        began = monotonic()
        marks = None if self._full_scans.are_due() else self._due.low_water_marks()
        try:
            async with self._database.connection() as connection:
                found = await deliveries.ready(connection, marks)
        except DatabaseUnavailable:
            if marks is None and monotonic() - began >= COMPLETE_LOOK:
                self._full_scans.took(COMPLETE_LOOK)
            raise
        took = monotonic() - began
        if marks is None:
            self._full_scans.took(took)
        self._due.scanned(found, began, marks)
        if unknown := self._due.unknown():
            self._changed.set()
            async with self._database.connection() as connection, connection.transaction():
                await deliveries.cancel_orphans(connection, unknown)
        await self._sending.return_leases(self._slots.orphaned())
        await asyncio.sleep(max(SCAN_GAP, min(5 * took, POLL)))
        return POLL

    def _take_over(self, claim: Claim, reservations: Sequence[Reservation], began: float) -> list[Leased]:
        leased: list[Leased] = []
        until = self._due.complete_until(began)
        for reservation in reservations:
            record, claimed = reservation.record, claim.endpoints.get(reservation.record.id)
            got = 0
            if claimed is not None:
                got = len(claimed.deliveries)
                self._due.claimed(record, claimed.first_due_at, until)
                leased += [Leased(record, delivery) for delivery in claimed.deliveries]
            self._slots.claimed(reservation, got)
            if got < reservation.slots + reservation.prefetch:
                self._due.exhausted(record, began)
        return leased

    def _until_next_due(self) -> float:
        now = self._clock.now()
        moments = [moment for moment in (self._due.next_after(now), self._slots.next_refill()) if moment is not None]
        return min([POLL, *(max(moment - now, 0.001) for moment in moments)])
