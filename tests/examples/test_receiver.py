"""What every sample partner does with a callback, whatever its work."""

import signal
import time

import pytest

from tests.examples.sending import Sample, Start

ORDER = {"order_id": "ord_1", "patient_id": "pat_1", "ordering_practitioner_id": "prac_1"}
OTHER_SECRET = "whsec_b3RoZXIgc2VjcmV0IG9mIHNvbWVib2R5IGVsc2U="


@pytest.mark.parametrize(
    "name", ["notifier", "receipts", "laboratory", "doctors_inbox", "insurer", "staff_notifier", "claims_desk"]
)
def test_every_partner_refuses_a_signature_that_is_not_ours_and_accepts_one_that_is(start: Start, name: str) -> None:
    partner = start(name)
    assert partner.post("gateway.test", {}, secret=OTHER_SECRET).status_code == 401
    assert partner.post("gateway.test", {}, spoil=b" ").status_code == 401
    assert partner.post("gateway.test", {}).status_code == 202
    partner.did()
    assert [entry["signature_ok"] for entry in partner.get("/ledger")] == [0, 0, 1]
    assert partner.did()[2].startswith("nothing: ")


@pytest.mark.parametrize("signature", ["", "nonsense", "v1,???", "v1", "v1a,AAAA"])
def test_a_malformed_signature_is_refused_like_a_false_one(start: Start, signature: str) -> None:
    partner = start("laboratory")
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(int(time.time())), "webhook-signature": signature}
    assert partner.http.post("/webhooks", content=b"{}", headers=headers).status_code == 401


def test_a_duplicate_is_answered_with_success_and_does_nothing(start: Start) -> None:
    laboratory = start("laboratory")
    first, again = laboratory.post("lab_order.placed", ORDER), laboratory.post("lab_order.placed", ORDER)
    assert (first.json(), again.json()) == ({"status": "accepted"}, {"status": "duplicate"})
    assert laboratory.did() == ["accepted the order as 26-327-00001", "nothing: had it already"]
    assert [entry["duplicate"] for entry in laboratory.get("/ledger")] == [0, 1]


def test_a_duplicate_is_recognised_after_a_restart(start: Start) -> None:
    laboratory = start("laboratory")
    laboratory.post("lab_order.placed", ORDER)
    assert stop(laboratory) == 0
    assert start("laboratory").post("lab_order.placed", ORDER).json() == {"status": "duplicate"}


def test_fail_first_answers_503_with_retry_after_and_then_accepts(start: Start) -> None:
    laboratory = start("laboratory", "--fail-first", "2")
    answers = [laboratory.post("lab_order.placed", ORDER) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 202]
    assert [answer.headers.get("retry-after") for answer in answers] == ["1", "1", None]
    assert laboratory.did()[2] == "accepted the order as 26-327-00001"


def test_a_slow_partner_keeps_the_event_although_nobody_waits_for_its_answer(start: Start) -> None:
    laboratory = start("laboratory", SLOW="0.3")
    answer = laboratory.post("lab_order.placed", ORDER)
    assert answer.elapsed.total_seconds() >= 0.3
    assert laboratory.did() == ["accepted the order as 26-327-00001"]


def test_what_was_accepted_is_worked_off_after_a_crash(start: Start, mail_server: tuple[Sample, str]) -> None:
    shift = {"shift_id": "shf_1", "staff_id": "stf_1", "facility_id": "fac", "starts_at": "2026-11-25T19:00:00+02:00"}
    partner = start("staff_notifier", SMTP_ADDRESS="127.0.0.1:1")  # nobody listens there: the mail can't leave yet
    assert partner.post("staff_shift.assigned", {**shift, "version": 1}).status_code == 202
    assert stop(partner, signal.SIGKILL) == -signal.SIGKILL

    sink, address = mail_server
    partner = start("staff_notifier", SMTP_ADDRESS=address)
    assert partner.did() == ["sent an e-mail and an SMS: assigned"]
    assert len(sink.get("/mails")) == 1


def test_an_event_that_breaks_the_work_does_not_hold_up_those_behind_it(start: Start) -> None:
    laboratory = start("laboratory")
    laboratory.post("lab_order.placed", {}, "evt_1")
    laboratory.post("lab_order.placed", ORDER, "evt_2")
    assert laboratory.did() == ["failed: KeyError('order_id')", "accepted the order as 26-327-00001"]


def test_bodies_are_forgotten_when_the_work_is_done(start: Start) -> None:
    laboratory = start("laboratory")
    laboratory.post("lab_order.placed", {**ORDER, "patient_id": "pat_unforgettable"})
    laboratory.did()
    assert "pat_unforgettable" not in laboratory.http.get("/ledger").text + laboratory.http.get("/orders").text


def stop(partner: Sample, how: signal.Signals = signal.SIGTERM) -> int:
    partner.run.process.send_signal(how)
    return partner.run.process.wait(10)
