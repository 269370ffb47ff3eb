"""The record of an endpoint: one for all parts of a worker, as the configuration and our own verdicts have it."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from webhook_gateway.delivery.registry import EndpointRecord, Registry
from webhook_gateway.rules.model import EndpointState
from webhook_gateway.store.configuration import Snapshot

from .parts import ENDPOINT, Parts, delivery, snapshot


def state_of(record: EndpointRecord) -> EndpointState | None:
    return None if record.endpoint is None else record.endpoint.state


def test_a_record_follows_the_configuration_and_an_older_copy_changes_nothing() -> None:
    parts = Parts()
    record = parts.record
    parts.registry.learn(snapshot(replace(ENDPOINT, slots=3), version=3))
    parts.registry.learn(snapshot(version=2))
    assert record.endpoint is not None
    assert record.endpoint.slots == 3
    parts.registry.learn(Snapshot(4, {ENDPOINT.id: ENDPOINT}, frozenset([ENDPOINT.id]), None))
    assert record.lacks_key
    parts.registry.learn(snapshot(version=5))
    assert record.endpoint is None


def test_an_endpoint_that_a_verdict_disabled_gets_nothing_before_the_configuration_says_so_itself() -> None:
    parts = Parts()
    parts.registry.disable(parts.record)
    parts.registry.learn(snapshot(ENDPOINT, version=2))
    assert state_of(parts.record) is EndpointState.DISABLED
    parts.registry.disabled([parts.record], version=3)
    assert state_of(parts.record) is EndpointState.DISABLED
    parts.registry.learn(snapshot(ENDPOINT, version=3))
    assert state_of(parts.record) is EndpointState.ENABLED


def test_where_the_lease_was_lost_before_the_verdict_was_written_the_configuration_counts_again() -> None:
    parts = Parts()
    parts.registry.disable(parts.record)
    parts.registry.disabled([parts.record], version=1)
    assert state_of(parts.record) is EndpointState.ENABLED


def test_endpoints_of_one_tenant_share_its_count() -> None:
    parts = Parts()
    other = replace(ENDPOINT, id=UUID(int=9))
    stranger = replace(ENDPOINT, id=UUID(int=10), tenant_id=UUID(int=2))
    parts.registry.learn(snapshot(ENDPOINT, other, stranger))
    assert parts.registry.of(other.id).tenant is parts.record.tenant
    assert parts.registry.of(stranger.id).tenant is not parts.record.tenant


def test_of_a_death_only_who_asked_for_it_hears_and_never_of_the_gateways_own_events() -> None:
    parts = Parts(changes={"event_types": ("lab_result.*",)})
    assert not parts.registry.wants_dead_delivery_events(delivery())
    parts.registry.learn(snapshot(replace(ENDPOINT, event_types=("gateway.delivery_dead",)), version=2))
    assert parts.registry.wants_dead_delivery_events(delivery())


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_each_type_has_one_worker_that_offers_to_send_it_and_each_worker_some(workers: int) -> None:
    tenant_id, types = uuid4(), [f"lab_result.kind_{n}" for n in range(100)]
    known = [Registry() for _ in range(workers)]
    for rank, registry in enumerate(known):
        registry.share_with(rank, workers)
    first = [[registry.is_first_for(tenant_id, one) for registry in known] for one in types]
    assert all(sum(one) == 1 for one in first)
    assert all(map(any, zip(*first, strict=True)))
