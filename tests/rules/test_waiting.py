"""Why deliveries wait: everybody is told what a claim does."""

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules.model import Endpoint, EndpointState, Health
from webhook_gateway.rules.waiting import OpenDelivery, Reason, Waiting, may_begin, may_test, why_in_outbox, why_waiting

ID = UUID(int=1)
ENDPOINT = Endpoint(ID, ID, ID, 1, "https://partner.example/hook", ("*",))
PAUSED, DISABLED = (replace(ENDPOINT, state=state) for state in (EndpointState.PAUSED, EndpointState.DISABLED))
NOW = 1_000_000.0
DUE = OpenDelivery(NOW)
HEALTHY = Health()

moments = st.integers(-3, 3).map(lambda seconds: NOW + seconds)
windows = st.tuples(moments, moments).map(lambda pair: (min(pair), max(pair) + 1))
endpoints = st.builds(
    lambda state, rate, window: replace(ENDPOINT, state=state, rate=rate, maintenance=window),
    st.sampled_from([EndpointState.ENABLED, *EndpointState]),
    st.none() | st.just(5.0),
    st.none() | windows,
)
healths = st.builds(Health, open_until=st.none() | moments, retry_after_until=st.none() | moments)
deliveries = st.builds(
    OpenDelivery, due_at=moments | st.none(), leased=st.booleans(), key_held=st.booleans(), key_missing=st.booleans()
)


def why(delivery: OpenDelivery = DUE, endpoint: Endpoint = ENDPOINT, health: Health = HEALTHY) -> Waiting:
    return why_waiting(delivery, endpoint, health, 1, NOW)


def is_due(delivery: OpenDelivery, endpoint: Endpoint, health: Health, now: float) -> bool:
    return why_waiting(delivery, endpoint, health, 1, now).reason in {Reason.SLOTS, Reason.RATE}


@given(deliveries, endpoints, healths)
def test_a_delivery_is_said_to_be_due_exactly_where_a_claim_takes_it(
    delivery: OpenDelivery, endpoint: Endpoint, health: Health
) -> None:
    claimed = delivery.due_at is not None and delivery.due_at <= NOW and may_begin(endpoint, health, NOW) > 0
    assert is_due(delivery, endpoint, health, NOW) == claimed


@given(endpoints, healths)
def test_a_test_passes_what_failures_have_caused_and_nothing_that_somebody_has_set(
    endpoint: Endpoint, health: Health
) -> None:
    begins = may_test(endpoint, health, NOW) or may_begin(endpoint, health, NOW) > 0
    assert begins == (may_begin(endpoint, HEALTHY, NOW) > 0)
    assert not may_test(endpoint, HEALTHY, NOW)


@given(deliveries, endpoints, healths, st.floats(0, 0.999))
def test_a_delivery_is_due_at_the_time_it_waits_until_and_not_before(
    delivery: OpenDelivery, endpoint: Endpoint, health: Health, part: float
) -> None:
    until = why(delivery, endpoint, health).until
    if until is not None:
        assert until > NOW
        assert not is_due(delivery, endpoint, health, NOW + part * (until - NOW))
        leased = why(delivery, endpoint, health).reason is Reason.SENDING
        assert leased or is_due(delivery, endpoint, health, until)


@pytest.mark.parametrize(
    ("expected", "delivery", "endpoint", "health"),
    [
        (Waiting(Reason.PAUSED), DUE, PAUSED, HEALTHY),
        (Waiting(Reason.DISABLED), DUE, DISABLED, HEALTHY),
        (Waiting(Reason.BREAKER, NOW + 1), DUE, ENDPOINT, Health(open_until=NOW + 1)),
        (Waiting(Reason.RETRY_AFTER, NOW + 1), DUE, ENDPOINT, Health(retry_after_until=NOW + 1)),
        (Waiting(Reason.MAINTENANCE, NOW + 1), DUE, replace(ENDPOINT, maintenance=(NOW, NOW + 1)), HEALTHY),
        (Waiting(Reason.RETRY, NOW + 1), OpenDelivery(NOW + 1), ENDPOINT, HEALTHY),
        (Waiting(Reason.KEY_MISSING, NOW + 1), OpenDelivery(NOW + 1, key_missing=True), ENDPOINT, HEALTHY),
        (Waiting(Reason.SENDING, NOW + 1), OpenDelivery(NOW + 1, leased=True), ENDPOINT, HEALTHY),
        (Waiting(Reason.ORDERING_KEY), OpenDelivery(None), ENDPOINT, HEALTHY),
        (Waiting(Reason.HELD_KEY), OpenDelivery(None, key_held=True), ENDPOINT, HEALTHY),
        (Waiting(Reason.SLOTS, before=0), DUE, ENDPOINT, HEALTHY),
        (Waiting(Reason.SLOTS, before=7), OpenDelivery(NOW - 60, leased=True, before=7), ENDPOINT, HEALTHY),
        (Waiting(Reason.RATE, before=7), OpenDelivery(NOW, before=7), replace(ENDPOINT, rate=5.0), HEALTHY),
    ],
    ids=lambda value: value.reason.value if isinstance(value, Waiting) else "",
)
def test_each_reason_is_told(expected: Waiting, delivery: OpenDelivery, endpoint: Endpoint, health: Health) -> None:
    assert why(delivery, endpoint, health) == expected


