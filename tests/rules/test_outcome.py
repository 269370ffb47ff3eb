"""What tables, logs and metrics say of each outcome."""

from __future__ import annotations

import pytest

from webhook_gateway.rules.outcome import (
    Accepted,
    Blocked,
    Exchange,
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


@pytest.mark.parametrize(
    ("outcome", "name", "status", "detail"),
    [
        (Accepted(204), "accepted", 204, None),
        (Rejected(503, retry_after=5.0), "rejected", 503, None),
        (TimedOut(Phase.CONNECTED), "timed_out", None, "connected"),
        (Unreachable("connection_refused"), "unreachable", None, "connection_refused"),
        (Blocked("private"), "blocked", None, "private"),
        (Unsendable("key_missing"), "unsendable", None, "key_missing"),
    ],
)
def test_an_outcome_has_a_name_and_either_a_status_or_a_detail(
    outcome: Outcome, name: str, status: int | None, detail: str | None
) -> None:
    assert (name_of(outcome), status_of(outcome), detail_of(outcome)) == (name, status, detail)


def test_a_request_goes_out_once_unless_a_kept_connection_was_closed() -> None:
    assert Exchange(Accepted(200), Phase.ANSWERED, 0.1).sends == 1
