"""Who may send how much: the accounting of slots, apart from any worker."""

from __future__ import annotations

import math
from dataclasses import replace
from time import monotonic
from uuid import uuid4

import pytest
from msgspec import structs

from webhook_gateway.delivery import health, occupancy, registry, slots
from webhook_gateway.delivery.health import PROVEN
from webhook_gateway.delivery.queue import CLAIMED, NEW, PACED, PREFETCH, QUEUED
from webhook_gateway.delivery.registry import EndpointRecord, Leased
from webhook_gateway.rules.credentials import ClientCredentials
from webhook_gateway.rules.deadlines import (
    LEASE_MARGIN,
    LONGEST_DEADLINE,
    SETTLING,
    TOKEN_DEADLINE,
    WORKER_DRAINS_WITHIN,
)
from webhook_gateway.rules.model import EndpointState, Health
from webhook_gateway.rules.outcome import Accepted, Phase, TimedOut
from webhook_gateway.store import clock

from .parts import BODY, ENDPOINT, Parts, delivery, snapshot


def test_a_claim_takes_the_endpoints_slots_and_frees_what_it_did_not_need() -> None:
    parts = Parts()
    found = parts.claim(has=4)
    assert parts.begin(*found) == 4
    assert parts.slots.in_flight == 4
    assert len(parts.claim(has=100)) == 6


def test_a_claim_that_fails_takes_nothing() -> None:
    parts = Parts()
    parts.due.expect(parts.record)
    reservations = parts.slots.reserve()
    assert parts.slots.in_flight == 10
    for reservation in reservations:
        parts.slots.claimed(reservation, got=0)
    assert parts.slots.in_flight == 0


def test_nobody_takes_the_last_slots_of_a_worker() -> None:
    parts = Parts(concurrency=16, changes={"slots": 1000})
    parts.record.health.accepted_at = monotonic()
    assert len(parts.claim(has=1000)) == 8


def hanging(parts: Parts, count: int, failures: int = 0) -> list[EndpointRecord]:
    """So many endpoints with as much due as they may send, in a worker that has given them all they may have.

    ``failures`` are those in a row that each has had before.
    """
    many = [replace(ENDPOINT, id=uuid4()) for _ in range(count)]
    parts.registry.learn(snapshot(ENDPOINT, *many, version=2))
    records = [parts.registry.of(endpoint.id) for endpoint in many]
    for record in records:
        record.health.current = Health(failures_in_a_row=failures)
        parts.due.expect(record)
    while reservations := parts.slots.reserve():
        for reservation in reservations:
            parts.slots.claimed(reservation, got=reservation.slots)
            parts.begin(*[Leased(reservation.record, delivery()) for _ in range(reservation.slots)])
    for record in records:
        parts.due.exhausted(record, monotonic())
    return records


@pytest.mark.parametrize(("failures", "quarters"), [(0, 3), (1, 2)])
@pytest.mark.parametrize("concurrency", [1, 2, 3, 16, 256])
def test_endpoints_that_fail_take_half_of_a_workers_slots_together_and_unknown_ones_a_quarter_more(
    concurrency: int, failures: int, quarters: int
) -> None:
    parts = Parts(concurrency=concurrency)
    hanging(parts, 300, failures)
    assert parts.slots.in_flight == math.ceil(concurrency * quarters / 4)


def test_an_unknown_endpoint_finds_a_slot_beside_any_number_that_fail() -> None:
    parts = Parts(concurrency=64)
    hanging(parts, 300, failures=1)
    parts.record.health.accepted_at = -math.inf
    assert 0 < len(parts.claim(has=1000)) <= 10


def test_nor_does_one_whose_last_2xx_is_five_minutes_ago_take_more() -> None:
    for seconds, most in [(PROVEN - 10, 10), (PROVEN, 0)]:
        parts = Parts()
        hanging(parts, 300)
        parts.record.health.accepted_at = monotonic() - seconds
        assert len(parts.claim(has=1000)) == most


