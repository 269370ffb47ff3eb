"""What the gateway does after an attempt, outcome by outcome."""

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from webhook_gateway.rules.model import Delivery, Endpoint, Health
from webhook_gateway.rules.outcome import (
    Accepted,
    Blocked,
    Outcome,
    Phase,
    Rejected,
    Remedy,
    TimedOut,
    Unreachable,
    Unsendable,
)
from webhook_gateway.rules.verdict import Done, GiveUp, Postpone, RetryIn, Verdict, decide

ID = UUID(int=1)
ENDPOINT = Endpoint(ID, ID, ID, 1, "https://partner.example/hook", ("*",))
NOW = 1_000_000.0
DAY = 86_400.0


def delivery(attempt: int = 1) -> Delivery:
    return Delivery(ID, ID, ID, ID, "lab_result.final", attempt, ID)


def verdict(outcome: Outcome, attempt: int = 1, health: Health | None = None, chance: float = 0.5):  # type: ignore[no-untyped-def]
    return decide(delivery(attempt), ENDPOINT, health or Health(), outcome, NOW, chance)


failures = st.one_of(
    st.builds(Rejected, st.integers(300, 599), st.none() | st.floats(0, 1e9)),
    st.builds(TimedOut, st.sampled_from(Phase)),
    st.builds(Unreachable, st.just("connection_refused")),
    st.builds(Blocked, st.just("private")),
    st.builds(Unsendable, st.just("not_renderable")),
)


def test_2xx_is_done() -> None:
    assert verdict(Accepted(204)).action == Done()


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 500, 503])
def test_whatever_else_is_retried_never_followed(status: int) -> None:
    assert verdict(Rejected(status)).action == RetryIn(5)


@given(failures, st.integers(1, 9), st.floats(0, 1, exclude_max=True))
def test_a_failure_before_the_last_attempt_is_retried_later(outcome: Outcome, attempt: int, chance: float) -> None:
    action = verdict(outcome, attempt, chance=chance).action
    assert isinstance(action, RetryIn)
    assert 0 < action.delay <= 1.2 * 100_800


@given(failures)
def test_the_tenth_failure_is_the_end(outcome: Outcome) -> None:
    assert verdict(outcome, attempt=10).action == GiveUp("attempts_exhausted")


@given(st.integers(1, 10))
def test_a_missing_key_waits_and_uses_up_nothing(attempt: int) -> None:
    said = verdict(Unsendable("key_missing", Remedy.WAIT), attempt)
    assert said.action == Postpone(30)
    assert said.health == Health()


@given(st.floats(0, 1, exclude_max=True))
def test_what_waits_for_a_key_is_not_looked_at_all_at_once(chance: float) -> None:
    action = verdict(Unsendable("key_missing", Remedy.WAIT), chance=chance).action
    assert isinstance(action, Postpone)
    assert 24 <= action.delay <= 36


@given(st.lists(st.floats(1, 1e5), max_size=20).map(tuple), failures, st.floats(0, 1, exclude_max=True))
def test_as_many_attempts_are_made_as_the_schedule_allows(
    schedule: tuple[float, ...], outcome: Outcome, chance: float
) -> None:
    endpoint = replace(ENDPOINT, schedule=schedule)
    actions = [
        decide(delivery(attempt), endpoint, Health(), outcome, NOW, chance).action
        for attempt in range(1, endpoint.attempts_allowed + 1)
    ]
    assert actions[-1] == GiveUp("attempts_exhausted")
    assert all(isinstance(action, RetryIn) for action in actions[:-1])
    assert len(actions) == len(schedule) + 1


@given(failures, st.integers(1, 10), st.floats(0, 1, exclude_max=True))
def test_a_test_that_fails_is_over_and_says_nothing_about_the_endpoints_health(
    outcome: Outcome, attempt: int, chance: float
) -> None:
    test, health = structs.replace(delivery(attempt), reason="test"), Health(failures_in_a_row=9, failing_since=1.0)
    said = decide(test, ENDPOINT, health, outcome, NOW, chance)
    assert said == Verdict(GiveUp("attempts_exhausted"), health)
    waits = decide(test, ENDPOINT, health, Unsendable("key_missing", Remedy.WAIT), NOW, chance)
    assert isinstance(waits.action, Postpone)


def test_a_test_that_succeeds_closes_the_breaker() -> None:
    health = Health(failures_in_a_row=9, failing_since=1.0, open_until=NOW + 60, openings=3)
    said = decide(structs.replace(delivery(), reason="test"), ENDPOINT, health, Accepted(200), NOW, 0.5)
    assert (said.action, said.health.open_until, said.health.openings) == (Done(), None, 0)


def test_410_disables_the_endpoint_and_the_delivery_waits() -> None:
    said = verdict(Rejected(410))
    assert said.disable == "gone"
    assert isinstance(said.action, RetryIn)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_holds_the_endpoint_not_only_the_delivery(status: int) -> None:
    said = verdict(Rejected(status, retry_after=120.0))
    assert said.action == RetryIn(120, retry_after=120)
    assert said.health.retry_after_until == NOW + 120


