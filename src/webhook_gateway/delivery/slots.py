"""Who may send how much now: the part of a worker that keeps neighbours apart.

An endpoint takes only its own slots, shared between the live workers. Within one worker no endpoint may hold more slots
than are still free (a dynamic threshold, as in shared-memory switches: Choudhury and Hahne, 1998), so however many
neighbours hang, a newcomer finds a free one. Endpoints without a 2xx in five minutes have half of the slots together,
and those of them that never failed, either, a quarter more. Requests that hang leave their slots to others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain, islice
from time import monotonic

import msgspec

from webhook_gateway.rules.credentials import ClientCredentials
from webhook_gateway.rules.deadlines import LEASE_MARGIN, TOKEN_DEADLINE
from webhook_gateway.rules.model import Endpoint, Ordering
from webhook_gateway.rules.outcome import Unsendable
from webhook_gateway.rules.waiting import may_begin, may_test
from webhook_gateway.store.clock import Clock

from .due import Due
from .occupancy import Occupancy
from .queue import QUEUED, Queue
from .registry import EndpointRecord, Leased, Prefetched, Registry


class Reservation(msgspec.Struct, frozen=True):
    """What to claim for an endpoint: as many as slots were reserved, and some to prefetch. ``lease`` is in seconds."""

    record: EndpointRecord
    slots: int
    prefetch: int
    lease: float


class Slots:
    """The slots of one worker. Does no I/O; one event loop owns it."""

    def __init__(
        self,
        clock: Clock,
        registry: Registry,
        due: Due,
        concurrency: int,
        per_tenant: int = 0,
        lease_margin: float = LEASE_MARGIN,
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._due = due
        self._taken = Occupancy(concurrency, per_tenant or concurrency)
        self._queue = Queue(registry, due, concurrency, lease_margin)
        self._lease_margin = lease_margin
        self._room: dict[EndpointRecord, int] = {}
        """For how many more of a round of fan-out, where that was found."""
        self._allowed_again = math.inf
        """When a rate that allows nothing now will, by monotonic time."""

    @property
    def concurrency(self) -> int:
        return self._taken.slots

    @property
    def in_flight(self) -> int:
        """Slots taken, of all endpoints together."""
        return self._taken.in_flight

    # Taking slots, for deliveries that are about to be leased.

    def reserve(self) -> list[Reservation]:
        """What to claim now. The slots are taken until `claimed`."""
        self._taken.look_for_silence(self._registry)
        now, free = self._clock.now(), self._taken.left()
        self._allowed_again = math.inf
        reservations: list[Reservation] = []
        if free <= 0:
            return reservations
        due = self._due.in_rotation(now)
        first = list(islice(due, free))
        each = -(-free // max(len(first), 1))  # a few, so that many are served and their connections stay in use
        for endpoint, record in chain(first, due):
            if free <= 0:
                break
            count = max(min(self._free_slots(endpoint, record, now), (free - record.in_flight + 1) // 2, each), 0)
            prefetch = self._queue.room_to_claim(endpoint, record, now) if count or record.in_flight else 0
            if count + prefetch > 0:
                reservations.append(Reservation(record, count, prefetch, self.lease(endpoint)))
                self._reserve(record, count)
                free -= count
        self._due.rotate(reservation.record for reservation in reservations)
        return reservations

    def claimed(self, reservation: Reservation, got: int) -> None:
        """Frees what the claim did not need."""
        self._free_reserved(reservation.record, max(reservation.slots - got, 0))

    def lease_on_insert(self, record: EndpointRecord, test: bool = False) -> float | None:
        """The lease in seconds of a delivery that is about to be made, with a slot for it, or room to prefetch it.

        None where it has to be claimed: others wait for the endpoint, or there is no room. A ``test`` goes before
        those that wait, in the next slot that is free.
        """
        endpoint = record.endpoint
        if (room := self._room.get(record, 0)) > 0 and endpoint is not None and not test:
            self._room[record] = room - 1
            record.prefetching += 1
            return self.lease(endpoint)
        now = self._clock.now()
        if endpoint is None or (record.due_at is not None and record.due_at <= now and not test):
            return None
        free = self._taken.left()
        if min(self._free_slots(endpoint, record, now, test), (free - record.in_flight + 1) // 2) > 0:
            self._reserve(record, 1)
        elif record.in_flight and test and endpoint.rate is None:
            record.prefetching += 1
        elif record.in_flight and (room := self._queue.room(endpoint, record, now)) > 0:
            self._room[record] = room - 1
            record.prefetching += 1
        else:
            return None
        return self.lease(endpoint)

    def lease(self, endpoint: Endpoint) -> float:
        """In seconds, of whatever is sent to it."""
        return endpoint.deadline + self._lease_margin

    def is_in_time(self, leased_at: float) -> bool:
        """Whether what was leased then, in Unix seconds, can still wait for a slot."""
        return self._clock.now() < leased_at + QUEUED * self._lease_margin

    def lease_to_follow(self, record: EndpointRecord) -> float | None:
        """The lease in seconds for the next delivery of an ordering key, of which one has just ended.

        None where it has to be claimed like all others. No slot is taken: there nearly always is no next one.
        """
        endpoint = record.endpoint
        if endpoint is None or endpoint.ordering is Ordering.LATEST or endpoint.rate is not None:
            return None
        if self._registry.snapshot.is_paused:
            return None
        if self._taken.left() <= 0 or self._free_slots(endpoint, record, self._clock.now()) <= 0:
            return None
        return self.lease(endpoint)

    # What is leased.

    def begin(self, leased: Leased, body: bytes | Unsendable) -> bool:
        """Uses a slot that was reserved; where none is left, the delivery waits for the next one that is free."""
        record = leased.record
        endpoint = record.endpoint
        has_slots = endpoint is not None and record.in_flight < endpoint.slots  # more than it is allowed, perhaps
        if not record.reserved and endpoint is not None and has_slots and self._taken.left() > 0:
            now, test = self._clock.now(), leased.delivery.test
            self._reserve(record, min(max(self._free_slots(endpoint, record, now, test), 0), 1))
        if record.reserved:
            self._taken.began(record)
            return True
        self._queue.add(leased, body)
        return False

    def next_or_free(self, record: EndpointRecord, goes_on: bool) -> Prefetched | None:
        """What follows a request in its slot: the next one that was prefetched, or None and the slot is free."""
        endpoint = record.endpoint
        self._taken.ended(record)
        if (
            goes_on
            and record.prefetched
            and endpoint is not None
            and (first := record.prefetched[0]).until > monotonic()
            and record.in_flight <= self._allowed(endpoint, record, self._clock.now(), first.delivery.test)
        ):
            return self._queue.pop(record)
        self._taken.free(record, 1)
        return None

    def not_sent(self, record: EndpointRecord) -> None:
        """A leased delivery doesn't need its reserved slot, or its room among those prefetched on insert."""
        self._room.clear()
        if record.prefetching:
            record.prefetching -= 1
        else:
            self._free_reserved(record, 1)

    def inserted(self, records: Iterable[EndpointRecord]) -> None:
        """What was leased on insert has begun, is queued, or was returned: a record for each of these."""
        self._room.clear()
        for record in records:
            if record.prefetching:  # another round may count on the rest
                record.prefetching -= 1

    def orphaned(self, among: Iterable[EndpointRecord] | None = None, *, stopping: bool = False) -> list[Leased]:
        """Takes out what was prefetched and won't be sent: no request is under way to follow, or it is too late."""
        found: list[Leased] = []
        for record in self._registry if among is None else among:
            queue = record.prefetched
            while queue and (stopping or record.in_flight == 0 or queue[0].until <= monotonic()):
                found.append(Leased(record, self._queue.pop(record).delivery))
        return found

    def allowed_again(self) -> float | None:
        """When a rate will allow what it doesn't now."""
        return None if self._allowed_again == math.inf else self._clock.at(self._allowed_again)

    def longest_request(self) -> float:
        """Seconds that the requests under way may still take, tokens for them included."""
        sending = [record.endpoint for record in self._registry if record.in_flight and record.endpoint is not None]
        fetching = [isinstance(endpoint.authorization, ClientCredentials) * TOKEN_DEADLINE for endpoint in sending]
        return max((one.deadline + token for one, token in zip(sending, fetching, strict=True)), default=0.0)

    def _reserve(self, record: EndpointRecord, count: int) -> None:
        record.reserved += count
        self._taken.take(record, count)
        if record.endpoint is not None and record.endpoint.rate is not None:
            record.pace.begun.extend([monotonic()] * count)

    def _free_reserved(self, record: EndpointRecord, count: int) -> None:
        count = min(count, record.reserved)
        record.reserved -= count
        for _ in range(min(count, len(record.pace.begun))):
            record.pace.begun.pop()
        self._taken.free(record, count)

    # How much there is room for.

    def _free_slots(self, endpoint: Endpoint, record: EndpointRecord, now: float, test: bool = False) -> int:
        free = self._taken.left_for(record)
        if free <= 0:  # as for hundreds that hang, which are due all the time: they are to cost little
            return free
        free = min(free, self._allowed(endpoint, record, now, test) - record.in_flight)
        if endpoint.rate is not None:
            most = math.ceil(endpoint.rate)
            allowed, again = record.pace.allows(self._registry.share(record, most), most / endpoint.rate)
            self._allowed_again = min(self._allowed_again, again)
            free = min(free, allowed)
        return free

    def _allowed(self, endpoint: Endpoint, record: EndpointRecord, now: float, test: bool = False) -> int:
        """How many requests this worker may have under way to the endpoint."""
        share = self._registry.share(record, may_begin(endpoint, record.health.current, now))
        if test and share == 0 and may_test(endpoint, record.health.current, now):
            return 1
        return int(min(share, record.health.limit))
