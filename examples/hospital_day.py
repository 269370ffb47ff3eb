"""One synthetic hospital day: coherent stories of patients and staff, woven together as in real life.

    python -m examples.hospital_day --seed 7             # prints the day, one event a line
    python -m examples.hospital_day --seed 7 --post      # posts it (GATEWAY_URL, GATEWAY_API_KEY)

All people are made up. Addresses are at example.org and telephone numbers are +1 202 555 xxxx, which belong to nobody.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from .post_event import open_gateway, post_event

MORNING = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
CURRENCY = "USD"
FILTERED, ADDRESSED = "payer_0042", "payer_0017"
"""The two insurers."""
LOINC = "http://loinc.org"
METABOLIC = {"system": LOINC, "code": "24323-8", "display": "Comprehensive metabolic 2000 panel"}
POTASSIUM = {"system": LOINC, "code": "2823-3", "display": "Potassium"}


@dataclass(frozen=True, slots=True)
class Event:
    type: str
    data: dict[str, Any]
    subject: str
    ordering_key: str
    to: list[str] | None = None
    """Who alone gets it, as the hospital calls them; without it, whoever wants it."""


def hospital_day(seed: int, patients: int = 6) -> Iterator[Event]:
    """The same seed gives the same day. Within a story events keep their order; stories run side by side."""
    chance = Random(seed)
    stories = [patient_story(Random(f"{seed}/patient/{number}"), number) for number in range(patients)]
    stories += [staff_story(Random(f"{seed}/staff/{number}"), number) for number in range((patients + 1) // 2)]
    while stories:
        story = chance.choice(stories)
        if event := next(story, None):
            yield event
        else:
            stories.remove(story)


def patient_story(chance: Random, number: int) -> Iterator[Event]:
    """Every second patient moves the appointment; every third then cancels it and has the payment refunded."""
    patient_id, encounter_id = identity(chance, "pat"), identity(chance, "enc")
    cancels = number % 3 == 2
    yield from appointment(chance, patient_id, number, moves=number % 2 == 1, cancels=cancels)
    yield from payment(chance, patient_id, fails_first=number % 4 == 1, refunded=cancels)
    if not cancels:
        yield from laboratory(chance, patient_id, encounter_id, number, corrected=number % 3 == 0)
        yield chart_update(chance, patient_id, encounter_id)
        yield claim(chance, patient_id, encounter_id, number)


def appointment(chance: Random, patient_id: str, number: int, moves: bool, cancels: bool) -> Iterator[Event]:
    appointment_id = identity(chance, "apt")
    starts = MORNING + timedelta(days=1, minutes=10 * chance.randrange(54))
    shared = {"appointment_id": appointment_id, "patient_id": patient_id}
    subject, key, version = f"patient:{patient_id}", f"appointment:{appointment_id}", 1
    scheduled = {
        "practitioner_id": identity(chance, "prac"),
        "department": chance.choice(["cardiology", "orthopaedics", "endocrinology"]),
        "service_type": "follow_up",
        "starts_at": stamp(starts),
        "ends_at": stamp(starts + timedelta(minutes=20)),
        "location_id": "loc_clinic_b3",
        "modality": "in_person",
        "status": "booked",
        "version": version,
        "contact": contact(chance, number),
    }
    yield Event("appointment.scheduled", {**shared, **scheduled}, subject, key)
    if moves:
        version, moved = version + 1, starts + timedelta(days=1)
        times = {"starts_at": stamp(moved), "ends_at": stamp(moved + timedelta(minutes=20))}
        change = {"previous_starts_at": stamp(starts), **times, "changed_by": "patient", "version": version}
        yield Event("appointment.rescheduled", {**shared, **change}, subject, key)
    if cancels:
        cancelled = {"cancelled_by": "patient", "reason_code": "pat", "version": version + 1}
        yield Event("appointment.cancelled", {**shared, **cancelled}, subject, key)


def payment(chance: Random, patient_id: str, fails_first: bool, refunded: bool) -> Iterator[Event]:
    subject = f"patient:{patient_id}"
    amount = {"value": f"{chance.randrange(4000, 12000) / 100:.2f}", "currency": CURRENCY}
    bill = {"invoice_id": identity(chance, "inv"), "patient_id": patient_id, "amount": amount}
    if fails_first:  # the card is declined; a second payment settles the same invoice
        payment_id = identity(chance, "pay")
        failed = {"payment_id": payment_id, **bill, "failure_code": "card_declined", "retryable": True}
        yield Event("payment.failed", failed, subject, f"payment:{payment_id}")
    payment_id = identity(chance, "pay")
    card = {"method": "card", "card_last4": f"{chance.randrange(10_000):04}", "processor_ref": identity(chance, "txn")}
    captured = {"captured_at": stamp(MORNING + timedelta(hours=3)), "receipt_requested": True}
    processed = {"payment_id": payment_id, **bill, **card, **captured}
    yield Event("payment.processed", processed, subject, f"payment:{payment_id}")
    if refunded:
        refund = {"refund_id": identity(chance, "ref"), "amount": amount, "reason_code": "service_cancelled"}
        yield Event("payment.refunded", {"payment_id": payment_id, **refund}, subject, f"payment:{payment_id}")


def laboratory(chance: Random, patient_id: str, encounter_id: str, number: int, corrected: bool) -> Iterator[Event]:
    order_id, accession_number = identity(chance, "ord"), f"{MORNING:%y-%j}-{number + 1:05}"
    shared = {"order_id": order_id, "accession_number": accession_number, "patient_id": patient_id}
    shared["encounter_id"] = encounter_id
    subject, key, doctor = f"patient:{patient_id}", f"lab_order:{order_id}", identity(chance, "prac")
    order = {"ordering_practitioner_id": doctor, "priority": chance.choice(["routine", "stat"]), "tests": [METABOLIC]}
    specimen = {"specimen_due_by": stamp(MORNING + timedelta(hours=2))}
    yield Event("lab_order.placed", {**shared, **order, **specimen}, subject, key)
    level, result_id = chance.uniform(3.2, 5.6), identity(chance, "res")
    for version, status in enumerate(
        ["preliminary", "final", "corrected"] if corrected else ["preliminary", "final"], 1
    ):
        if status == "corrected":
            level -= 0.4  # a haemolysed specimen had shown too much potassium
        result = {
            "result_id": result_id,
            "status": status,
            "version": version,
            "status_changed_at": stamp(MORNING + timedelta(hours=2 + version)),
            "panel": {"system": METABOLIC["system"], "code": METABOLIC["code"]},
            "abnormal": flag(level) != "N",
            "critical": False,
            "observations": [potassium(level, status)],
        }
        why = {"supersedes_version": version - 1, "correction_reason": "specimen_haemolysed"}
        yield Event(
            f"lab_result.{status}", {**shared, **result, **(why if status == "corrected" else {})}, subject, key
        )


def potassium(level: float, status: str) -> dict[str, Any]:
    measured = {"value": f"{level:.1f}", "unit": "mmol/L", "reference_range": "3.5-5.1", "flag": flag(level)}
    return {"code": POTASSIUM, **measured, "status": status}


def flag(level: float) -> str:
    return "L" if level < 3.5 else "H" if level > 5.1 else "N"


def chart_update(chance: Random, patient_id: str, encounter_id: str) -> Event:
    section, resource = chance.choice([("problem_list", "Condition"), ("allergies", "AllergyIntolerance")])
    update = {
        "record_id": identity(chance, "rec"),
        "patient_id": patient_id,
        "encounter_id": encounter_id,
        "section": section,
        "change": "updated",
        "changed_fields": ["conditions" if resource == "Condition" else "allergies"],
        "resource": {"type": resource, "id": identity(chance, "res"), "version": chance.randrange(2, 9)},
        "author_practitioner_id": identity(chance, "prac"),
        "sensitivity": ["N"],
    }
    return Event("medical_record.updated", update, f"patient:{patient_id}", f"patient:{patient_id}")


def claim(chance: Random, patient_id: str, encounter_id: str, number: int) -> Event:
    """Totals in turn: small, medium, beyond what an insurer pays without an authorisation.

    A claim is for one insurer and nobody else. Those for `payer_0017` are addressed to it; for the others, as from a
    service that is too old to address anything, the insurers' endpoints have a filter on `payer_id`.
    """
    claim_id, low = identity(chance, "clm"), (200, 2_000, 12_000)[number // 2 % 3]
    payer = ADDRESSED if number % 2 else FILTERED
    submitted = {
        "claim_id": claim_id,
        "patient_id": patient_id,
        "payer_id": payer,
        "member_id": f"W{chance.randrange(10**9):09}",
        "encounter_id": encounter_id,
        "service_from": f"{MORNING - timedelta(days=3):%Y-%m-%d}",
        "service_to": f"{MORNING:%Y-%m-%d}",
        "total": {"value": f"{low + chance.randrange(70_000) / 100:.2f}", "currency": CURRENCY},
        "diagnoses": [
            {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": chance.choice(["E11.9", "I10", "M17.11"])}
        ],
        "line_count": chance.randrange(1, 9),
        "idempotency_ref": f"837-{MORNING:%Y%m%d}-{number + 1:04}",
    }
    to = [payer] if payer == ADDRESSED else None
    return Event("insurance_claim.submitted", submitted, f"patient:{patient_id}", f"claim:{claim_id}", to)


def staff_story(chance: Random, number: int) -> Iterator[Event]:
    """Everybody gets a shift; every second one is moved to another unit, and every fourth then falls away."""
    staff_id = identity(chance, "stf")
    shift = {"shift_id": f"shf_2026w48_{number + 1:03}", "staff_id": staff_id}
    subject = key = f"staff:{staff_id}"
    starts = MORNING + timedelta(days=2, hours=chance.choice([0, 8, 12]))
    times = {"starts_at": stamp(starts), "ends_at": stamp(starts + timedelta(hours=8))}
    place = {"role": chance.choice(["RN", "MD", "MTA"]), "unit": "icu_2", "facility_id": "fac_main"}
    assigned = {**place, **times, "assigned_by": "stf_0007", "ack_required": True, "version": 1}
    yield Event("staff_shift.assigned", {**shift, **assigned}, subject, key)
    if number % 2 == 0:
        changed = {"changed_fields": ["unit"], "unit": "icu_1", "version": 2}
        yield Event("staff_shift.changed", {**shift, **changed}, subject, key)
    if number % 4 == 0:
        yield Event("staff_shift.cancelled", {**shift, "reason_code": "low_census", "version": 3}, subject, key)


def contact(chance: Random, number: int) -> dict[str, Any]:
    email, phone = f"patient.{number + 1}@example.org", f"+1202555{chance.randrange(10_000):04}"
    return {"channel": "sms", "address": phone, "email": email, "language": "en", "reminder_opt_in": True}


def identity(chance: Random, kind: str) -> str:
    return f"{kind}_{chance.getrandbits(40):010x}"


def stamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def main() -> None:
    parser = argparse.ArgumentParser("hospital_day")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patients", type=int, default=6)
    parser.add_argument("--post", action="store_true", help="post the day to GATEWAY_URL instead of printing it")
    flags = parser.parse_args()
    day = hospital_day(flags.seed, flags.patients)
    if not flags.post:
        for event in day:
            print(json.dumps(asdict(event)))
        return
    with open_gateway() as gateway:
        for number, event in enumerate(day):
            key = f"day-{flags.seed}-{number}"
            event_id = post_event(gateway, event.type, event.data, event.subject, event.ordering_key, key, event.to)
            print(event_id, event.type)


if __name__ == "__main__":
    main()
