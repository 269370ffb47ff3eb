"""What is due when, and from where a claim looks for it."""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic, time

import pytest

from webhook_gateway.delivery.due import RECENT
from webhook_gateway.delivery.registry import LONG_AGO
from webhook_gateway.delivery.watermark import LAG

from .parts import ENDPOINT, Parts, snapshot


def scan(parts: Parts, *, first: float | None, full: bool = True) -> datetime:
    """A scan that finds the endpoint's first delivery due so many seconds ago; the new low-water mark."""
    found = {} if first is None else {ENDPOINT.id: datetime.fromtimestamp(parts.clock.now() - first, UTC)}
    parts.due.scanned(found, monotonic(), None if full else {ENDPOINT.id})
    return parts.due.low_water_marks()[ENDPOINT.id]


def parts_that_know_the_time() -> Parts:
    parts = Parts()
    parts.clock.set(time())
    parts.due.expect(parts.record)
    return parts


def test_claims_begin_where_the_last_scan_found_something_and_a_full_scan_takes_the_mark_down() -> None:
    parts = parts_that_know_the_time()
    found = scan(parts, first=300.0)
    (reservation,) = parts.slots.reserve()
    assert reservation.record.low_water_mark == found
    parts.slots.claimed(reservation, got=0)
    higher = scan(parts, first=20.0, full=False)
    assert higher > found
    assert scan(parts, first=500.0) < found


def test_a_mark_stays_below_what_a_transaction_under_way_may_still_bring() -> None:
    parts = parts_that_know_the_time()
    for first in (None, 0.0, -3600.0):  # nothing, something new, something leased
        assert scan(parts, first=first).timestamp() == pytest.approx(parts.clock.now() - LAG, abs=0.1)


def test_a_clock_that_nobody_has_checked_moves_no_mark() -> None:
    parts = Parts()
    parts.due.expect(parts.record)
    assert scan(parts, first=300.0) == LONG_AGO


def test_of_an_endpoint_that_had_nothing_to_send_only_what_is_recent_is_looked_for() -> None:
    parts = Parts()
    mark = parts.due.low_water_marks()[ENDPOINT.id]
    assert mark.timestamp() == pytest.approx(parts.clock.now() - RECENT, abs=1)


def test_what_was_learnt_after_a_scan_began_outlives_it() -> None:
    parts = Parts()
    began = monotonic()
    parts.due.expect(parts.record)
    parts.due.scanned({}, began)
    assert [record for _, record in parts.due.in_rotation(parts.clock.now())] == [parts.record]
    parts.due.scanned({}, monotonic())
    assert len(parts.due) == 0


def test_what_was_learnt_after_a_claim_began_outlives_it() -> None:
    parts = Parts()
    began = monotonic()
    parts.due.expect(parts.record)
    parts.due.exhausted(parts.record, began)
    assert len(parts.due) == 1
    parts.due.exhausted(parts.record, monotonic())
    assert len(parts.due) == 0


def test_what_is_due_later_is_not_claimed_before() -> None:
    parts = Parts()
    parts.due.expect(parts.record, 60.0)
    now = parts.clock.now()
    assert list(parts.due.in_rotation(now)) == []
    assert parts.due.next_after(now) == pytest.approx(now + 60, abs=1)
    assert list(parts.due.in_rotation(now + 61)) == [(parts.record.endpoint, parts.record)]


def test_open_deliveries_of_an_endpoint_that_is_gone_are_told() -> None:
    parts = Parts()
    parts.due.expect(parts.record)
    assert parts.due.unknown() == []
    parts.registry.learn(snapshot(version=2))
    assert parts.due.unknown() == [ENDPOINT.id]
    assert list(parts.due.in_rotation(parts.clock.now())) == []


def test_a_slot_that_is_free_again_wakes_a_claim_only_where_something_is_due() -> None:
    parts = parts_that_know_the_time()
    scan(parts, first=-3600.0)  # leased
    parts.slots.reserve()
    parts.due.changed.clear()
    parts.due.look_again()
    assert not parts.due.changed.is_set()
    scan(parts, first=1.0)
    parts.due.changed.clear()
    parts.due.look_again()
    assert parts.due.changed.is_set()
