"""Each partner's own part, seen from outside: mails, PDFs, orders, results, decisions."""

import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from standardwebhooks import Webhook

from examples.hospital_day import hospital_day
from tests.examples.sending import SECRET, Sample, Start
from tests.support.partner import PartnerBeside, partner_beside
from webhook_gateway.demo.partners import Posted, the_partners
from webhook_gateway.rules.views import cut, tree_of

Catalogue = dict[str, Any]


def test_a_patient_hears_of_each_change_of_an_appointment(
    start: Start, mail_server: tuple[Sample, str], catalogue: Catalogue
) -> None:
    sink, address = mail_server
    notifier = start("notifier", SMTP_ADDRESS=address)
    scheduled = catalogue["appointment.scheduled"]["example"]
    scheduled["contact"]["email"] = "amal@example.org"
    notifier.post("appointment.scheduled", scheduled, "evt_1")
    notifier.post("appointment.rescheduled", catalogue["appointment.rescheduled"]["example"], "evt_2")
    notifier.post("appointment.cancelled", catalogue["appointment.cancelled"]["example"], "evt_3")
    notifier.post("appointment.rescheduled", catalogue["appointment.rescheduled"]["example"], "evt_4")

    assert notifier.did() == ["sent an e-mail, sent an SMS"] * 3 + ["nothing: the patient knows a newer version"]
    mails = sink.get("/mails?to=amal@example.org")
    texts = [
        "Your appointment is booked for Tuesday 24 November, 09:30.",
        "Your appointment has moved to Wednesday 25 November, 11:00.",
        "Your appointment has been cancelled.",
    ]
    assert [mail["text"] for mail in mails] == texts
    assert mails[0]["message-id"] == "<evt_1@example.org>"
    assert [(sms["phone"], sms["text"]) for sms in notifier.get("/sms")] == [("+12025550143", text) for text in texts]


def test_no_message_to_a_patient_tells_anything_clinical(
    start: Start, mail_server: tuple[Sample, str], catalogue: Catalogue
) -> None:
    sink, address = mail_server
    notifier = start("notifier", SMTP_ADDRESS=address)
    scheduled = catalogue["appointment.scheduled"]["example"]
    scheduled["contact"] |= {"channel": "email", "address": "amal@example.org", "phone": "+12025550143"}
    types = ["appointment.scheduled", "lab_result.final", "payment.processed", "payment.failed"]
    for type in types:
        notifier.post(type, catalogue[type]["example"], f"evt_{type}")
    assert notifier.did()[1:] == ["sent an SMS"] * 3
    everything = str(sink.get("/mails")) + str(notifier.get("/sms"))
    for secret in ("cardiology", "Potassium", "2823-3", "4.1", "abnormal", "pat_7c1e9a52", "4242", "card_declined"):
        assert secret not in everything


def test_contact_and_time_are_all_that_the_demo_gives_the_sms_provider_and_enough_for_its_work(
    start: Start, mail_server: tuple[Sample, str]
) -> None:
    notifier = start("notifier", SMTP_ADDRESS=mail_server[1])
    (of_the_demo,) = [partner for partner in the_partners() if partner.name == "notifier"]
    posted: list[str] = []
    for event in hospital_day(1, patients=2):
        if of_the_demo.should_have(Posted("", event.type)):
            body = {"id": "", "type": event.type, "timestamp": "", "data": event.data}
            left = json.loads(cut(json.dumps(body).encode(), tree_of(of_the_demo.content["pointers"]), False))["data"]
            assert left.keys() <= {"patient_id", "contact", "starts_at", "appointment_id", "version"}
            notifier.post(event.type, left, f"evt_{len(posted)}")
            posted.append(event.type)
    assert {"appointment.rescheduled", "lab_result.final", "payment.failed"} < set(posted)
    assert ["sent an SMS" in did for did in notifier.did()] == [True] * len(posted)


def test_a_patient_whose_address_is_unknown_gets_nothing_and_nobody_waits(start: Start, catalogue: Catalogue) -> None:
    notifier = start("notifier")
    notifier.post("lab_result.final", catalogue["lab_result.final"]["example"])
    assert notifier.did() == ["no phone known"]


