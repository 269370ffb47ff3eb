"""When a failing endpoint is left alone, and when it is asked again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules import breaker
from webhook_gateway.rules.model import Health

FRESH = Health()


def failing(times: int, health: Health = FRESH, start: float = 1000.0, gap: float = 1.0) -> Health:
    for count in range(times):
        health = breaker.after_failure(health, start + count * gap)
    return health


def test_nine_failures_in_a_row_leave_it_closed_and_the_tenth_opens_it() -> None:
    assert failing(9, gap=31).open_until is None
    assert breaker.is_open(failing(10, gap=31), 1000.0 + 9 * 31)


def test_half_of_those_in_thirty_seconds_open_it() -> None:
    health = FRESH
    for count in range(5):
        health = breaker.after_failure(breaker.after_success(health, 1000.0 + count), 1000.5 + count)
    assert breaker.is_open(health, 1005.0)


def after(steps: str, health: Health, start: float, gap: float = 0.1) -> Health:
    """What successes (S) and failures (F) make of it, one each ``gap`` seconds."""
    for count, step in enumerate(steps):
        health = (breaker.after_success if step == "S" else breaker.after_failure)(health, start + count * gap)
    return health


def test_half_of_ten_opens_it_and_less_or_fewer_do_not() -> None:
    assert after("SFSFSFSFSF", FRESH, 1000.0).open_until is not None
    assert after("SSSFSFSFSF", FRESH, 1000.0).open_until is None
    assert after("FSFSFSFSF", FRESH, 1000.0).open_until is None


def test_what_began_thirty_seconds_ago_counts_no_more() -> None:
    nine = after("SFSFSFSFS", FRESH, 1000.0)
    assert breaker.after_failure(nine, 1029.999).open_until is not None
    assert breaker.after_failure(nine, 1030.0).open_until is None


def test_after_an_opening_counting_begins_anew_with_the_probe() -> None:
    closed = breaker.after_success(failing(10, gap=0.0), 1005.0)
    assert after("FSFSFSFF", closed, 1006.0).open_until is None
    assert after("SSFSFSFSF", closed, 1006.0).open_until is None
    assert after("FSFSFSFSF", closed, 1006.0).open_until is not None


def test_few_failures_among_many_successes_leave_it_closed() -> None:
    health = FRESH
    for count in range(100):
        step = breaker.after_failure if count % 3 == 0 else breaker.after_success
        health = step(health, 1000.0 + count / 10)
    assert health.open_until is None


def test_open_for_five_seconds_then_after_each_probe_that_fails_twice_as_long_up_to_five_minutes() -> None:
    health, now = failing(10, gap=0.0), 1000.0
    for seconds in [5, 10, 20, 40, 80, 160, 300, 300]:
        assert health.open_until == now + seconds
        now = health.open_until
        assert breaker.is_open(health, now - 0.001)
        assert not breaker.is_probing(health, now - 0.001)
        assert breaker.is_probing(health, now)
        assert not breaker.is_open(health, now)
        health = breaker.after_failure(health, now)


def test_a_probe_that_succeeds_closes_it_and_the_next_opening_is_a_short_one_again() -> None:
    closed = breaker.after_success(breaker.after_failure(failing(10, gap=0.0), 1005.0), 2000.0)
    assert (closed.open_until, closed.failures_in_a_row, closed.failing_since) == (None, 0, None)
    assert failing(9, closed, 3000.0, gap=0.0).open_until is None
    assert failing(10, closed, 3000.0, gap=0.0).open_until == 3005.0


def test_a_success_ends_no_silence_that_was_asked_for_before_its_time() -> None:
    held = Health(retry_after_until=1000.0)
    assert breaker.after_success(held, 999.999).retry_after_until == 1000.0
    assert breaker.after_success(held, 1000.0).retry_after_until is None


def test_failures_of_requests_begun_before_it_opened_are_no_news() -> None:
    opened = failing(10, gap=0.0)
    assert breaker.after_failure(opened, 1001.0).open_until == opened.open_until


def test_days_on_which_it_failed_are_counted_from_its_first_failure_and_end_with_a_success() -> None:
    day = 86_400.0
    health = failing(3, gap=day / 2)
    assert health.failing_days == 0b11
    health = breaker.after_failure(health, 1000.0 + 2 * day - 0.001)
    assert health.failing_days == 0b11
    health = breaker.after_failure(health, 1000.0 + 4 * day)
    assert health.failing_days == 0b10011
    assert breaker.after_failure(health, 1000.0 + 4 * day).failing_days == 0b10011
    assert breaker.after_failure(failing(1), 999.0).failing_days == 0b1
    assert breaker.after_success(health, 1000.0 + 4 * day).failing_days == 0


def test_days_long_after_the_first_failure_count_as_one_and_fit_into_the_column() -> None:
    day = 86_400.0
    assert breaker.after_failure(failing(1), 1000.0 + 30 * day - 0.001).failing_days == 0b1 | 1 << 29
    late = breaker.after_failure(failing(1), 1000.0 + 30 * day)
    assert late.failing_days == 0b1 | 1 << 30 < 2**31
    assert breaker.after_failure(late, 1000.0 + 1000 * day).failing_days == late.failing_days


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 60)), max_size=200))
def test_an_opening_never_lasts_longer_than_five_minutes(steps: list[tuple[bool, float]]) -> None:
    health, now = FRESH, 1000.0
    for succeeded, gap in steps:
        now += gap
        health = (breaker.after_success if succeeded else breaker.after_failure)(health, now)
        assert health.open_until is None or health.open_until <= now + breaker.LONGEST_OPENING
        assert 0 <= health.window_failed <= health.window_total
        assert (health.failing_since is None) == (health.failures_in_a_row == 0)


@pytest.mark.parametrize(
    ("later", "day"), [(-1.0, 0), (0.0, 0), (0.999, 0), (1.0, 1), (29.5, 29), (30.0, 30), (500.0, 30)]
)
def test_the_days_of_a_failing_endpoint_are_counted_from_its_first_failure_up_to_thirty(later: float, day: int) -> None:
    first = breaker.after_failure(FRESH, 1_000_000.0)
    assert first.failing_days == 1
    assert breaker.after_failure(first, 1_000_000.0 + later * 86_400).failing_days == 1 | 1 << day
