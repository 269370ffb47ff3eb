"""The outbox becomes deliveries: one for each endpoint that wants the event.

One round is one transaction, and one round at a time runs in the whole cluster, so that the order in which a tenant's
events were accepted is the order of its deliveries.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from msgspec.structs import replace

from webhook_gateway import telemetry
from webhook_gateway.crypto.vault import Vault
from webhook_gateway.host import tracing
from webhook_gateway.host.loop import Turns
from webhook_gateway.rules.filters import read_data
from webhook_gateway.rules.matching import OPERATIONAL
from webhook_gateway.rules.model import Delivery, Endpoint, Ordering
from webhook_gateway.store import configuration, deliveries, keyring, ordering, outbox, recovered
from webhook_gateway.store.database import FLUSHED, Connection, Database
from webhook_gateway.store.look import last_where_empty
from webhook_gateway.store.offers import Handed
from webhook_gateway.store.outbox import NewDelivery, OutboxEvent

from . import operational
from .bodies import Bodies
from .registry import EndpointRecord, Leased, OfType, Registry
from .slots import Slots
from .watermark import LowWaterMark

ROUND = 500
"""Events dequeued in one round, and as many again where several tenants wait."""

FEW = 16
"""Events whose bodies come with the insert of their deliveries; of more they are fetched when no lock is held."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did: how many events it took, which endpoints have something due, and what it leased.

    ``of_types`` are those of a few events that are for whoever wants them.
    """

    dequeued: int
    due: frozenset[EndpointRecord]
    leased: list[Leased]
    of_types: frozenset[OfType] = frozenset()


NOTHING = Round(0, frozenset(), [])


class Dispatch:
    """Fans out. Knows by the configuration's version when the endpoints in memory are old."""

    def __init__(self, database: Database, vault: Vault, registry: Registry, slots: Slots, bodies: Bodies) -> None:
        self._database = database
        self._vault = vault
        self._registry = registry
        self._slots = slots
        self._bodies = bodies
        self._endpoints: Mapping[UUID, Endpoint] = {}
        self._matcher = registry.matcher
        self.low_water_mark = LowWaterMark(database.opened_at)
        self.few = FEW
        self.taken: frozenset[UUID] = frozenset()
        """Events of the last round that took some: a notification of one may still be on its way."""

    async def fan_out(self) -> Round:
        """One round; takes nothing while another process does it.

        The slots of what it leased are taken: the caller sends those deliveries.

        Raises:
            DatabaseUnavailable: nothing was dequeued, or it is unknown: what was not committed is still in the outbox.
        """
        began, lease_id = time.perf_counter(), deliveries.new_id()
        leased: list[Leased] = []
        try:
            async with self._database.connection() as connection, connection.transaction():
                after = self.low_water_mark.value(connection)
                try:
                    dequeued = await outbox.dequeue(connection, after, ROUND, self._database.clock.now())
                finally:
                    self.low_water_mark.scanned(after, time.perf_counter() - began)
                if not dequeued.events:
                    if after == 0 and (last := await last_where_empty(connection)) is not None:
                        self.low_water_mark.found(last)
                    return NOTHING
                if dequeued.version > self._registry.snapshot.version:
                    # An endpoint whose key isn't here yet would count as unsendable until the next change of any.
                    await keyring.fill(self._database, self._vault)
                    self._registry.learn(await configuration.snapshot(connection, self._vault))
                self._endpoints, self._matcher = self._registry.snapshot.endpoints, self._registry.matcher
                events = await outbox.without_known(connection, dequeued)
                matched = [(event, self._match(event)) for event in events]
                new = await self._judge(matched, await self._open(connection, matched))
                if any(delivery.ordering_key is not None for delivery in new):
                    new = await self._put_in_order(connection, new)
                due = self._lease(new, lease_id, leased)
                await self._insert(connection, new, lease_id)
                await recovered.end_unmade(connection, events, new, self._endpoints)
                if addressed := [event for event in events if event.addressees]:
                    await self._tell_of_unreached(connection, addressed, new)
        except BaseException:
            for one in leased:
                self._slots.not_sent(one.record)
            self.few = 0  # a body that can't be read must not keep others back: the next round asks for none
            raise
        self.few = FEW
        self.taken = frozenset(event.event_id for event in dequeued.events if event.endpoint_id is None)
        self.low_water_mark.found(dequeued.lowest - 1)
        note_fanned_out(dequeued.events, len(new), began)
        few = dequeued.events if len(dequeued.events) <= FEW else ()
        return Round(len(dequeued.events), due, leased, of_types(few))

    def _match(self, event: OutboxEvent) -> Sequence[Endpoint]:
        if event.endpoint_id is not None:
            endpoint = self._endpoints.get(event.endpoint_id)
            return () if endpoint is None else (endpoint,)
        matched: Sequence[Endpoint] = self._matcher.match(event.tenant_id, event.type)
        if event.addressees is not None:
            matched = [endpoint for endpoint in matched if endpoint.subscriber_id in event.addressees]
        if not matched and not event.type.startswith(OPERATIONAL):
            telemetry.event_unmatched(event.event_id, event.type)
        return matched

    async def _open(
        self, connection: Connection, matched: Sequence[tuple[OutboxEvent, Sequence[Endpoint]]]
    ) -> dict[UUID, bytes]:
        """The bodies that a filter asks for, handed on to the sender by the way."""
        asked = {
            event.event_id: event.tenant_id
            for event, found in matched
            if event.endpoint_id is None and any(endpoint.is_filtered for endpoint in found)
        }
        return await self._bodies.some(connection, asked) if asked else {}

    async def _judge(
        self, matched: Sequence[tuple[OutboxEvent, Sequence[Endpoint]]], bodies: Mapping[UUID, bytes]
    ) -> list[NewDelivery]:
        """All deliveries of the round. Filters take their time, so attempts go on meanwhile."""
        new: list[NewDelivery] = []
        turns = Turns()
        for event, found in matched:
            new += self._deliveries_of(event, found, bodies)
            if bodies:
                await turns.give()
        return new

    def _deliveries_of(
        self, event: OutboxEvent, matched: Sequence[Endpoint], bodies: Mapping[UUID, bytes]
    ) -> list[NewDelivery]:
        """One for each endpoint, but for those whose filter doesn't want it. What is for one only is not filtered."""
        body = bodies.get(event.event_id)
        data = None if body is None else read_data(body)
        wanted: list[tuple[Endpoint, bool | None]] = []
        for endpoint in matched:
            if not endpoint.is_filtered or event.endpoint_id is not None:
                wanted.append((endpoint, None))
            elif endpoint.filter is None or body is None:
                wanted.append((endpoint, True))
            elif endpoint.filter.matches(data):
                wanted.append((endpoint, None))
        return [
            NewDelivery(
                id=event.delivery_id or deliveries.id_of(event.event_id, endpoint.id),
                tenant_id=event.tenant_id,
                endpoint_id=endpoint.id,
                event_id=event.event_id,
                type=event.type,
                sequence=event.sequence,
                ordering_key=None if endpoint.ordering is Ordering.NONE else event.ordering_key,
                due=True,
                reason=event.reason,
                unfiltered=unfiltered,
            )
            for endpoint, unfiltered in wanted
        ]

    def _lease(self, new: list[NewDelivery], lease_id: UUID, leased: list[Leased]) -> frozenset[EndpointRecord]:
        """Leases those for which a slot is free and nothing else waits. Returns who else got something."""
        others: set[EndpointRecord] = set()
        latest = self._endpoints_with(Ordering.LATEST, new)
        for at, delivery in enumerate(new):
            record = self._registry.of(delivery.endpoint_id)
            claimable = delivery.due and delivery.endpoint_id not in latest
            lease = self._slots.lease_on_insert(record, delivery.reason == "test") if claimable else None
            if lease is None:
                others.add(record)
            else:
                new[at] = replace(delivery, lease=lease)
                about = delivery.id, delivery.tenant_id, delivery.endpoint_id, delivery.event_id, delivery.type
                further = delivery.ordering_key, delivery.sequence, None, delivery.reason, delivery.unfiltered
                leased.append(Leased(record, Delivery(*about, 1, lease_id, *further)))
        return frozenset(others)

    async def _insert(self, connection: Connection, new: Sequence[NewDelivery], lease_id: UUID) -> None:
        if new:
            leased = {one.event_id: one.tenant_id for one in new if one.lease is not None}
            wanted = self._bodies.missing(leased) if len(leased) <= self.few else []
            self._bodies.keep(leased, await outbox.insert_deliveries(connection, new, lease_id, wanted))
        if latest := self._endpoints_with(Ordering.LATEST, new):
            keys = {(one.endpoint_id, one.ordering_key) for one in new if one.endpoint_id in latest}
            await ordering.supersede(connection, sorted((each, key) for each, key in keys if key is not None))

    async def _tell_of_unreached(
        self, connection: Connection, addressed: Sequence[OutboxEvent], new: Sequence[NewDelivery]
    ) -> None:
        reached = {(one.event_id, self._endpoints[one.endpoint_id].subscriber_id) for one in new}
        for event in addressed:
            if unreached := [one for one in event.addressees or () if (event.event_id, one) not in reached]:
                await connection.execute(FLUSHED)
                await operational.event_undelivered(connection, self._vault, event, event.type, unreached)

    async def _put_in_order(self, connection: Connection, new: Sequence[NewDelivery]) -> list[NewDelivery]:
        """Only the head of an ordering key is due; the others wait for the one before them."""
        keys = sorted({(d.endpoint_id, d.ordering_key) for d in new if d.ordering_key is not None})
        latest_only, strictly = (self._endpoints_with(which, new) for which in (Ordering.LATEST, Ordering.STRICT))
        others = [key for key in keys if key[0] not in latest_only]
        strict, latest = ([key for key in keys if key[0] in those] for those in (strictly, latest_only))
        busy = await ordering.busy_keys(connection, others, strict, latest)
        ordered = []
        for delivery in new:
            key = (delivery.endpoint_id, delivery.ordering_key)
            ordered.append(replace(delivery, due=False) if key in busy else delivery)
            if delivery.ordering_key is not None:
                busy.add((delivery.endpoint_id, delivery.ordering_key))
        return ordered

    def _endpoints_with(self, which: Ordering, new: Sequence[NewDelivery]) -> set[UUID]:
        return {each for each in {one.endpoint_id for one in new} if self._endpoints[each].ordering is which}


def of_types(events: Sequence[OutboxEvent]) -> frozenset[OfType]:
    return frozenset((one.tenant_id, one.type) for one in events if one.endpoint_id is None and one.addressees is None)


def note_fanned_out(events: Sequence[OutboxEvent | Handed], made: int, began: float) -> None:
    """Counts the deliveries that were made of the events, in a round that ``began`` then."""
    telemetry.fanned_out.inc(made)
    telemetry.fan_out_seconds.observe(seconds := time.perf_counter() - began)
    for event in events:
        tracing.followed("fan out", event.event_id, seconds, type=event.type)
