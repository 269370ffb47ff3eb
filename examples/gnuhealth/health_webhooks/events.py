"""Which events a change is, by what was so before and is so after it. Change here what your partners get."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

BOOKED = {"confirmed", "checked_in", "done"}
CANCELLED_BY = {"user_cancelled": "patient", "center_cancelled": "provider"}
FINAL = {"done", "validated"}  # with health_crypto_lab, where somebody else validates: {"validated"}


@dataclass(frozen=True)
class Known:
    """``data`` by the schema of the type, without the version; ``version`` is that of the last event, 0 before one."""

    state: str | None
    data: dict[str, Any]
    version: int = 0

    def only(self, *names: str) -> dict[str, Any]:
        return {name: self.data[name] for name in names}


Told = tuple[str, dict[str, Any]]
"""An event's type and data, without the version."""


def of_appointment(before: Known | None, after: Known | None) -> Iterator[Told]:
    """``None``: it was not there, or is no longer."""
    was, now = booked(before), booked(after)
    if was and now and was.data["patient_id"] == now.data["patient_id"]:
        if was.data["starts_at"] != now.data["starts_at"]:
            moved = {**now.only("appointment_id", "patient_id", "starts_at")}
            yield "appointment.rescheduled", {**moved, "previous_starts_at": was.data["starts_at"]}
        return
    if was:
        state = after.state if after else None
        about = was.only("appointment_id", "patient_id")
        if state == "no_show":
            yield "appointment.no_show", {**about, "scheduled_start": was.data["starts_at"]}
        else:
            yield "appointment.cancelled", {**about, "cancelled_by": CANCELLED_BY.get(state or "", "system")}
    if now:
        yield "appointment.scheduled", {**now.data, "status": "booked"}


def booked(appointment: Known | None) -> Known | None:
    known = appointment and appointment.state in BOOKED and {"patient_id", "starts_at"} <= appointment.data.keys()
    return appointment if known else None


def of_result(before: Known | None, after: Known | None) -> Iterator[Told]:
    """Nothing when one is taken back to a draft: the next is a correction."""
    if after is None or after.state not in FINAL or "patient_id" not in after.data:
        return
    if before and before.state in FINAL and before.data == after.data:
        return
    if after.version == 0:
        yield "lab_result.final", {**after.data, "status": "final"}
    else:
        yield "lab_result.corrected", {**after.data, "status": "corrected", "supersedes_version": after.version}


def flag(value: float | None, low: float | None, high: float | None, warned: bool) -> str:
    """By HL7's table 0078; "unknown" where nothing says what is normal. GNU Health warns at the limit itself, too."""
    if value is None or (low is None and high is None):
        return "A" if warned else "unknown"
    if low is not None and value <= low:
        return "L"
    return "H" if high is not None and value >= high else "N"
