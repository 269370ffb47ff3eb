"""When a failing endpoint is left alone, and when it is asked again."""

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


def test_few_failures_among_many_successes_leave_it_closed() -> None:
    health = FRESH
    for count in range(100):
        step = breaker.after_failure if count % 3 == 0 else breaker.after_success
        health = step(health, 1000.0 + count / 10)
    assert health.open_until is None


def test_open_then_one_probe_then_twice_as_long() -> None:
    opened = failing(10, gap=0.0)
    assert opened.open_until == 1000.0 + breaker.FIRST_OPENING
    later = 1000.0 + breaker.FIRST_OPENING
    assert breaker.is_probing(opened, later)
    again = breaker.after_failure(opened, later)
    assert again.open_until == later + 2 * breaker.FIRST_OPENING


def test_a_probe_that_succeeds_closes_it() -> None:
    closed = breaker.after_success(failing(10, gap=0.0), 2000.0)
    assert (closed.open_until, closed.failures_in_a_row, closed.failing_since) == (None, 0, None)


def test_failures_of_requests_begun_before_it_opened_are_no_news() -> None:
    opened = failing(10, gap=0.0)
    assert breaker.after_failure(opened, 1001.0).open_until == opened.open_until


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 60)), max_size=200))
def test_an_opening_never_lasts_longer_than_five_minutes(steps: list[tuple[bool, float]]) -> None:
    health, now = FRESH, 1000.0
    for succeeded, gap in steps:
        now += gap
        health = (breaker.after_success if succeeded else breaker.after_failure)(health, now)
        assert health.open_until is None or health.open_until <= now + breaker.LONGEST_OPENING
        assert 0 <= health.window_failed <= health.window_total
        assert (health.failing_since is None) == (health.failures_in_a_row == 0)
