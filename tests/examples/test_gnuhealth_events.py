"""Which events a change in GNU Health is. Runs without GNU Health."""

from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest

from examples.gnuhealth.health_webhooks.events import Known, flag, of_appointment, of_result

SLOT = {"appointment_id": "1", "patient_id": "2", "starts_at": "2026-12-01T09:30:00+00:00", "modality": "in_person"}
MOVED = {**SLOT, "starts_at": "2026-12-02T09:30:00+00:00"}
BOOKED = Known("confirmed", SLOT)
FREE = Known("free", {"appointment_id": "1", "starts_at": SLOT["starts_at"], "modality": "in_person"})
OTHER = Known("confirmed", {**SLOT, "patient_id": "3"})


@pytest.mark.parametrize(
    ("before", "after", "types"),
    [
        (None, BOOKED, ["appointment.scheduled"]),
        (None, FREE, []),
        (FREE, BOOKED, ["appointment.scheduled"]),
        (BOOKED, replace(BOOKED, state="checked_in"), []),
        (BOOKED, Known("confirmed", MOVED), ["appointment.rescheduled"]),
        (BOOKED, replace(BOOKED, state="no_show"), ["appointment.no_show"]),
        (BOOKED, replace(BOOKED, state="user_cancelled"), ["appointment.cancelled"]),
        (replace(BOOKED, state="user_cancelled"), replace(BOOKED, state="center_cancelled"), []),
        (BOOKED, FREE, ["appointment.cancelled"]),
        (BOOKED, None, ["appointment.cancelled"]),
        (FREE, None, []),
        (BOOKED, OTHER, ["appointment.cancelled", "appointment.scheduled"]),
    ],
)
def test_each_change_of_an_appointment_is_the_event_that_its_schema_allows(
    before: Known | None, after: Known | None, types: list[str], catalogue: dict[str, Any]
) -> None:
    told = list(of_appointment(before, after))
    assert [type for type, _ in told] == types
    for type, data in told:
        jsonschema_rs.validate(catalogue[type]["schema"], {**data, "version": 1}, validate_formats=True)


def test_a_cancellation_says_who_and_of_another_patient_s_appointment_is_told_to_the_first() -> None:
    def cancelled(after: Known | None) -> tuple[str, str]:
        data = next(iter(of_appointment(BOOKED, after)))[1]
        return data["patient_id"], data["cancelled_by"]

    assert cancelled(replace(BOOKED, state="user_cancelled")) == ("2", "patient")
    assert cancelled(replace(BOOKED, state="center_cancelled")) == ("2", "provider")
    assert cancelled(None) == cancelled(OTHER) == ("2", "system")


RESULT = {"result_id": "1", "order_id": "7", "patient_id": "2", "abnormal": False, "observations": []}
DRAFT, DONE = Known("draft", RESULT), Known("done", RESULT)
CHANGED = Known("done", {**RESULT, "abnormal": True}, version=1)


@pytest.mark.parametrize(
    ("before", "after", "types"),
    [
        (None, DRAFT, []),
        (None, DONE, ["lab_result.final"]),
        (DRAFT, DONE, ["lab_result.final"]),
        (DONE, replace(DONE, state="validated", version=1), []),
        (DONE, CHANGED, ["lab_result.corrected"]),
        (DONE, replace(DRAFT, version=1), []),
        (DRAFT, replace(DONE, version=1), ["lab_result.corrected"]),
        (DRAFT, Known("done", {"result_id": "1", "order_id": "7"}), []),
        (DONE, None, []),
    ],
)
def test_a_result_is_told_when_it_is_complete_and_each_time_that_it_is_corrected(
    before: Known | None, after: Known | None, types: list[str], catalogue: dict[str, Any]
) -> None:
    told = list(of_result(before, after))
    assert [type for type, _ in told] == types
    for type, data in told:
        jsonschema_rs.validate(catalogue[type]["schema"], {**data, "version": 1}, validate_formats=True)


@pytest.mark.parametrize(
    ("value", "low", "high", "warned", "expected"),
    [
        (10.9, 11, 16, False, "L"),
        (11, 11, 16, True, "L"),
        (13, 11, 16, False, "N"),
        (16, 11, 16, True, "H"),
        (0.0, 0.5, None, False, "L"),
        (3, None, 4, False, "N"),
        (3, None, None, False, "unknown"),
        (None, 1, 2, True, "A"),
    ],
)
def test_a_value_is_flagged_by_its_limits(
    value: float | None, low: float | None, high: float | None, warned: bool, expected: str
) -> None:
    assert flag(value, low, high, warned) == expected
