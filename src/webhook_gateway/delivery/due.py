"""What is due when: each endpoint's first open delivery, as scans, fan-outs, claims and settles tell."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from math import inf
from time import monotonic
from uuid import UUID

from webhook_gateway.rules.model import Endpoint
from webhook_gateway.store.clock import Clock

from .registry import LONG_AGO, EndpointRecord, Registry
from .watermark import LAG

RECENT = 60.0
"""Seconds: what is due to an endpoint that this worker never sent to is no older, or a full scan finds it."""


class Due:
    """Does no I/O; one event loop owns it."""

    def __init__(self, clock: Clock, registry: Registry) -> None:
        self._clock = clock
        self._registry = registry
        self._expected: dict[UUID, EndpointRecord] = {}
        """Those with something to come, whoever was asked for longest ago first."""
        self._first_at = inf
        """None of them is due before."""
        self.changed = asyncio.Event()
        """Something may be claimed that couldn't be before."""

    def __len__(self) -> int:
        return len(self._expected)

    def expect(self, record: EndpointRecord, delay: float = 0.0) -> None:
        """Something for the endpoint has just become due, or will be after so many seconds."""
        self._expect(record, self._clock.now() + delay)
        record.learnt_at = monotonic()
        self.changed.set()

    def look_again(self) -> None:
        """A slot is free, or an endpoint's configuration changed: what has been due may be claimed now."""
        if self._first_at <= self._clock.now():
            self.changed.set()

    def in_rotation(self, now: float) -> Iterator[tuple[Endpoint, EndpointRecord]]:
        """The known endpoints that have something due. Of thousands only as many are looked at as are asked for."""
        first_at = inf
        for record in self._expected.values():
            at = record.due_at
            if at is not None:
                first_at = min(first_at, at)
                if at <= now and record.endpoint is not None:
                    yield record.endpoint, record
        self._first_at = first_at  # not known where some are left; then it is over already

    def rotate(self, records: Iterable[EndpointRecord]) -> None:
        """They are claimed for: all others come first the next time."""
        for record in records:
            self._expected[record.id] = self._expected.pop(record.id)

    def claimed(self, record: EndpointRecord, first: datetime | None, until: datetime) -> None:
        """A claim took what was due from ``first`` on. ``until`` is `complete_until` the claim began."""
        if first is not None:
            record.low_water_mark = max(record.low_water_mark, min(first, until))
            if record.due_at is not None:
                record.due_at = max(record.due_at, first.timestamp())

    def exhausted(self, record: EndpointRecord, began: float) -> None:
        """A claim that began then (monotonic time) found nothing more; what was learnt since is newer."""
        if record.learnt_at < began:
            record.due_at = None
            self._expected.pop(record.id, None)

    def scanned(self, found: Mapping[UUID, datetime], began: float, among: Collection[UUID] | None = None) -> None:
        """The endpoints with open deliveries, and when the first of each is due: a scan of the database.

        ``began`` is when it began, by monotonic time: what was learnt since is newer. ``among`` are the endpoints that
        it asked for, by default all.
        """
        for record in self._expected.values():
            if record.learnt_at < began and (among is None or record.id in among):
                record.due_at = None
        for endpoint_id, due_at in found.items():
            self._expect(self._registry.of(endpoint_id), due_at.timestamp())
        self._expected = {record.id: record for record in self._expected.values() if record.due_at is not None}
        until = self.complete_until(began)
        for record in self._registry:
            if among is None or record.id in among:
                record.low_water_mark = min(found.get(record.id, until), until)
        if self._expected:
            self.changed.set()

    def low_water_marks(self) -> dict[UUID, datetime]:
        """By endpoint: the due time below which nothing of it is left."""
        recent = datetime.fromtimestamp(self._clock.now() - RECENT, UTC)
        return dict.fromkeys(self._registry.snapshot.endpoints, recent) | {
            r.id: r.low_water_mark for r in self._registry
        }

    def complete_until(self, began: float) -> datetime:
        """A due time below which nothing new comes: a scan or a claim that began then has seen all there was."""
        return datetime.fromtimestamp(self._clock.at(began) - LAG, UTC) if self._clock.is_set else LONG_AGO

    def next_after(self, now: float) -> float | None:
        """When something becomes due that isn't yet."""
        known = (record.due_at for record in self._expected.values())
        return min((due_at for due_at in known if due_at is not None and due_at > now), default=None)

    def unknown(self) -> list[UUID]:
        """Endpoints with open deliveries that the configuration doesn't know: they were deleted meanwhile."""
        return [record.id for record in self._expected.values() if record.endpoint is None]

    def _expect(self, record: EndpointRecord, due_at: float) -> None:
        record.due_at = due_at if record.due_at is None else min(record.due_at, due_at)
        self._first_at = min(self._first_at, due_at)
        self._expected[record.id] = record
