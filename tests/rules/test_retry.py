"""The schedule, to the second, and the jitter around it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules import retry
from webhook_gateway.rules.model import DEFAULT_SCHEDULE

MINUTE, HOUR, DAY = 60, 3600, 86_400


def test_ten_attempts_in_seventy_two_hours() -> None:
    delays = [retry.delay_after(attempt, DEFAULT_SCHEDULE) for attempt in range(1, 11)]
    assert delays == [5, MINUTE, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR, 28 * HOUR, None]
    assert 72 * HOUR <= sum(DEFAULT_SCHEDULE) < 73 * HOUR


@given(st.floats(0.001, 1e6), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_a_fifth(delay: float, chance: float) -> None:
    assert 0.8 * delay * 0.999 <= retry.jitter(delay, chance) <= 1.2 * delay * 1.001


def test_jitter_is_centred() -> None:
    assert retry.jitter(100, 0.5) == 100


@given(st.floats(0, 1e6), st.none() | st.floats(0, 1e12))
def test_retry_after_lengthens_a_delay_and_never_shortens_it(delay: float, asked: float | None) -> None:
    waits = retry.at_least(delay, asked)
    assert waits >= delay
    assert waits <= max(delay, retry.RETRY_AFTER_LIMIT)


@pytest.mark.parametrize(("asked", "waits"), [(4, 5), (5, 5), (6, 6), (DAY - 1, DAY - 1), (DAY, DAY), (DAY + 1, DAY)])
def test_a_partner_is_left_alone_for_as_long_as_it_asks_but_not_beyond_a_day(asked: float, waits: float) -> None:
    assert retry.at_least(5, asked) == waits


@given(st.integers(-5, 20))
def test_no_attempt_number_breaks_the_schedule(attempt: int) -> None:
    assert (retry.delay_after(attempt, DEFAULT_SCHEDULE) is None) == (not 1 <= attempt <= 9)
