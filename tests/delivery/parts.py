"""The parts of a worker that keep no connection, wired as the worker wires them, with one endpoint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID, uuid4

from webhook_gateway.delivery.due import Due
from webhook_gateway.delivery.registry import EndpointRecord, Leased, Registry
from webhook_gateway.delivery.slots import Slots
from webhook_gateway.rules.model import Delivery, Endpoint, Health
from webhook_gateway.rules.outcome import Accepted
from webhook_gateway.store.clock import Clock
from webhook_gateway.store.configuration import Snapshot

TENANT = UUID(int=1)
ENDPOINT = Endpoint(UUID(int=8), TENANT, TENANT, 1, "https://partner.example/hook", ("*",))
BODY = b"{}"


def delivery() -> Delivery:
    return Delivery(uuid4(), TENANT, ENDPOINT.id, uuid4(), "lab_result.final", 1, uuid4())


def snapshot(*endpoints: Endpoint, version: int = 1) -> Snapshot:
    return Snapshot(version, {endpoint.id: endpoint for endpoint in endpoints}, frozenset(), None)


@dataclass
class Parts:
    """``slots`` are of a worker that knows `ENDPOINT` with some changes."""

    concurrency: int = 256
    per_tenant: int = 0
    lease_margin: float = 15.0
    changes: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock, self.registry = Clock(), Registry()
        self.due = Due(self.clock, self.registry)
        self.slots = Slots(
            self.clock,
            self.registry,
            self.due,
            self.concurrency,
            per_tenant=self.per_tenant,
            lease_margin=self.lease_margin,
        )
        self.registry.learn(snapshot(replace(ENDPOINT, **self.changes)))  # type: ignore[arg-type]

    @property
    def record(self) -> EndpointRecord:
        return self.registry.of(ENDPOINT.id)

    def claim(self, has: int) -> list[Leased]:
        """A claim that finds ``has`` due deliveries at most."""
        began = monotonic()
        self.due.expect(self.record)
        found: list[Leased] = []
        for reservation in self.slots.reserve():
            wanted = reservation.slots + reservation.prefetch
            got = [Leased(reservation.record, delivery()) for _ in range(min(has, wanted))]
            if got:
                self.due.claimed(reservation.record, datetime.now(UTC), self.due.complete_until(began))
            self.slots.claimed(reservation, len(got))
            if len(got) < wanted:
                self.due.exhausted(reservation.record, began)
            found += got
        return found

    def begin(self, *leased: Leased) -> int:
        """How many of them have a slot."""
        return sum(self.slots.begin(one, BODY) for one in leased)

    def answer_quickly(self) -> None:
        for _ in range(60):
            self.record.health.note(Accepted(200), 0.001, Health(), share=10)
