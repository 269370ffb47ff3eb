"""A few events are fanned out from what notifications said: one statement takes them and makes their deliveries."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from webhook_gateway.rules.model import Delivery, Endpoint, Ordering
from webhook_gateway.store import deliveries, outbox
from webhook_gateway.store.database import Database
from webhook_gateway.store.notifications import Told
from webhook_gateway.store.offers import Handed
from webhook_gateway.store.outbox import OutboxEvent, ToldDelivery

from .bodies import Bodies
from .dispatch import FEW, NOTHING, Dispatch, Round, note_fanned_out, of_types
from .registry import Leased, Registry
from .slots import Slots

SIMPLE = (Ordering.NONE, Ordering.RELAXED)


@dataclass(eq=False)
class FanOut:
    """Of what was ``told``, as long as that is little and simple, and otherwise of what a look at the outbox says."""

    database: Database
    registry: Registry
    slots: Slots
    bodies: Bodies
    dispatch: Dispatch
    told: Told = field(default_factory=lambda: Told(FEW))

    async def round(self) -> Round:
        """As `Dispatch.fan_out`."""
        words = self.told.take()
        done = await self._fan_out(words) if words else None
        return await self.dispatch.fan_out() if done is None else done

    async def _fan_out(self, words: Sequence[str]) -> Round | None:
        """None where a look at the outbox has to come first: something isn't simple, or isn't as it was told."""
        began, version = time.perf_counter(), self.registry.snapshot.version
        try:
            told = [event for event in map(outbox.read_told, words) if event.event_id not in self.dispatch.taken]
        except ValueError:
            return None
        pairs = [(one, endpoint) for one in told for endpoint in self.registry.matcher.match(one.tenant_id, one.type)]
        if not _are_simple(told, pairs):
            return None
        if not told:
            return NOTHING
        lease_id, new, leased = deliveries.new_id(), [], {}
        for event, endpoint in pairs:
            record, in_order = self.registry.of(endpoint.id), endpoint.ordering is not Ordering.NONE
            lease = self.slots.lease_on_insert(record)
            new.append(
                ToldDelivery(
                    event.sequence, deliveries.id_of(event.event_id, endpoint.id), endpoint.id, in_order, lease
                )
            )
            if lease is not None:
                leased[new[-1].id] = Leased(record, first_attempt(event, endpoint.id, lease_id, in_order))
        tenants = {one.delivery.event_id: one.delivery.tenant_id for one in leased.values()}
        made: set[UUID] = set()
        try:
            async with self.database.connection() as connection:
                if not (after := self.dispatch.low_water_mark.value(connection)):
                    return None
                asked, now = self.bodies.missing(tenants), self.database.clock.now()
                found = await outbox.fan_out(connection, version, after, told, new, lease_id, asked, now)
            if found is None:
                return None
            rows, sealed = found
            made = {row["id"] for row in rows if row["lease_id"] is not None}
        except BaseException:
            self.dispatch.few = 0
            raise
        finally:
            for delivery_id, one in leased.items():
                if delivery_id not in made:
                    self.slots.not_sent(one.record)
        self.bodies.keep(tenants, sealed)
        self.dispatch.low_water_mark.found(min(event.sequence for event in told) - 1)
        note_fanned_out(told, len(rows), began)
        due = frozenset(self.registry.of(row["endpoint_id"]) for row in rows if row["lease_id"] is None)
        ours = [one for delivery_id, one in leased.items() if delivery_id in made]
        return Round(len(told), due, ours, of_types(told))


def first_attempt(event: OutboxEvent | Handed, endpoint_id: UUID, lease_id: UUID, in_order: bool) -> Delivery:
    """Of what was made of the event for that endpoint."""
    key = event.ordering_key if in_order else None
    about = event.tenant_id, endpoint_id, event.event_id, event.type
    return Delivery(deliveries.id_of(event.event_id, endpoint_id), *about, 1, lease_id, key)


def is_simple(endpoint: Endpoint) -> bool:
    """What it gets waits for no filter and no operator, and is not replaced."""
    return endpoint.ordering in SIMPLE and not endpoint.is_filtered


def _are_simple(told: Sequence[OutboxEvent], pairs: Sequence[tuple[OutboxEvent, Endpoint]]) -> bool:
    """Few deliveries that wait for no filter, no operator and no other of them; and each event is wanted."""
    ordered = [pair for pair in pairs if pair[0].ordering_key is not None and pair[1].ordering is not Ordering.NONE]
    keys = {(endpoint.id, event.ordering_key) for event, endpoint in ordered}
    return (
        len(pairs) <= FEW
        and len({event.event_id for event, _ in pairs}) == len(told)
        and len(keys) == len(ordered)
        and all(is_simple(endpoint) for _, endpoint in pairs)
    )
