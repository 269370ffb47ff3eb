"""What is leased beyond the slots: for endpoints that answer quickly deliveries wait in memory, not for a claim."""

from __future__ import annotations

from time import monotonic

from webhook_gateway.rules.model import Endpoint
from webhook_gateway.rules.outcome import Unsendable
from webhook_gateway.rules.waiting import may_begin

from .due import Due
from .registry import EndpointRecord, Leased, Prefetched, Registry

QUICK = 0.02
"""Seconds. An endpoint that answers faster would wait for claims most of the time, so deliveries are prefetched."""
PREFETCH = 14
"""How many times its slots such an endpoint may have leased beyond those under way: 0.3 s of work at most."""
QUEUED = 0.4
"""Part of the lease's margin that may be spent waiting for a slot; fetching a token takes from it, too."""
PACED = QUEUED / 3
"""The same, of work at its own pace that may be leased as it comes, where that is more: no claim then."""
NEW = 1.0
"""Seconds for which what has come to wait for a claim counts as new."""
BYTES = 33_554_432
"""Of bodies that may wait in memory as they come, about."""
CLAIMED = 500
"""Of an endpoint in one claim, at most, as in a round of fan-out: neighbours wait while it is read."""


class Queue:
    """Of all endpoints of one worker. Does no I/O."""

    def __init__(self, registry: Registry, due: Due, concurrency: int, lease_margin: float) -> None:
        self._registry = registry
        self._due = due
        self._concurrency = concurrency
        self._lease_margin = lease_margin
        self._length = 0
        self._size = 0.0
        """Bytes of a body: a moving average."""

    def add(self, leased: Leased, body: bytes | Unsendable) -> None:
        queue = leased.record.prefetched
        until = monotonic() + QUEUED * self._lease_margin
        (queue.appendleft if leased.delivery.test else queue.append)(Prefetched(leased.delivery, body, until))
        self._length += 1
        self._size += ((len(body) if isinstance(body, bytes) else 0) - self._size) / 64

    def pop(self, record: EndpointRecord) -> Prefetched:
        self._length -= 1
        return record.prefetched.popleft()

    def room(self, endpoint: Endpoint, record: EndpointRecord, now: float) -> int:
        """How many more may be leased as they come, of what no others wait for."""
        return self._most(endpoint, record, now, is_new=True) - len(record.prefetched) - record.prefetching

    def room_to_claim(self, endpoint: Endpoint, record: EndpointRecord, now: float) -> int:
        """How many to claim: never a few at a time. Of what is new so many that the next may be leased as it comes."""
        is_new = record.due_at is not None and record.due_at > now - NEW
        most, queued = self._most(endpoint, record, now, is_new), len(record.prefetched) + record.prefetching
        return min(most - queued, CLAIMED) if 2 * queued <= most else 0

    def _most(self, endpoint: Endpoint, record: EndpointRecord, now: float, is_new: bool) -> int:
        """None while anything is wrong. What is new is shared by all workers: none sends what another has leased."""
        health = record.health
        if health.duration > QUICK or health.current.failures_in_a_row or endpoint.rate is not None:
            return 0
        share = self._registry.share(record, may_begin(endpoint, health.current, now))
        slots = min(share, self._concurrency // max(len(self._due), 1))
        most = PREFETCH * slots
        if is_new:
            ahead = slots / health.duration * PACED * self._lease_margin / self._registry.workers
            together = min(PREFETCH * self._concurrency, BYTES / max(self._size, 1.0))
            most = max(most, int(min(ahead, together - self._length + len(record.prefetched))))
        return most