def test_an_address_that_the_mail_server_refuses_holds_nobody_up(
    start: Start, mail_server: tuple[Sample, str], catalogue: Catalogue
) -> None:
    notifier = start("notifier", SMTP_ADDRESS=mail_server[1])
    scheduled = catalogue["appointment.scheduled"]["example"]
    scheduled["contact"] |= {"channel": "email", "address": "amal@hospital.invalid"}
    notifier.post("appointment.scheduled", scheduled, "evt_1")
    notifier.post("gateway.test", {}, "evt_2")
    assert notifier.did() == ["failed: ValueError('the mail server refuses this address')", "nothing: not for patients"]


def test_a_payment_gets_a_pdf_for_each_step_and_its_status_never_goes_back(start: Start, catalogue: Catalogue) -> None:
    receipts = start("receipts")
    for type in ("payment.processed", "payment.refunded", "payment.failed"):
        receipts.post(type, catalogue[type]["example"], f"evt_{type}")
    receipts.post("payment.processed", catalogue["payment.processed"]["example"], "evt_late")
    assert receipts.did()[:3] == [f"wrote a PDF, payment is {status}" for status in ("processed", "refunded", "failed")]
    statuses = {payment["payment_id"]: payment["status"] for payment in receipts.get("/payments")}
    assert statuses == {"pay_01JD7R0ZB3": "refunded", "pay_01JD7R0ZB4": "failed"}

    answer = receipts.http.get("/receipts/evt_payment.processed.pdf")
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.content.startswith(b"%PDF-")
    text = text_of(answer.content)
    assert "City Hospital - Receipt" in text
    assert "pay_01JD7R0ZB3" in text
    assert "85.00 USD" in text
    assert "Refund receipt" in text_of(receipts.http.get("/receipts/evt_payment.refunded.pdf").content)
    assert receipts.http.get("/receipts/evt_unknown.pdf").status_code == 404


def test_the_laboratory_accepts_an_order_once_under_one_accession_number(start: Start, catalogue: Catalogue) -> None:
    laboratory = start("laboratory")
    order = catalogue["lab_order.placed"]["example"]
    laboratory.post("lab_order.placed", order, "evt_1")
    laboratory.post("lab_order.placed", order, "evt_2")  # the same order in another event
    laboratory.post("lab_order.placed", {**order, "order_id": "ord_2", "accession_number": "26-327-00077"}, "evt_3")
    laboratory.did()
    orders = {row["order_id"]: (row["accession_number"], row["priority"]) for row in laboratory.get("/orders")}
    assert orders == {"ord_01JD7P3T": ("26-327-00001", "stat"), "ord_2": ("26-327-00077", "stat")}


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_the_doctor_sees_the_latest_version_of_a_result_whatever_comes_first(
    start: Start, catalogue: Catalogue, order: tuple[int, ...]
) -> None:
    inbox = start("doctors_inbox")
    types = {1: "lab_result.preliminary", 2: "lab_result.final", 3: "lab_result.corrected"}
    for version in order:
        inbox.post(types[version], catalogue[types[version]]["example"], f"evt_{version}")
    inbox.did()
    (result,) = inbox.get("/inbox")
    assert (result["status"], result["version"]) == ("corrected", 3)
    assert (result["supersedes_version"], result["correction_reason"]) == (2, "specimen_haemolysed")
    assert [(old["version"], old["status"]) for old in result["superseded"]] == [(2, "final"), (1, "preliminary")]


def test_a_version_that_comes_late_is_filed_behind_the_newer_one(start: Start, catalogue: Catalogue) -> None:
    inbox = start("doctors_inbox")
    inbox.post("lab_result.final", catalogue["lab_result.final"]["example"], "evt_1")
    inbox.post("lab_result.preliminary", catalogue["lab_result.preliminary"]["example"], "evt_2")
    assert inbox.did() == ["shows version 2: final", "filed version 1 behind version 2"]


