"""One sentence of what helps, for whatever an attempt may have met."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules.denials import Denial
from webhook_gateway.rules.outcome import (
    Accepted,
    Blocked,
    Outcome,
    Phase,
    Rejected,
    TimedOut,
    Unreachable,
    Unsendable,
    detail_of,
    name_of,
    status_of,
)
from webhook_gateway.rules.remedies import AT_PARTNER, GONE, OPERATOR, PHASES, TROUBLES, after
from webhook_gateway.rules.unreachable import Trouble

FAILURES: list[Outcome] = [
    *(Rejected(status) for status in range(100, 600) if not 200 <= status < 300),
    *(TimedOut(phase) for phase in Phase if phase is not Phase.ANSWERED),
    *(Unreachable(trouble.value) for trouble in Trouble),
    *(Blocked(denial.value) for denial in Denial),
    *(Unsendable(reason) for reason in ("key_missing", "not_renderable", "body_gone")),
]


def remedy(outcome: Outcome) -> str | None:
    return after(name_of(outcome), status_of(outcome), detail_of(outcome))


def test_whatever_fails_has_a_remedy_and_what_succeeds_has_none() -> None:
    assert {type(outcome) for outcome in FAILURES} == {*get_args(Outcome)} - {Accepted}
    for outcome in FAILURES:
        told = remedy(outcome)
        assert told is not None, outcome
        assert told.endswith("."), outcome
        assert "{" not in told, outcome
    assert remedy(Accepted(204)) is None
    assert remedy(Accepted(200, malformed=True)) is None


@pytest.mark.parametrize("status", [401, 403])
def test_where_the_signature_was_refused_the_secret_is_named_by_when_it_was_made(status: int) -> None:
    assert after("rejected", status, None, "09:41:07 UTC") == (
        "The partner did not accept the signature or the credentials: give it the secret made at 09:41:07 UTC, "
        "if it does not hold that one yet, then send a test. A secret that is lost is rotated."
    )
    assert "give it the secret, if" in (after("rejected", status, None) or "")


@pytest.mark.parametrize(
    ("alike", "word"),
    [
        ((404, 410), "nothing at this path"),
        ((300, 301, 302, 307, 308, 399), "a redirect is not followed"),
        ((400, 402, 405, 408, 409, 422, 499), "refuses this request"),
        ((500, 502, 503, 599), "server failed"),
        ((100, 199, 600, 999), "refuses this request"),
        ((413,), "of this size"),
        ((429,), "fewer requests"),
    ],
)
def test_statuses_that_mean_the_same_have_the_same_remedy(alike: tuple[int, ...], word: str) -> None:
    (told,) = {after("rejected", status, None) for status in alike}
    assert told is not None
    assert word in told


def test_each_phase_and_each_trouble_is_told_by_itself() -> None:
    assert {after("timed_out", None, phase) for phase in PHASES} == set(PHASES.values())
    for trouble in Trouble:
        told = after("unreachable", None, trouble) or ""
        assert told.startswith(trouble.sentence)
        assert len(told) > len(trouble.sentence) + 20
        assert told.endswith(TROUBLES.get(trouble, AT_PARTNER))
    assert after("unsendable", None, "body_gone") == GONE
    assert after("unsendable", None, "key_missing") == OPERATOR


@given(st.text(), st.none() | st.integers(-10, 10_000), st.none() | st.text())
def test_there_is_an_answer_for_whatever_a_later_version_may_have_met(
    outcome: str, status: int | None, detail: str | None
) -> None:
    for met in (outcome, "rejected", "timed_out", "unreachable", "blocked", "unsendable"):
        told = after(met, status, detail)
        assert told is None or told.endswith(".")
