"""What makes two posts the same."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from webhook_gateway.intake.events import NewEvent, _fingerprint

PLAIN = NewEvent("lab_order.placed", b'{"n":1}', {}, datetime(2026, 11, 23, tzinfo=UTC), "patient:1", "ord_1", "key")


def test_keys_from_before_events_were_addressed_still_match() -> None:
    assert _fingerprint(PLAIN) == b'["lab_order.placed","2026-11-23T00:00:00Z","patient:1","ord_1"]{"n":1}'


def test_whom_an_event_is_for_and_about_make_it_another_one() -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"to": ("a",)},
        {"to": ("b",)},
        {"to": ("a", "b")},
        {"patient": "a"},
        {"to": ("a",), "patient": "a"},
    ]
    assert len({_fingerprint(msgspec.structs.replace(PLAIN, **way)) for way in ways}) == len(ways)