def test_a_newcomer_has_its_slots_beside_those_that_answer_and_one_that_hangs() -> None:
    parts = Parts()
    parts.record.health.accepted_at = monotonic()
    parts.registry.learn(snapshot(replace(ENDPOINT, slots=1000), version=2))
    assert len(parts.claim(has=1000)) == 128
    newcomers = hanging(parts, 2)
    assert [record.in_flight for record in newcomers] == [10, 10]


@pytest.mark.parametrize("answered_before", [True, False])
def test_endpoints_that_begin_to_hang_leave_slots_to_those_that_answer_within_seconds(
    answered_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = monotonic()
    for module in (clock, registry, slots, occupancy, health):
        monkeypatch.setattr(module, "monotonic", lambda: now)
    parts = Parts()
    many = [replace(ENDPOINT, id=uuid4()) for _ in range(300)]
    parts.registry.learn(snapshot(ENDPOINT, *many, version=2))
    for endpoint in many:
        record = parts.registry.of(endpoint.id)
        record.health.duration = 0.02
        if answered_before:
            record.health.note(Accepted(200), 0.02, Health(), share=10)
        parts.due.expect(record)
    parts.due.expect(parts.record)  # healthy, and new here, too

    def claim_all() -> int:
        """How many slots the healthy one got; everybody else hangs."""
        got = 0
        while reservations := parts.slots.reserve():
            for reservation in reservations:
                parts.slots.claimed(reservation, got=reservation.slots)
                parts.begin(*[Leased(reservation.record, delivery()) for _ in range(reservation.slots)])
                if reservation.record is parts.record:
                    got += reservation.slots
                    for _ in range(reservation.slots):
                        parts.record.health.note(Accepted(200), 0.02, Health(), share=10)
                        parts.slots.next_or_free(parts.record, goes_on=False)
                    if got >= 20:
                        return got
        return got

    got = []
    for _ in range(12):
        got.append(claim_all())
        now += 1.1
    assert all(one >= 20 for one in got[4:]), got
    assert parts.slots.in_flight <= occupancy.MOST * 256
    for record in list(parts.registry):
        while record.in_flight:
            parts.slots.next_or_free(record, goes_on=False)
    taken = parts.slots._taken
    assert (taken.in_flight, taken.unproven, taken.hanging) == (0, 0, 0)


def test_a_slow_endpoint_does_not_hang() -> None:
    parts = Parts()
    for _ in range(60):
        parts.record.health.note(Accepted(200), 10.0, Health(), share=10)
    parts.begin(*parts.claim(has=10))
    parts.record.standing.moved_at -= 15
    parts.slots.reserve()
    assert parts.record.standing.hanging == 0
    parts.record.standing.moved_at -= 15
    parts.slots._taken._looked_at = 0
    parts.slots.reserve()
    assert parts.record.standing.hanging == 10


def test_with_its_first_2xx_an_endpoint_leaves_the_half_of_those_that_do_not_answer() -> None:
    parts = Parts()
    first, *others = hanging(parts, 300)
    assert first.standing.unproven == first.in_flight > 0
    first.health.note(Accepted(200), 0.1, Health(), share=10)
    parts.slots.next_or_free(first, goes_on=True)
    assert first.standing.unproven == 0
    assert parts.slots._taken.unproven == sum(record.standing.unproven for record in others) < 192
    parts.due.expect(first)
    (reservation,) = parts.slots.reserve()
    assert reservation.record is first
    assert first.in_flight == 10
    for record in others:
        while record.in_flight:
            parts.slots.next_or_free(record, goes_on=False)
    assert parts.slots._taken.unproven == 0


def test_deliveries_of_an_endpoint_faster_than_a_claim_are_prefetched_and_never_over_its_slots() -> None:
    parts = Parts()
    parts.answer_quickly()
    parts.due.expect(parts.record, -2 * NEW)
    found = parts.claim(has=1000)
    assert len(found) == 10 + 10 * PREFETCH
    assert parts.begin(*found) == 10
    for _ in range(10 * PREFETCH):
        assert parts.slots.next_or_free(parts.record, goes_on=True) is not None
        assert parts.slots.in_flight == 10
    for _ in range(10):
        assert parts.slots.next_or_free(parts.record, goes_on=True) is None
    assert parts.slots.in_flight == 0


def lease_as_they_come(parts: Parts, most: int, body: bytes = BODY) -> int:
    """How many deliveries that are made one after the other are leased, of so many."""
    leased = [Leased(parts.record, delivery()) for _ in range(most) if parts.slots.lease_on_insert(parts.record)]
    for one in leased:
        parts.slots.begin(one, body)
    parts.slots.inserted(one.record for one in leased)
    return len(leased)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_comes_in_is_leased_as_it_comes_up_to_some_time_of_its_endpoints_own_pace(workers: int) -> None:
    parts = Parts()
    for _ in range(100):
        parts.record.health.note(Accepted(200), 0.01, Health(), share=10)
    parts.registry.share_with(0, workers)
    share = len(Parts().claim(has=10)) // workers
    room = share / 0.01 * PACED * LEASE_MARGIN / workers
    leased = lease_as_they_come(parts, 10_000)
    assert leased == pytest.approx(share + room, abs=2)
    assert leased > share + share * PREFETCH
    assert lease_as_they_come(parts, 10) == 0


def test_what_waits_in_memory_of_all_endpoints_together_has_an_end() -> None:
    parts = Parts(concurrency=32)
    parts.answer_quickly()
    assert lease_as_they_come(parts, 10_000) == 10 + 32 * PREFETCH
    for _ in range(100):
        parts.slots.next_or_free(parts.record, goes_on=True)
    assert lease_as_they_come(parts, 10_000) == 100
    assert len(parts.slots.orphaned(stopping=True)) == 32 * PREFETCH
    assert lease_as_they_come(parts, 10_000) == 32 * PREFETCH


def test_large_bodies_wait_in_memory_by_fewer() -> None:
    parts = Parts()
    parts.answer_quickly()
    lease_as_they_come(parts, 100)
    lease_as_they_come(parts, 1_000, body := b"x" * 262_144)
    assert lease_as_they_come(parts, 100, body) == 0
    while parts.record.prefetched:
        parts.slots.next_or_free(parts.record, goes_on=True)
    assert lease_as_they_come(parts, 1_000, body) <= 10 + 10 * PREFETCH


def test_what_has_just_come_to_wait_is_claimed_by_many_and_an_old_backlog_by_few() -> None:
    parts = Parts()
    parts.answer_quickly()
    assert len(parts.claim(has=1000)) == 10 + CLAIMED
    parts = Parts()
    parts.answer_quickly()
    parts.due.expect(parts.record, -2 * NEW)
    assert len(parts.claim(has=1000)) == 10 + 10 * PREFETCH


def test_what_was_prefetched_and_became_too_late_is_not_sent() -> None:
    parts = Parts(lease_margin=0.0)
    parts.answer_quickly()
    parts.begin(*parts.claim(has=20))
    assert parts.slots.next_or_free(parts.record, goes_on=True) is None
    assert len(parts.slots.orphaned()) == 10


def test_what_was_prefetched_begins_at_once_where_a_slot_is_free_by_then() -> None:
    parts = Parts()
    parts.answer_quickly()
    first = parts.claim(has=10)
    parts.begin(*first)
    prefetched = parts.claim(has=5)
    for _ in first:
        parts.slots.next_or_free(parts.record, goes_on=False)
    assert parts.begin(*prefetched) == 5


@pytest.mark.parametrize("workers", [2, 4, 16])
def test_the_workers_parts_of_an_endpoints_slots_add_up(workers: int) -> None:
    shares = []
    for rank in range(workers):
        parts = Parts()
        parts.registry.share_with(rank, workers)
        shares.append(len(parts.claim(has=1000)))
    assert sum(shares) == 10


def test_an_endpoint_that_hung_gets_its_slots_back_from_every_worker() -> None:
    for rank in range(4):
        parts = Parts()
        parts.registry.share_with(rank, 4)
        for _ in range(20):
            parts.record.health.note(TimedOut(Phase.SENT), 15.0, Health(), share=3)
        share = len(parts.claim(has=1000))
        assert share >= 1
        for _ in range(20):
            parts.record.health.note(Accepted(200), 1.0, Health(), share=3)
        assert len(parts.claim(has=1000)) + share in {2, 3}


def test_a_rate_that_a_claim_did_not_use_is_not_lost() -> None:
    parts = Parts(changes={"rate": 1.0})
    assert parts.claim(has=0) == []
    assert len(parts.claim(has=1)) == 1


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("rate", [0.4, 1.0, 2.5, 20.0, 53.0, 1000.0])
def test_no_second_has_more_requests_than_the_rate_not_even_the_first_and_together_they_reach_it(
    rate: float, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = monotonic()
    for module in (clock, registry, slots):
        monkeypatch.setattr(module, "monotonic", lambda: now)
    every = [Parts(concurrency=100_000, changes={"rate": rate, "slots": 10_000}) for _ in range(workers)]
    for rank, parts in enumerate(every):
        parts.record.health.accepted_at = now
        parts.registry.share_with(rank, workers)
    begun: list[float] = []
    ends = now + 40 / min(rate, 10)
    while now < ends:
        again = []
        for parts in every:
            while found := parts.begin(*parts.claim(has=10_000)):
                begun += [now] * found
                for _ in range(found):
                    parts.slots.next_or_free(parts.record, goes_on=False)
            if (at := parts.slots.allowed_again()) is not None:
                again.append(at - parts.clock.at(0.0))
        now = max(min(again), now + 0.001)  # as `Claiming` sleeps
    most = math.ceil(rate)
    assert all(later - at > 0.999_999 for at, later in zip(begun, begun[most:], strict=False))
    assert len(begun) >= 0.97 * rate * (ends - begun[0])


def test_a_worker_whose_part_of_a_rate_is_nothing_does_not_wait_for_it() -> None:
    parts = [Parts(changes={"rate": 1.0}) for _ in range(2)]
    for rank, one in enumerate(parts):
        one.registry.share_with(rank, 2)
    assert sorted(len(one.claim(has=9)) for one in parts) == [0, 1]
    assert [one.claim(has=9) for one in parts] == [[], []]
    assert sorted(one.slots.allowed_again() is None for one in parts) == [False, True]


def test_where_many_wait_each_gets_a_little_and_who_got_nothing_is_the_next() -> None:
    parts = Parts(concurrency=40)
    many = [replace(ENDPOINT, id=uuid4()) for _ in range(100)]
    parts.registry.learn(snapshot(*many))
    for endpoint in many:
        parts.due.expect(parts.registry.of(endpoint.id))
        parts.registry.of(endpoint.id).health.accepted_at = monotonic()
    first = parts.slots.reserve()
    assert [reservation.slots for reservation in first] == [1] * 40
    for reservation in first:
        parts.slots.claimed(reservation, got=0)
    second = parts.slots.reserve()
    assert {one.record.id for one in first}.isdisjoint(one.record.id for one in second)


def test_a_place_to_prefetch_on_insert_is_free_again_once_what_was_inserted_has_begun() -> None:
    parts = Parts()
    parts.answer_quickly()
    for _ in range(300):
        leases = [parts.slots.lease_on_insert(parts.record) for _ in range(12)]
        parts.begin(*[Leased(parts.record, delivery()) for lease in leases if lease is not None])
        parts.slots.inserted([parts.record] * 12)
        assert None not in leases
        while parts.slots.in_flight:
            parts.slots.next_or_free(parts.record, goes_on=True)


def test_a_round_that_ends_gives_no_place_away_that_another_has_to_prefetch_into() -> None:
    parts = Parts()
    parts.answer_quickly()
    slow = [Leased(parts.record, delivery()) for _ in range(13) if parts.slots.lease_on_insert(parts.record)]
    room = parts.record.prefetching
    assert parts.slots.lease_on_insert(parts.record)
    parts.begin(Leased(parts.record, delivery()))
    parts.slots.inserted([parts.record])
    assert parts.record.prefetching == room > 0
    parts.begin(*slow)
    parts.slots.inserted(one.record for one in slow)
    assert parts.record.prefetching == 0


def test_what_was_leased_on_insert_and_is_not_sent_takes_nothing() -> None:
    parts = Parts()
    parts.answer_quickly()
    leases = [parts.slots.lease_on_insert(parts.record) for _ in range(12)]
    for _ in leases:
        parts.slots.not_sent(parts.record)
    assert (parts.slots.in_flight, parts.record.in_flight, parts.record.prefetching) == (0, 0, 0)


def test_an_endpoint_with_a_rate_has_nothing_leased_but_by_claims() -> None:
    parts = Parts(changes={"rate": 5.0})
    parts.answer_quickly()
    assert parts.slots.lease_to_follow(parts.record) is None


def test_where_the_tenant_has_no_slot_left_nothing_is_prefetched() -> None:
    parts = Parts(per_tenant=10)
    other = replace(ENDPOINT, id=uuid4())
    parts.registry.learn(snapshot(ENDPOINT, other))
    record = parts.registry.of(other.id)
    assert sum(parts.slots.lease_on_insert(record) is not None for _ in range(20)) == 10
    parts.answer_quickly()
    parts.due.expect(parts.record)
    assert parts.slots.reserve() == []


def test_a_stop_waits_for_the_longest_request_under_way_and_for_its_token() -> None:
    parts = Parts(changes={"deadline": LONGEST_DEADLINE, "authorization": ClientCredentials("https://a/", "b", "c")})
    assert parts.slots.longest_request() == 0
    parts.claim(has=1)
    assert parts.slots.longest_request() == LONGEST_DEADLINE + TOKEN_DEADLINE
    assert parts.slots.longest_request() + SETTLING == WORKER_DRAINS_WITHIN


def test_what_waits_for_a_slot_leaves_the_lease_long_enough_for_the_token_and_the_request() -> None:
    assert QUEUED * LEASE_MARGIN + TOKEN_DEADLINE < LEASE_MARGIN


def test_what_is_leased_of_a_deleted_endpoint_takes_no_slot() -> None:
    parts = Parts()
    (leased,) = parts.claim(has=1)
    parts.registry.learn(snapshot(version=2))
    assert parts.slots.begin(leased, BODY)
    assert parts.slots.next_or_free(parts.record, goes_on=True) is None
    assert (parts.slots.in_flight, parts.record.tenant.in_flight) == (0, 0)


def test_past_an_open_breaker_goes_one_test_at_a_time_and_nothing_else() -> None:
    parts = Parts()
    parts.record.health.current = Health(failures_in_a_row=10, open_until=parts.clock.now() + 60)
    assert parts.slots.lease_on_insert(parts.record) is None
    assert parts.slots.lease_on_insert(parts.record, test=True) is not None
    assert parts.begin(a_test(parts)) == 1
    assert parts.slots.lease_on_insert(parts.record, test=True) is not None, "it waits in memory for the first one"
    assert parts.begin(a_test(parts)) == 0
    assert parts.slots.in_flight == 1
    assert parts.slots.next_or_free(parts.record, goes_on=True) is not None
    assert parts.slots.next_or_free(parts.record, goes_on=True) is None
    assert parts.slots.in_flight == 0


def test_a_test_goes_before_what_waits_in_the_next_slot_that_is_free() -> None:
    parts = Parts()
    parts.answer_quickly()
    parts.begin(*parts.claim(has=50))
    parts.due.expect(parts.record)
    assert parts.slots.lease_on_insert(parts.record) is None
    assert parts.slots.lease_on_insert(parts.record, test=True) is not None
    assert parts.begin(tested := a_test(parts)) == 0, "all slots are taken"
    following = parts.slots.next_or_free(parts.record, goes_on=True)
    assert following is not None
    assert following.delivery is tested.delivery


@pytest.mark.parametrize(
    "changes",
    [
        {"state": EndpointState.PAUSED},
        {"state": EndpointState.DISABLED},
        {"maintenance": (0.0, math.inf)},
        {"slots": 0},
        {"rate": 0.001},
    ],
)
def test_a_test_goes_past_nothing_that_somebody_has_set(changes: dict[str, object]) -> None:
    parts = Parts(changes=changes)
    if "rate" in changes:
        assert parts.slots.lease_on_insert(parts.record, test=True) is not None, "the first token"
        assert parts.begin(a_test(parts)) == 1
    assert parts.slots.lease_on_insert(parts.record, test=True) is None


def a_test(parts: Parts) -> Leased:
    return Leased(parts.record, structs.replace(delivery(), reason="test"))
