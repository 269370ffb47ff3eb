"""The endpoints as one worker knows them: a record each, which all of its parts share.

A record is looked up once, where a delivery is leased, and handed on from there.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from time import monotonic
from uuid import UUID
from zlib import crc32

import msgspec

from webhook_gateway.intake.catalogue import thin_of
from webhook_gateway.rules.matching import OPERATIONAL, Matcher
from webhook_gateway.rules.model import Delivery, Endpoint, EndpointState
from webhook_gateway.rules.outcome import Unsendable
from webhook_gateway.rules.views import NOTHING, WHOLE, cut
from webhook_gateway.store.configuration import Snapshot

from .health import EndpointHealth

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
OfType = tuple[UUID, str]
"""A tenant, and an event type."""


class Prefetched(msgspec.Struct, frozen=True):
    """A leased delivery that waits in memory for a slot, ``until`` a moment of monotonic time."""

    delivery: Delivery
    body: bytes | Unsendable
    until: float


@dataclass(slots=True, eq=False)
class Tenant:
    in_flight: int = 0
    hanging: int = 0
    """Those of them that hang."""


@dataclass(slots=True, eq=False)
class Pace:
    """When requests began lately: what keeps them to a rate in every second, the first one, too."""

    begun: deque[float] = field(default_factory=deque)
    """By monotonic time."""

    def allows(self, most: int, seconds: float) -> tuple[int, float]:
        """How many may begin now, of ``most`` in any so many ``seconds``; where none may, when that changes.

        No tenth of that time has more than a tenth of them: a few that are slow on their way would else come to the
        partner together with the next time's.
        """
        if not most:
            return 0, math.inf
        now, tenth = monotonic(), -(-most // 10)
        while self.begun and self.begun[0] <= now - seconds:
            self.begun.popleft()
        if len(self.begun) >= most:
            return 0, self.begun[-most] + seconds
        lately = sum(at > now - seconds / 10 for at in islice(reversed(self.begun), tenth))
        if lately >= tenth:
            return 0, self.begun[-tenth] + seconds / 10
        return min(most - len(self.begun), tenth - lately), math.inf


@dataclass(slots=True, eq=False)
class Standing:
    """What its requests under way say of an endpoint. `Occupancy` keeps it."""

    unproven: int = 0
    """Slots that it took while no 2xx had come lately."""
    hanging: int = 0
    """Those among them whose requests hang."""
    moved_at: float = 0.0
    """When the last one ended, or the first one began, by monotonic time."""


@dataclass(slots=True, eq=False)
class EndpointRecord:
    """Each section is written by one part: the registry, `Due`, `Slots`, and `EndpointHealth` itself."""

    id: UUID
    endpoint: Endpoint | None = None
    """As configured. None where it isn't known: it was deleted, or is newer than our copy."""
    tenant: Tenant = field(default_factory=Tenant)
    lacks_key: bool = False
    """An encryption key for its secrets is missing."""

    due_at: float | None = None
    """When its first open delivery is due, or None where none is known."""
    learnt_at: float = 0.0
    """When that was last learnt from elsewhere than a scan, by monotonic time."""
    low_water_mark: datetime = LONG_AGO
    """A due time below which nothing was left at the last scan: rows long gone cost a scan as much as others."""

    in_flight: int = 0
    """Slots that are taken: by requests under way, and by those reserved."""
    standing: Standing = field(default_factory=Standing)
    reserved: int = 0
    """Slots taken for deliveries that are just being claimed or made."""
    prefetched: deque[Prefetched] = field(default_factory=deque)
    prefetching: int = 0
    """Prefetched on insert, and not in the queue yet."""
    pace: Pace = field(default_factory=Pace)
    """Filled where the endpoint has a rate."""

    health: EndpointHealth = field(default_factory=EndpointHealth)


class Leased(msgspec.Struct, frozen=True):
    """A delivery that is ours, for a slot that was reserved, or prefetched."""

    record: EndpointRecord
    delivery: Delivery


class Registry:
    """Does no I/O; one event loop owns it."""

    def __init__(self) -> None:
        self.snapshot = Snapshot(0, {}, frozenset(), None)
        self.matcher = Matcher(())
        self.workers = 1
        """How many are alive."""
        self._rank = 0
        self._records: dict[UUID, EndpointRecord] = {}
        self._tenants: defaultdict[UUID, Tenant] = defaultdict(Tenant)

    def of(self, endpoint_id: UUID) -> EndpointRecord:
        record = self._records.get(endpoint_id)
        if record is None:
            record = self._records[endpoint_id] = EndpointRecord(endpoint_id)
            self._take_over(record)
        return record

    def __iter__(self) -> Iterator[EndpointRecord]:
        """Those that have, or had, something to send."""
        return iter(self._records.values())

    def learn(self, snapshot: Snapshot) -> None:
        """Takes over the configuration, unless it is older than ours."""
        if snapshot.version < self.snapshot.version:
            return
        self.snapshot = snapshot
        self.matcher = Matcher(snapshot.endpoints.values())
        for record in self:
            self._take_over(record)

    def disable(self, record: EndpointRecord) -> None:
        """From now on, though the configuration doesn't say so yet: it is written when the verdict is settled."""
        record.health.disabled_until = math.inf
        self._take_over(record)

    def disabled(self, records: Iterable[EndpointRecord], version: int) -> None:
        """The configuration says so itself from this version on."""
        for record in records:
            record.health.disabled_until = version
            self._take_over(record)

    def share_with(self, rank: int, workers: int) -> None:
        """This worker is number ``rank`` (from 0) of the live ones."""
        self._rank, self.workers = rank, workers

    def is_first_for(self, tenant_id: UUID, event_type: str) -> bool:
        """Whether this is the one worker that offers to send such events at once: each has its part of the types."""
        return (crc32(event_type.encode()) + tenant_id.int) % self.workers == self._rank

    def share(self, record: EndpointRecord, slots: int) -> int:
        """This worker's part of the slots. The parts add up, and who gets the odd one differs by endpoint."""
        if self.workers == 1:
            return slots
        position = (self._rank + record.id.int) % self.workers
        return (slots + self.workers - 1 - position) // self.workers

    def cut(self, endpoint: Endpoint, event_type: str, body: bytes) -> bytes:
        """As much of an event's body as the endpoint gets."""
        if endpoint.view == WHOLE:
            return body
        thin = thin_of(event_type) or self.snapshot.thin.get((endpoint.tenant_id, event_type), NOTHING)
        return cut(body, endpoint.view.of(thin), endpoint.view.subject)

    def wants_dead_delivery_events(self, delivery: Delivery) -> bool:
        """Whether some endpoint wants to hear of this one's death. Never about tests, or
        the gateway's own events: no loops."""
        untold = delivery.test or delivery.event_type.startswith(OPERATIONAL)
        return not untold and bool(self.matcher.match(delivery.tenant_id, OPERATIONAL + "delivery_dead"))

    def _take_over(self, record: EndpointRecord) -> None:
        endpoint = self.snapshot.endpoints.get(record.id)
        if endpoint is not None:
            record.tenant = self._tenants[endpoint.tenant_id]
            if self.snapshot.version < record.health.disabled_until:
                endpoint = replace(endpoint, state=EndpointState.DISABLED)
        record.endpoint = endpoint
        record.lacks_key = record.id in self.snapshot.unsendable
