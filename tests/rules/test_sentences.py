"""One sentence for every state and reason: what is so, what happens next, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from webhook_gateway.rules import ids
from webhook_gateway.rules.filters import HIDDEN
from webhook_gateway.rules.model import DeliveryState
from webhook_gateway.rules.sentences import LONGEST, Ended, Standing, WhyNot, of_delivery, of_event, of_filter, of_none
from webhook_gateway.rules.waiting import Reason

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
AT = datetime(2026, 11, 24, 9, 41, 7, tzinfo=UTC)
EARLIER = UUID(int=1)
NAMED = ids.render(ids.DELIVERY, EARLIER)
PENDING = Standing(
    state="pending",
    state_reason=None,
    reason=None,
    attempt=2,
    allowed=10,
    waiting_for=Reason.RETRY,
    due_at=NOW + timedelta(minutes=4),
    due_before=None,
    created_at=AT,
    finished_at=None,
    met="503",
    endpoint_met="500",
    duration=0.312,
    head=EARLIER,
    held_by=EARLIER,
    endpoint_reason=None,
    changed_at=NOW - timedelta(minutes=12),
    changed_by="the key `operations`",
    failures=5,
)
KEY = "An encryption key is missing, and is looked for again in 4 minutes."
OPEN: dict[Reason, tuple[dict[str, Any], str]] = {
    Reason.PAUSED: (
        {"endpoint_reason": "certificate change"},
        'The endpoint was paused 12 minutes ago with the key `operations`: "certificate change".',
    ),
    Reason.DISABLED: (
        {"endpoint_reason": "failing_too_long"},
        "The endpoint was disabled 12 minutes ago: failing too long.",
    ),
    Reason.BREAKER: ({}, "The breaker is open until 10:04 UTC, after 5 failures in a row, the last one 500."),
    Reason.RETRY_AFTER: ({}, "The partner asked for silence until 10:04 UTC, after 503."),
    Reason.MAINTENANCE: ({}, "The endpoint is in maintenance until 10:04 UTC."),
    Reason.RETRY: ({}, "Next try in 4 minutes: attempt 3 of 10, after 503."),
    Reason.KEY_MISSING: ({}, KEY),
    Reason.ORDERING_KEY: ({"due_at": None}, f"Waits behind {NAMED} of the same order since 09:41 UTC."),
    Reason.HELD_KEY: ({"due_at": None}, f"Waits since 09:41 UTC: {NAMED} of the same order is dead."),
    Reason.FAN_OUT: ({"due_at": None}, Reason.FAN_OUT.sentence),
    Reason.SENDING: ({"due_at": None, "state": "sending"}, "Attempt 2 of 10 is under way."),
    Reason.RATE: ({"due_before": 3}, "Due, behind 3 others: it waits for the endpoint's rate."),
    Reason.SLOTS: ({"due_before": 1}, "Due, behind 1 other: it waits for a free slot."),
    Reason.NO_WORKER: ({"due_before": 0}, Reason.NO_WORKER.sentence),
    Reason.SENDING_PAUSED: ({"due_before": 0}, Reason.SENDING_PAUSED.sentence),
}
ENDED = {
    Ended.ATTEMPTS_EXHAUSTED: "it has no attempts left",
    Ended.OPEN_TOO_LONG: "it was open for longer than any may be",
    Ended.BODY_DAMAGED: "its body was changed in the database",
    Ended.BY_HAND: "somebody gave it up",
    Ended.ENDPOINT_DELETED: "its endpoint was deleted",
    Ended.SUPERSEDED: "a newer one of the same order took its place",
    Ended.NOT_PERMITTED: "its endpoint may not have it any more",
    Ended.NOT_WANTED: "its endpoint's filter did not let it through, or was never asked",
    Ended.ANOTHER_HOST: "its endpoint has another host than when it was asked for",
}


@pytest.mark.parametrize("reason", Reason)
def test_an_open_delivery_is_told_why_it_waits_and_what_happens_next(reason: Reason) -> None:
    changes, sentence = OPEN[reason]
    told = of_delivery(replace(PENDING, waiting_for=reason, **changes), NOW)
    assert told.sentence == sentence
    assert told.next
    assert told.next_at == changes.get("due_at", PENDING.due_at)


@pytest.mark.parametrize(("state", "ended"), [*product(("dead", "cancelled"), Ended)])
def test_one_that_has_ended_is_told_when_and_why(state: str, ended: Ended) -> None:
    told = of_delivery(
        replace(PENDING, state=state, state_reason=ended, finished_at=AT, waiting_for=None, due_at=None), NOW
    )
    how = "Given up 09:41:07 UTC after 2 attempts, the last one 503" if state == "dead" else "Cancelled 09:41:07 UTC"
    assert told.sentence == f"{how}: {ENDED[ended]}."
    assert told.next == ("A replay sends it again." if state == "dead" else None)


@pytest.mark.parametrize(("met", "how"), [("401", ": it met 401"), (None, "")])
def test_a_test_that_failed_is_told_as_one_attempt(met: str | None, how: str) -> None:
    one = replace(PENDING, state="dead", reason="test", finished_at=AT, waiting_for=None, due_at=None, met=met)
    told = of_delivery(replace(one, state_reason=Ended.ATTEMPTS_EXHAUSTED), NOW)
    assert told.sentence == f"The test failed 09:41:07 UTC{how}. A test is attempted once."
    assert told.next is None
    assert of_delivery(replace(one, state_reason=Ended.BODY_DAMAGED), NOW).sentence.startswith("Given up 09:41:07 UTC")


def test_times_are_told_in_the_zone_of_whoever_asks_and_with_the_day_that_they_have_there() -> None:
    one = replace(PENDING, state="cancelled", state_reason=Ended.BY_HAND, finished_at=AT, waiting_for=None, due_at=None)
    for name, told in (
        ("Europe/Berlin", "10:41:07 CET"),
        ("Asia/Kolkata", "15:11:07 IST"),
        ("Pacific/Kiritimati", "2026-11-24 23:41:07 +14"),  # where it is past midnight since
    ):
        there = NOW.astimezone(ZoneInfo(name))
        assert of_delivery(one, there).sentence == f"Cancelled {told}: somebody gave it up."
        waiting = of_delivery(replace(PENDING, waiting_for=Reason.MAINTENANCE), there).sentence
        assert waiting == f"The endpoint is in maintenance until {there + timedelta(minutes=4):%H:%M %Z}."


@pytest.mark.parametrize("state", ["delivered", "dead", "cancelled"])
def test_one_that_was_replayed_is_told_what_sends_it_again(state: str) -> None:
    one = replace(PENDING, state=state, finished_at=AT, waiting_for=None, due_at=None, replayed_as=EARLIER)
    assert of_delivery(one, NOW).next == f"{NAMED} sends it again."


@pytest.mark.parametrize(
    ("attempt", "duration", "sentence"),
    [
        (1, 0.0004, "Delivered 09:41:07 UTC at the first attempt, 0 ms."),
        (2, 0.312, "Delivered 09:41:07 UTC at the second attempt, 312 ms."),
        (10, 0.312, "Delivered 09:41:07 UTC at the tenth attempt, 312 ms."),
        (11, 0.312, "Delivered 09:41:07 UTC at the 11th attempt, 312 ms."),
        (2, None, "Delivered 09:41:07 UTC at the second attempt."),
    ],
)
def test_one_that_was_delivered_is_told_when_and_at_which_attempt(
    attempt: int, duration: float | None, sentence: str
) -> None:
    one = replace(PENDING, state="delivered", attempt=attempt, duration=duration, finished_at=AT, waiting_for=None)
    assert of_delivery(one, NOW).sentence == sentence


@given(
    st.sampled_from(DeliveryState),
    st.sampled_from([None, *Ended, "a later version's"]),
    st.sampled_from([None, *Reason]),
    st.tuples(*[st.booleans()] * 7),
)
def test_there_is_one_for_whatever_is_not_known(
    state: DeliveryState, ended: str | None, reason: Reason | None, known: tuple[bool, ...]
) -> None:
    names = ("due_at", "created_at", "met", "endpoint_met", "duration", "head", "changed_by")
    changes: dict[str, Any] = {name: None for name, is_known in zip(names, known, strict=True) if not is_known}
    told = of_delivery(replace(PENDING, state=state, state_reason=ended, waiting_for=reason, **changes), NOW)
    assert told.sentence[0].isupper()
    assert told.sentence.endswith(".")
    assert "None" not in told.sentence


def test_what_is_not_for_whoever_asks_is_left_out() -> None:
    for reason, hidden in ((Reason.ORDERING_KEY, "head"), (Reason.HELD_KEY, "held_by")):
        told = of_delivery(replace(PENDING, waiting_for=reason, **{hidden: None}), NOW)
        assert "an earlier one of the same order" in told.sentence
        assert NAMED not in told.sentence
    paused = replace(PENDING, waiting_for=Reason.PAUSED, changed_by=None, endpoint_reason="by_hand")
    assert of_delivery(paused, NOW).sentence == "The endpoint was paused 12 minutes ago."


def test_a_disabled_endpoint_was_not_disabled_by_who_resumed_it() -> None:
    told = of_delivery(replace(PENDING, waiting_for=Reason.DISABLED, endpoint_reason="gone"), NOW)
    assert told.sentence == "The endpoint was disabled 12 minutes ago: gone."


def test_a_breaker_that_is_half_open_has_no_time() -> None:
    told = of_delivery(replace(PENDING, waiting_for=Reason.BREAKER, due_at=None, endpoint_met=None, failures=1), NOW)
    assert told.sentence == "The breaker is half-open, after 1 failure in a row."


def test_the_last_attempt_and_that_of_a_test_are_not_counted_beyond() -> None:
    assert of_delivery(replace(PENDING, attempt=9), NOW).next == "attempt 10 of 10"
    assert of_delivery(replace(PENDING, attempt=10), NOW).next == "attempt 10 of 10"
    assert of_delivery(replace(PENDING, attempt=0, reason="test"), NOW).next == "attempt 1 of 1"


@pytest.mark.parametrize(
    ("seconds", "span"),
    [
        *((-5, "0 seconds"), (1, "1 second"), (119, "119 seconds"), (120, "2 minutes"), (7_199, "120 minutes")),
        *((7_200, "2 hours"), (172_799, "48 hours"), (172_800, "2 days"), (864_000, "10 days")),
    ],
)
def test_a_time_to_come_is_told_in_the_largest_unit_of_which_there_are_two(seconds: int, span: str) -> None:
    told = of_delivery(replace(PENDING, due_at=NOW + timedelta(seconds=seconds)), NOW)
    assert told.sentence.startswith(f"Next try in {span}: ")


def test_a_time_of_another_day_has_its_day_and_is_utc() -> None:
    late = (NOW + timedelta(hours=14)).astimezone(datetime.fromisoformat("2026-01-01T00:00:00+05:00").tzinfo)
    told = of_delivery(replace(PENDING, waiting_for=Reason.RETRY_AFTER, due_at=late, met=None), NOW)
    assert told.sentence == "The partner asked for silence until 2026-11-25 00:00 UTC."


@pytest.mark.parametrize("why", WhyNot)
def test_an_endpoint_without_a_delivery_is_told_why_and_since_when(why: WhyNot) -> None:
    assert of_none(why, None, NOW).sentence == why.sentence
    is_later = why in (WhyNot.MADE_LATER, WhyNot.CHANGED_LATER)
    assert of_none(why, None, NOW).next == ("A backfill sends it." if is_later else None)
    assert of_none(why, NOW - timedelta(hours=3), NOW).sentence == f"{why.sentence[:-1]}, 3 hours ago."


def test_an_event_is_told_by_what_became_of_it_at_each_endpoint() -> None:
    assert of_event(Reason.NO_WORKER, [], None).sentence == Reason.NO_WORKER.sentence
    assert of_event(None, [], None).sentence == "It went to no endpoint."
    told = of_event(None, ["pending", "delivered", "delivered"], NOW)
    assert (told.sentence, told.next_at) == ("It went to 3 endpoints: 2 delivered, 1 pending.", NOW)
    assert of_event(None, ["dead"], None).sentence == "It went to 1 endpoint: 1 dead."


@pytest.mark.parametrize(
    ("given", "asks"),
    [
        ({"payer_id": ["p_18"]}, "payer_id p_18"),
        ({"payer_id": ["p_17", "p_18"], "paid": [True, None]}, "payer_id p_17 or p_18 and paid true or null"),
        ({"amount": {"value": [{"numeric": [">=", 100, "<", 500]}]}}, "amount.value numeric >= 100 < 500"),
        ({"code": [{"prefix": "C5"}, {"exists": False}]}, "code prefix C5 or exists false"),
        ({"priority": [{"anything-but": ["routine", "low"]}]}, "priority anything-but routine low"),
        ({"$or": [{"a": [1]}, {"b": {"c": ["x"]}}]}, "(a 1 or b.c x)"),
        ({"name": ["a\u202eb"]}, "name a\\u202eb"),
        ({"payer_id": ["p_18"], "$other": HIDDEN}, "payer_id p_18, and more that is set by the hospital"),
    ],
)
def test_a_filter_is_told_by_what_it_asks_for(given: dict[str, Any], asks: str) -> None:
    assert of_filter(given).sentence == f"Does not want it: its filter asks for {asks}."


@pytest.mark.parametrize("given", [HIDDEN, {"$other": HIDDEN}])
def test_a_filter_that_may_not_be_seen_is_the_hospitals(given: object) -> None:
    assert of_filter(given).sentence == "Does not want it: its filter is set by the hospital."


def test_a_long_filter_is_cut() -> None:
    assert len(of_filter({"a": ["x" * 4_000]}).sentence) < 400


@pytest.mark.parametrize(("attempt", "which"), [(0, "0th"), (1, "first"), (10, "tenth"), (11, "11th")])
def test_an_attempt_is_told_by_its_place(attempt: int, which: str) -> None:
    one = replace(PENDING, state="delivered", attempt=attempt, duration=0.3124, finished_at=AT, waiting_for=None)
    assert of_delivery(one, NOW).sentence == f"Delivered 09:41:07 UTC at the {which} attempt, 312 ms."


def test_what_is_due_behind_nothing_says_so() -> None:
    told = of_delivery(replace(PENDING, waiting_for=Reason.SLOTS, due_before=None), NOW)
    assert told.sentence == "Due, behind 0 others: it waits for a free slot."


def test_a_filter_is_cut_at_its_length_and_not_before() -> None:
    asked = of_filter({"payer_id": ["x" * 50]}).sentence.removeprefix("Does not want it: its filter asks for ")
    longest = "x" * (50 + LONGEST - len(asked.removesuffix(".")))
    assert of_filter({"payer_id": [longest]}).sentence.endswith("xx.")
    assert of_filter({"payer_id": [longest + "y"]}).sentence.endswith("xx….")
