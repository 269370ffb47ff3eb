"""Who may send how much: the accounting of slots, apart from any worker."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic, time
from uuid import UUID, uuid4

import pytest

from webhook_gateway.delivery.slots import AHEAD, LONG_AGO, Slots
from webhook_gateway.delivery.watermark import LAG
from webhook_gateway.rules.model import Delivery, Endpoint, Health
from webhook_gateway.rules.outcome import Accepted, Phase, TimedOut
from webhook_gateway.rules.verdict import Done, RetryAt, Verdict
from webhook_gateway.store.configuration import Snapshot

TENANT = UUID(int=1)
ENDPOINT = Endpoint(UUID(int=8), TENANT, TENANT, 1, "https://partner.example/hook", ("*",))
BODY = b"{}"


def slots(concurrency: int = 256, **changes: object) -> Slots:
    known = Slots(concurrency)
    known.learn(Snapshot(1, {ENDPOINT.id: replace(ENDPOINT, **changes)}, frozenset(), None))  # type: ignore[arg-type]
    return known


def delivery() -> Delivery:
    return Delivery(uuid4(), TENANT, ENDPOINT.id, uuid4(), "lab_result.final", 1, uuid4())


def claim(known: Slots, has: int) -> list[Delivery]:
    """A claim that finds ``has`` due deliveries at most."""
    began = monotonic()
    known.touch(ENDPOINT.id)
    wanted = known.wanted()
    found = [delivery() for _ in range(min(has, sum(want.free for want in wanted)))]
    known.claimed(wanted, found, [datetime.now(UTC)] * len(found), began)
    return found


def answer_quickly(known: Slots) -> None:
    for _ in range(60):
        known.note(ENDPOINT, Accepted(200), 0.001, Verdict(Done(), Health()))


def test_a_claim_takes_the_endpoints_slots_and_gives_back_what_it_did_not_need() -> None:
    known = slots()
    found = claim(known, has=4)
    assert all(known.begin(one, BODY) for one in found)
    assert known.in_flight == 4
    assert len(claim(known, has=100)) == 6


def test_a_claim_that_fails_takes_nothing() -> None:
    known = slots()
    known.touch(ENDPOINT.id)
    assert known.wanted()
    assert known.in_flight == 10
    known.claim_failed()
    assert known.in_flight == 0


def test_nobody_takes_the_last_slots_of_a_worker() -> None:
    assert len(claim(slots(concurrency=16, slots=1000), has=1000)) == 8


def test_an_endpoint_faster_than_a_claim_is_leased_ahead_and_never_over_its_slots() -> None:
    known = slots()
    answer_quickly(known)
    found = claim(known, has=1000)
    assert len(found) == 10 + 10 * AHEAD
    assert sum(known.begin(one, BODY) for one in found) == 10
    for _ in range(10 * AHEAD):
        assert known.next_or_end(ENDPOINT.id, goes_on=True) is not None
        assert known.in_flight == 10
    for _ in range(10):
        assert known.next_or_end(ENDPOINT.id, goes_on=True) is None
    assert known.in_flight == 0


def test_what_was_leased_ahead_and_became_too_late_is_not_sent() -> None:
    known = Slots(256, lease_margin=0.0)
    known.learn(Snapshot(1, {ENDPOINT.id: ENDPOINT}, frozenset(), None))
    answer_quickly(known)
    found = claim(known, has=20)
    for one in found:
        known.begin(one, BODY)
    assert known.next_or_end(ENDPOINT.id, goes_on=True) is None
    assert len(known.stranded()) == 10


def test_what_was_leased_ahead_begins_at_once_where_a_slot_is_free_by_then() -> None:
    known = slots()
    answer_quickly(known)
    first = claim(known, has=10)
    for one in first:
        known.begin(one, BODY)
    ahead = claim(known, has=5)
    for _ in first:
        known.end(ENDPOINT.id)
    assert all(known.begin(one, BODY) for one in ahead)


@pytest.mark.parametrize("workers", [2, 4, 16])
def test_the_workers_parts_of_an_endpoints_slots_add_up(workers: int) -> None:
    parts = []
    for rank in range(workers):
        known = slots()
        known.share_with(rank, workers)
        parts.append(len(claim(known, has=1000)))
    assert sum(parts) == 10


def test_an_endpoint_that_hung_gets_its_slots_back_from_every_worker() -> None:
    for rank in range(4):
        known = slots()
        known.share_with(rank, 4)
        for _ in range(20):
            known.note(ENDPOINT, TimedOut(Phase.SENT), 15.0, Verdict(RetryAt(0.0), Health()))
        share = len(claim(known, has=1000))
        assert share >= 1
        for _ in range(20):
            known.note(ENDPOINT, Accepted(200), 1.0, Verdict(Done(), Health()))
        assert len(claim(known, has=1000)) + share in {2, 3}


def test_our_own_health_read_back_is_no_news() -> None:
    known = slots()
    health = Health(failures_in_a_row=1, failing_since=1000.0001, window_start=1000.0, window_total=9, window_failed=4)
    known.note(ENDPOINT, TimedOut(Phase.SENT), 1.0, Verdict(RetryAt(0.0), health))
    known.health_saved(known.changed_health())
    known.learn_health({ENDPOINT.id: Health(failures_in_a_row=1, failing_since=1000.0)})
    assert known.health(ENDPOINT.id).window_total == 9


def test_a_rate_that_a_claim_did_not_use_is_not_lost() -> None:
    known = slots(rate=1.0)
    assert claim(known, has=0) == []
    assert len(claim(known, has=1)) == 1


def test_where_many_wait_each_gets_a_little_and_who_got_nothing_is_the_next() -> None:
    known = Slots(40)
    many = [replace(ENDPOINT, id=uuid4()) for _ in range(100)]
    known.learn(Snapshot(1, {endpoint.id: endpoint for endpoint in many}, frozenset(), None))
    for endpoint in many:
        known.touch(endpoint.id)
    first = known.wanted()
    assert [want.free for want in first] == [1] * 40
    known.claim_failed()
    second = known.wanted()
    assert {want.endpoint_id for want in first}.isdisjoint(want.endpoint_id for want in second)


def test_a_place_ahead_is_free_again_once_what_was_born_has_begun() -> None:
    known = slots()
    answer_quickly(known)
    for _ in range(300):
        began = [known.begin(delivery(), BODY) for _ in range(12) if known.lease_at_birth(ENDPOINT) is not None]
        known.born([ENDPOINT.id])
        assert len(began) == 12
        while known.in_flight:
            known.next_or_end(ENDPOINT.id, goes_on=True)


def test_an_endpoint_with_a_rate_has_nothing_leased_but_by_claims() -> None:
    known = slots(rate=5.0)
    answer_quickly(known)
    assert known.lease_to_follow(known.snapshot.endpoints[ENDPOINT.id]) is None


def test_where_the_tenant_has_no_slot_left_nothing_is_leased_ahead() -> None:
    known = Slots(256, per_tenant=10)
    other = replace(ENDPOINT, id=uuid4())
    known.learn(Snapshot(1, {ENDPOINT.id: ENDPOINT, other.id: other}, frozenset(), None))
    assert sum(known.lease_at_birth(other) is not None for _ in range(20)) == 10
    answer_quickly(known)
    known.touch(ENDPOINT.id)
    assert known.wanted() == []


def look(known: Slots, *, first: float | None, complete: bool = True) -> datetime:
    """A look into the database that finds the endpoint's first delivery due so many seconds ago; the new floor."""
    due = {} if first is None else {ENDPOINT.id: datetime.fromtimestamp(known.now() - first, UTC)}
    known.expect(due, monotonic(), None if complete else {ENDPOINT.id})
    return known.floors()[ENDPOINT.id]


def test_claims_begin_where_the_last_look_found_something_and_a_complete_look_takes_the_floor_down() -> None:
    known = slots()
    known.set_clock(time())
    found = look(known, first=300.0)
    assert [want.floor for want in known.wanted()] == [found]
    known.claim_failed()
    higher = look(known, first=20.0, complete=False)
    assert higher > found
    assert look(known, first=500.0) < found


def test_a_floor_stays_below_what_a_transaction_under_way_may_still_bring() -> None:
    known = slots()
    known.set_clock(time())
    known.touch(ENDPOINT.id)
    for first in (None, 0.0, -3600.0):  # nothing, something new, something leased
        assert look(known, first=first).timestamp() == pytest.approx(known.now() - LAG, abs=0.1)


def test_a_clock_that_nobody_has_checked_moves_no_floor() -> None:
    known = slots()
    known.touch(ENDPOINT.id)
    assert look(known, first=300.0) == LONG_AGO
