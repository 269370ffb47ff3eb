"""How far down the outbox a scan goes."""

from __future__ import annotations

from itertools import count
from typing import Any, cast

import pytest

from webhook_gateway.delivery import watermark
from webhook_gateway.delivery.watermark import BOTTOM, LAG, SHARE, STEP, LowWaterMark

OPENED: dict[object, float] = {}
"""When which connection was."""
SESSION: Any = object()


class Clock:
    """Monotonic time that a test moves."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    known = Clock()
    OPENED[SESSION] = known.now
    monkeypatch.setattr(watermark, "monotonic", known)
    return known


def test_a_mark_follows_what_is_found_but_lags_since_a_transaction_may_commit_late(clock: Clock) -> None:
    known = LowWaterMark(OPENED.__getitem__)
    known.scanned(0, 0.0)
    assert known.value(SESSION) == 0
    for sequence in count(1):
        known.found(sequence)
        if known.value(SESSION):
            break
        clock.now += STEP
    assert clock.now - 1_000.0 == pytest.approx(LAG)
    assert known.value(SESSION) == 1


def test_what_a_slow_transaction_left_below_is_found_by_a_full_scan(clock: Clock) -> None:
    known = LowWaterMark(OPENED.__getitem__)
    assert known.value(SESSION) == 0
    known.scanned(0, 0.001)
    for sequence in range(100, 200):
        clock.now += STEP / 2
        known.found(sequence)
    assert known.value(SESSION) > 100
    clock.now += BOTTOM
    assert known.value(SESSION) == 0
    known.scanned(0, 0.001)
    known.found(7)
    clock.now += LAG
    known.found(300)
    assert known.value(SESSION) == 7


def test_full_scans_take_a_small_part_of_the_time_however_long_one_takes(clock: Clock) -> None:
    known = LowWaterMark(OPENED.__getitem__)
    known.found(100)
    clock.now += LAG
    known.found(200)
    known.scanned(0, 3.0)
    clock.now += 3.0 * SHARE - 1
    assert known.value(SESSION) == 200
    clock.now += 1
    assert known.value(SESSION) == 0


def test_a_connection_that_is_newer_than_what_was_found_begins_at_the_bottom(clock: Clock) -> None:
    known, newer = LowWaterMark(OPENED.__getitem__), cast("Any", object())
    OPENED[newer] = clock.now + LAG
    known.scanned(0, 0.0)
    known.found(100)
    clock.now += LAG
    assert known.value(newer) == 0
    known.found(200)
    assert known.value(SESSION) == 100
    assert known.value(newer) == 0
    clock.now += LAG
    known.found(300)
    assert known.value(newer) == 200


def test_what_lags_counts_when_its_time_has_come_though_nothing_else_is_found(clock: Clock) -> None:
    known = LowWaterMark(OPENED.__getitem__)
    assert known.for_others(SESSION) == -1
    known.found(0)
    assert known.for_others(SESSION) == -1
    clock.now += LAG
    assert known.for_others(SESSION) == 0