@pytest.mark.parametrize(
    ("total", "type", "expected"),
    [
        ("1000.00", "insurance_claim.adjudicated", {"outcome": "complete", "approved": ("1000.00", "0.00")}),
        ("3420.00", "insurance_claim.adjudicated", {"outcome": "partial", "approved": ("2907.00", "513.00")}),
        ("10000.01", "insurance_claim.denied", {"denial_codes": ["CO-197"]}),
    ],
)
def test_the_insurer_decides_a_claim_and_calls_the_hospital_back(
    start: Start, catalogue: Catalogue, desk: PartnerBeside, total: str, type: str, expected: dict[str, Any]
) -> None:
    insurer = start("insurer", CALLBACK_URL=desk.url(), CALLBACK_SECRET=SECRET)
    claim = catalogue["insurance_claim.submitted"]["example"]
    claim["total"]["value"] = total
    insurer.post("insurance_claim.submitted", claim)
    assert insurer.did() == [f"decided: {type}, sent to the hospital"]
    (called,) = desk.got(1)
    decision = Webhook(SECRET).verify(called.body, called.headers)
    assert (decision["id"], decision["type"]) == (f"decision_{claim['claim_id']}", type)
    if "approved" in expected:
        data = decision["data"]
        assert data["outcome"] == expected["outcome"]
        assert (data["approved"]["value"], data["patient_responsibility"]["value"]) == expected["approved"]
    else:
        assert decision["data"]["denial_codes"] == expected["denial_codes"]
    assert [row["type"] for row in insurer.get("/decisions")] == [type]


def test_the_insurer_notes_chart_updates(start: Start, catalogue: Catalogue) -> None:
    insurer = start("insurer")
    insurer.post("medical_record.updated", catalogue["medical_record.updated"]["example"])
    assert insurer.did() == ["noted the update"]
    assert insurer.get("/records")[0]["section"] == "problem_list"


def test_the_claims_desk_turns_a_decision_into_an_event(
    start: Start, catalogue: Catalogue, desk: PartnerBeside
) -> None:
    gateway = desk  # takes any POST and answers 202 with an id
    claims_desk = start("claims_desk", GATEWAY_URL=gateway.url(""), GATEWAY_API_KEY="key_sample")
    insurer = start("insurer", CALLBACK_URL=f"{claims_desk.run.url}/webhooks", CALLBACK_SECRET=SECRET)
    insurer.post("insurance_claim.submitted", catalogue["insurance_claim.submitted"]["example"])
    insurer.did()
    assert claims_desk.did() == ["posted as evt_sample"]
    (posted,) = gateway.got(1)
    event = json.loads(posted.body)
    assert (event["type"], event["ordering_key"]) == ("insurance_claim.adjudicated", "claim:clm_01JD7T9A")
    assert event["idempotency_key"] == "decision_clm_01JD7T9A"
    assert posted.headers["authorization"] == "Bearer key_sample"
    jsonschema_rs.validate(catalogue[event["type"]]["schema"], event["data"], validate_formats=True)


def test_colleagues_hear_of_their_shifts_and_older_versions_change_nothing(
    start: Start, mail_server: tuple[Sample, str], catalogue: Catalogue
) -> None:
    sink, address = mail_server
    staff = start("staff_notifier", SMTP_ADDRESS=address)
    for type in ("staff_shift.assigned", "staff_shift.changed", "staff_shift.cancelled", "staff_shift.changed"):
        staff.post(type, catalogue[type]["example"], f"evt_{len(staff.get('/ledger'))}")
    states = [f"sent an e-mail and an SMS: {state}" for state in ("assigned", "changed", "cancelled")]
    assert staff.did() == [*states, "nothing: a newer version is known"]
    when = "Wednesday 25 November, 19:00"
    assert [mail["text"] for mail in sink.get("/mails?to=stf_3391@example.org")] == [
        f"You have a new shift: icu_2, {when}",
        f"Your shift has changed: icu_1, {when}",
        f"Your shift is cancelled: icu_1, {when}",
    ]
    assert len(staff.get("/sms")) == 3
    assert staff.get("/shifts")[0]["state"] == "cancelled"


def text_of(pdf: bytes) -> str:
    """The text of a PDF's compressed pages, as it stands in its drawing commands."""
    pages = []
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            pages.append(zlib.decompress(stream))
        except zlib.error:
            continue
    return " ".join(re.findall(r"\((.*?)\) Tj", b"\n".join(pages).decode("latin-1")))


@pytest.fixture
def desk() -> Iterator[PartnerBeside]:
    """The hospital's side: takes what is POSTed to it."""
    with partner_beside(otherwise=(202, b'{"id": "evt_sample"}')) as made:
        yield made
