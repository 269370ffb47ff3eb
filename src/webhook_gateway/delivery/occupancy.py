"""Which of a worker's slots are taken, and by endpoints of what standing: what keeps those who hang from taking all."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic

from .registry import EndpointRecord

SILENCE = 1.0
"""Seconds without an end of any of its requests after which an endpoint hangs, or twice what one takes else."""
MOST = 3
"""How many times a worker's slots may be under way where requests hang."""


class Occupancy:
    """The slots of one worker. A request that hangs gives its slot up to others."""

    def __init__(self, slots: int, per_tenant: int) -> None:
        self.slots = slots
        self._per_tenant = per_tenant
        self.in_flight = 0
        """Slots taken, of all endpoints together."""
        self.unproven = 0
        """Those among them that endpoints without a recent 2xx took."""
        self.hanging = 0
        """Those among these whose requests hang."""
        self._looked_at = 0.0

    def left(self) -> int:
        """Slots that may be taken now."""
        return min(self.slots + self.hanging, MOST * self.slots) - self.in_flight

    def left_for(self, record: EndpointRecord) -> int:
        """How many its tenant's part leaves an endpoint, and that of all unproven ones together where it is one.

        Of that it is half where this one fails or hangs, and a quarter more where it is new.
        """
        tenant, standing = record.tenant, record.standing
        left = min(self._per_tenant + tenant.hanging, MOST * self._per_tenant) - tenant.in_flight
        if left <= 0 or not record.health.is_unproven():
            return left
        if record.health.current.failures_in_a_row or standing.hanging:
            part, taken = -(-self.slots // 2), self.unproven
        else:
            part, taken = -(-self.slots * 3 // 4), self.unproven - self.hanging
        return min(left, (part - taken - standing.unproven + 1) // 2)  # the threshold of all, within their part

    def take(self, record: EndpointRecord, count: int) -> None:
        record.in_flight += count
        record.tenant.in_flight += count
        self.in_flight += count
        if record.health.is_unproven():
            self._count(record, count, 0)

    def free(self, record: EndpointRecord, count: int) -> None:
        record.in_flight -= count
        record.tenant.in_flight -= count
        self.in_flight -= count
        standing = record.standing
        self._count(record, -min(count, standing.unproven), min(record.in_flight - standing.hanging, 0))

    def began(self, record: EndpointRecord) -> None:
        """A request, in a slot that was reserved for it."""
        if record.in_flight == record.reserved:
            record.standing.moved_at = monotonic()
        record.reserved -= 1

    def ended(self, record: EndpointRecord) -> None:
        """One of its requests ended, whatever comes next in its slot."""
        record.standing.moved_at = monotonic()
        if record.standing.unproven and not record.health.is_unproven():
            self._count(record, -record.standing.unproven, -record.standing.hanging)

    def look_for_silence(self, records: Iterable[EndpointRecord]) -> None:
        """Whoever has said nothing for too long has to prove itself again. A look now and then is enough."""
        now = monotonic()
        if now < self._looked_at + SILENCE / 4:
            return
        self._looked_at = now
        for record in records:
            standing, health, under_way = record.standing, record.health, record.in_flight - record.reserved
            if not under_way or now - standing.moved_at <= SILENCE:
                continue
            if health.is_unproven() or now - standing.moved_at > 2 * health.duration:
                health.doubt()
                self._count(record, record.in_flight - standing.unproven, under_way - standing.hanging)

    def _count(self, record: EndpointRecord, unproven: int, hanging: int) -> None:
        record.standing.unproven += unproven
        self.unproven += unproven
        record.standing.hanging += hanging
        record.tenant.hanging += hanging
        self.hanging += hanging