def test_retry_after_holds_an_endpoint_for_a_day_at_most() -> None:
    said = verdict(Rejected(429, retry_after=DAY + 1))
    assert said.action == RetryIn(DAY, retry_after=DAY)
    assert said.health.retry_after_until == NOW + DAY


def test_retry_after_never_shortens_a_delay() -> None:
    assert verdict(Rejected(503, retry_after=1.0), attempt=3).action == RetryIn(300, retry_after=1)


FAILING = Health(failures_in_a_row=19, failing_since=NOW - 5 * DAY, failing_days=0b11)
"""One failure more, on another day than those before, is too much."""


@pytest.mark.parametrize("outcome", [Rejected(500), TimedOut(Phase.SENT), Unreachable("x"), Blocked("private")])
def test_twenty_failures_in_a_row_over_five_days_on_three_of_them_disable_it(outcome: Outcome) -> None:
    assert verdict(outcome, health=FAILING).disable == "failing_too_long"


@pytest.mark.parametrize(
    "almost",
    [
        structs.replace(FAILING, failing_since=NOW - 5 * DAY + 1),
        structs.replace(FAILING, failures_in_a_row=18),
        structs.replace(FAILING, failing_days=0b1),
        structs.replace(FAILING, failing_days=0b100001),
        Health(),
    ],
)
def test_less_time_fewer_failures_or_fewer_days_do_not(almost: Health) -> None:
    assert verdict(Rejected(500), health=almost).disable is None


@given(st.sampled_from(Remedy), st.text())
def test_nor_does_what_the_gateway_itself_could_not_do(remedy: Remedy, reason: str) -> None:
    said = verdict(Unsendable(reason, remedy), health=FAILING)
    assert (said.disable, said.health) == (None, FAILING)


@given(st.lists(st.floats(60, 3 * DAY), min_size=1, max_size=60))
def test_it_is_disabled_by_the_first_failure_with_which_all_of_that_is_true(
    gaps: list[float],
) -> None:
    health, now, began = Health(), NOW, NOW
    moments: list[float] = []
    for gap in gaps:
        moments.append(now)
        said = decide(delivery(), ENDPOINT, health, Rejected(500), now, 0.5)
        days = {min(int((moment - began) / DAY), 30) for moment in moments}
        too_long = len(moments) >= 20 and now - began >= 5 * DAY and len(days) >= 3
        assert (said.disable is not None) == too_long
        health, now = said.health, now + gap
    succeeded = decide(delivery(), ENDPOINT, health, Accepted(200), now, 0.5).health
    assert (succeeded.failures_in_a_row, succeeded.failing_since, succeeded.failing_days) == (0, None, 0)


def test_a_success_begun_before_does_not_end_the_silence_that_was_asked_for() -> None:
    held = verdict(Rejected(429, retry_after=3600.0)).health
    assert verdict(Accepted(200), health=held).health.retry_after_until == NOW + 3600
    assert verdict(Rejected(503, retry_after=1.0), health=held).health.retry_after_until == NOW + 3600


def test_a_body_that_was_tampered_with_is_dead_at_once() -> None:
    assert verdict(Unsendable("body_damaged", Remedy.NONE)).action == GiveUp("body_damaged")


@pytest.mark.parametrize(("before", "until"), [(None, 120), (60, 120), (600, 600)])
def test_silence_that_was_asked_for_is_never_shortened(before: float | None, until: float) -> None:
    health = Health(retry_after_until=None if before is None else NOW + before)
    assert verdict(Rejected(503, retry_after=120.0), health=health).health.retry_after_until == NOW + until
    late = Health(retry_after_until=0.5)
    assert decide(delivery(), ENDPOINT, late, Rejected(503, retry_after=0.25), 0.0, 0.5).health.retry_after_until == 0.5
    never = decide(delivery(), ENDPOINT, Health(), Rejected(503, retry_after=0.25), 0.0, 0.5)
    assert never.health.retry_after_until == 0.25


@pytest.mark.parametrize("reason", ["replay", "backfill"])
def test_what_was_asked_for_before_the_host_changed_is_for_the_host_of_then(reason: str) -> None:
    asked = structs.replace(delivery(), id=UUID(int=1_000_500 << 80 | 3 << 78), reason=reason)
    for changed, is_for_another in ((1_000.499, False), (1_000.5, False), (1_000.501, True)):
        assert asked.is_for_another_host(replace(ENDPOINT, host_changed_at=changed)) is is_for_another
    assert not asked.is_for_another_host(ENDPOINT)
    assert not structs.replace(asked, reason=None).is_for_another_host(replace(ENDPOINT, host_changed_at=2_000.0))


def test_nothing_is_known_of_an_endpoint_that_is_new() -> None:
    new = Health()
    assert (new.failures_in_a_row, new.failing_days, new.openings) == (0, 0, 0)
    assert (new.window_start, new.window_total, new.window_failed) == (0.0, 0, 0)
    assert delivery().sequence == 0
