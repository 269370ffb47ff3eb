"""Retry-After may ask for a day at most, and nonsense asks for nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules.retry_after import LONGEST, read_retry_after

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("86400", 86_400.0),
        ("86401", 86_400.0),
        ("1000000000000", LONGEST),
        ("9" * 400, None),
        ("1e12", None),
        ("1.5", None),
        ("-1", None),
        ("+1", None),
        ("\u0661", None),
        ("", None),
        ("soon", None),
        ("Mon, 23 Nov 2026 12:01:00 GMT", 60.0),
        ("Mon, 23 Nov 2026 12:01:00 -0000", 60.0),
        ("Monday, 23-Nov-26 12:01:00 GMT", 60.0),
        ("Mon Nov 23 12:01:00 2026", 60.0),
        ("Mon, 23 Nov 2026 12:00:01 GMT", 1.0),
        ("Mon, 23 Nov 2026 12:00:00 GMT", None),
        ("Mon, 23 Nov 2026 11:59:59 GMT", None),
        ("Tue, 24 Nov 2026 12:00:00 GMT", 86_400.0),
        ("Tue, 24 Nov 2026 12:00:01 GMT", 86_400.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST),
        ("Fri, 31 Dec 9999 23:59:59 -2359", LONGEST),
        ("Mon, 23 Nov 2026 12:00:60 GMT", 59.0),
        ("Monday, 23-Nov-26 12:00:60 GMT", 59.0),
        ("Mon Nov 23 12:00:60 2026", 59.0),
        ("Mon, 23 Nov 2026 12:00:61 GMT", None),
        ("Mon, 99 Nov 2026 12:01:00 GMT", None),
    ],
)
def test_retry_after_is_read(header: str, seconds: float | None) -> None:
    assert read_retry_after(header, NOW) == seconds


@given(st.one_of(st.text(), st.from_regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{1,6} \d\d:\d\d:\d\d [+-]\d{4,9}")))
def test_any_header_gives_a_bounded_wait_or_none(header: str) -> None:
    seconds = read_retry_after(header, NOW)
    assert seconds is None or 0 <= seconds <= LONGEST