@pytest.mark.parametrize(
    ("expected", "delivery", "endpoint", "health"),
    [
        (Reason.SENDING, OpenDelivery(NOW + 1, leased=True), PAUSED, Health(open_until=NOW + 9)),
        (Reason.PAUSED, OpenDelivery(None, key_held=True), PAUSED, Health(open_until=NOW + 9)),
        (Reason.DISABLED, OpenDelivery(NOW + 5), DISABLED, HEALTHY),
        (Reason.ORDERING_KEY, OpenDelivery(None), ENDPOINT, Health(open_until=NOW + 9)),
        (Reason.RETRY, OpenDelivery(NOW + 5), ENDPOINT, Health(open_until=NOW + 4, retry_after_until=NOW + 4)),
        (Reason.BREAKER, OpenDelivery(NOW + 5), ENDPOINT, Health(open_until=NOW + 6, retry_after_until=NOW + 4)),
        (Reason.RETRY_AFTER, OpenDelivery(NOW + 5), ENDPOINT, Health(open_until=NOW + 6, retry_after_until=NOW + 7)),
    ],
)
def test_of_several_reasons_the_one_that_lasts_longest_is_told(
    expected: Reason, delivery: OpenDelivery, endpoint: Endpoint, health: Health
) -> None:
    assert why(delivery, endpoint, health).reason is expected


def test_a_maintenance_window_counts_where_the_rest_is_over_within_it() -> None:
    endpoint = replace(ENDPOINT, maintenance=(NOW + 5, NOW + 60))
    assert why(OpenDelivery(NOW + 4), endpoint) == Waiting(Reason.RETRY, NOW + 4)
    assert why(OpenDelivery(NOW + 5), endpoint) == Waiting(Reason.MAINTENANCE, NOW + 60)
    assert why(DUE, endpoint, Health(open_until=NOW + 6)) == Waiting(Reason.MAINTENANCE, NOW + 60)
    assert why(OpenDelivery(NOW + 61), endpoint) == Waiting(Reason.RETRY, NOW + 61)


def test_after_a_breakers_time_one_delivery_probes_and_the_others_wait_for_it() -> None:
    health = Health(open_until=NOW)
    assert why(OpenDelivery(NOW), health=health) == Waiting(Reason.SLOTS, before=0)
    assert why(OpenDelivery(NOW, before=1), health=health) == Waiting(Reason.BREAKER, before=1)


def test_without_a_worker_what_is_due_waits_for_one_and_the_rest_for_what_it_waits_for_anyway() -> None:
    for health in (HEALTHY, Health(open_until=NOW)):
        assert why_waiting(OpenDelivery(NOW, before=3), ENDPOINT, health, 0, NOW) == Waiting(Reason.NO_WORKER, before=3)
    assert why_waiting(DUE, PAUSED, HEALTHY, 0, NOW) == Waiting(Reason.PAUSED)


def test_an_event_in_the_outbox_waits_for_fan_out_or_for_a_worker_to_do_it() -> None:
    assert why_in_outbox(1) == Waiting(Reason.FAN_OUT)
    assert why_in_outbox(0) == Waiting(Reason.NO_WORKER)


@pytest.mark.parametrize("state", [state for state in EndpointState if state is not EndpointState.ENABLED])
def test_only_an_enabled_endpoint_is_attempted(state: EndpointState) -> None:
    assert may_begin(ENDPOINT, HEALTHY, NOW) == ENDPOINT.slots
    assert may_begin(replace(ENDPOINT, state=state), HEALTHY, NOW) == 0


def test_a_partner_gets_ten_requests_at_once_of_fifteen_seconds_each_unless_set_up_otherwise() -> None:
    assert may_begin(ENDPOINT, HEALTHY, NOW) == 10
    assert ENDPOINT.deadline == 15


def test_nothing_begins_within_a_maintenance_window() -> None:
    endpoint = replace(ENDPOINT, maintenance=(NOW, NOW + 60))
    assert may_begin(endpoint, HEALTHY, NOW - 1) == endpoint.slots
    assert may_begin(endpoint, HEALTHY, NOW) == 0
    assert may_begin(endpoint, HEALTHY, NOW + 60) == endpoint.slots


def test_an_open_breaker_waits_then_lets_one_through() -> None:
    health = Health(failures_in_a_row=10, failing_since=NOW - 60, open_until=NOW + 5)
    assert may_begin(ENDPOINT, health, NOW) == 0
    assert may_begin(ENDPOINT, health, NOW + 5) == 1


def test_silence_that_a_partner_asked_for_is_kept_to_its_end() -> None:
    health = Health(retry_after_until=NOW + 120)
    assert may_begin(ENDPOINT, health, NOW + 119) == 0
    assert may_begin(ENDPOINT, health, NOW + 120) == ENDPOINT.slots


def test_while_nothing_is_sent_what_has_a_time_waits_for_that_first_and_the_rest_for_its_own_reason() -> None:
    def told(delivery: OpenDelivery, endpoint: Endpoint = ENDPOINT) -> Waiting:
        return why_waiting(delivery, endpoint, HEALTHY, None, NOW)

    assert told(DUE) == told(OpenDelivery(NOW + 5)) == Waiting(Reason.SENDING_PAUSED)
    assert told(DUE, PAUSED) == Waiting(Reason.PAUSED)
    assert told(OpenDelivery(None)) == Waiting(Reason.ORDERING_KEY)
