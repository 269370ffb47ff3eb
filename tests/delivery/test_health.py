"""What attempts taught about an endpoint."""

from __future__ import annotations

from webhook_gateway.delivery.health import EndpointHealth
from webhook_gateway.rules.model import Health
from webhook_gateway.rules.outcome import Accepted, Phase, Rejected, TimedOut


def test_our_own_health_read_back_is_no_news() -> None:
    known = EndpointHealth()
    ours = Health(failures_in_a_row=1, failing_since=1000.0001, window_start=1000.0, window_total=9, window_failed=4)
    known.note(TimedOut(Phase.SENT), 1.0, ours, share=10)
    known.saved = known.current
    known.learn(Health(failures_in_a_row=1, failing_since=1000.0))
    assert known.current.window_total == 9


def test_what_another_worker_found_out_counts_here_and_what_only_we_count_stays() -> None:
    known = EndpointHealth()
    known.note(Rejected(500), 1.0, Health(window_start=1000.0, window_total=9, window_failed=4), share=10)
    known.learn(Health(failures_in_a_row=10, failing_since=900.0, open_until=1010.0, openings=1))
    assert known.current.open_until == 1010.0
    assert known.current.window_failed == 4
    assert not known.is_unsaved()


def test_what_we_have_not_saved_yet_is_not_overwritten() -> None:
    known = EndpointHealth()
    known.note(Rejected(500), 1.0, Health(failures_in_a_row=1, failing_since=1000.0), share=10)
    assert known.is_unsaved()
    known.learn(Health(failures_in_a_row=10, failing_since=900.0, open_until=1010.0, openings=1))
    assert known.current.open_until is None


def test_a_failure_on_another_day_is_saved() -> None:
    known = EndpointHealth()
    known.current = known.saved = Health(failures_in_a_row=1, failing_since=1000.0, failing_days=0b1)
    known.note(Rejected(500), 1.0, Health(failures_in_a_row=2, failing_since=1000.0, failing_days=0b11), share=10)
    assert known.is_unsaved()


def test_a_success_after_a_success_is_nothing_to_save() -> None:
    known = EndpointHealth()
    known.note(Accepted(200), 1.0, Health(window_start=1000.0, window_total=9), share=10)
    assert not known.is_unsaved()


def test_a_timeout_halves_what_may_be_under_way_and_each_success_gives_one_back() -> None:
    known = EndpointHealth()
    limits = []
    for outcome in (TimedOut(Phase.SENT), TimedOut(Phase.SENT), Rejected(500), Accepted(200), Accepted(200)):
        known.note(outcome, 1.0, Health(), share=10)
        limits.append(known.limit)
    assert limits == [5.0, 2.5, 2.5, 3.5, 4.5]
    for _ in range(9):
        known.note(TimedOut(Phase.SENT), 1.0, Health(), share=10)
    assert known.limit == 1.0
