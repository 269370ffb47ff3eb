"""The guide for Laravel, followed to the letter on an empty application, and what it promises."""

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from tests.examples.gateways import RunningGateway
from tests.examples.laravels import CHECKOUT, EMPTY, Laravel, background, steps, why_not
from tests.examples.sending import Sample
from tests.examples.test_receivers import forgeries, free_port, request
from webhook_gateway.client import Gateway

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("samples against a gateway"),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]
CONTACT = "amal.unforgettable@example.org"
BOOKING = {
    "patient_id": "pat_unforgettable",
    "practitioner_id": "prac_1",
    "location_id": "loc_1",
    "starts_at": "2026-11-24T09:30:00+02:00",
    "email": CONTACT,
}


@pytest.fixture(scope="module")
def guided(gateway: RunningGateway, tmp_path_factory: pytest.TempPathFactory) -> Laravel:
    """An empty application after the guide's steps 2 and 3: nothing runs yet."""
    folder = tmp_path_factory.mktemp("laravel")
    (folder / "webhook-gateway").symlink_to(CHECKOUT)
    application = Laravel(folder / "hms")
    shutil.copytree(EMPTY, application.folder)
    config = application.folder / "config" / "app.php"
    last = "        App\\Providers\\RouteServiceProvider::class,\n"
    assert last in config.read_text()
    config.write_text(config.read_text().replace(last, last + steps()["providers"]))
    script = steps()["parts"] + at(gateway, steps()["settings"]) + '\necho "$SECRET" > secret'
    ran = application.sh(script, {"COMPOSER_ALLOW_SUPERUSER": "1", "WEBHOOK_GATEWAY_DATA": str(gateway.data)})
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return application


def at(gateway: RunningGateway, script: str) -> str:
    """The guide's lines, for a gateway with another address and its administrator's key."""
    return script.replace("http://127.0.0.1:8080", gateway.url).replace("whk_…", gateway.key)


def test_the_guide_leads_to_a_delivered_verified_webhook(
    guided: Laravel, gateway: RunningGateway, tmp_path: Path
) -> None:
    application = guided.copy(tmp_path / "hms")
    port = str(free_port())
    with background(steps()["run"].replace("8000", port), tmp_path) as running:
        assert running.stdout is not None
        assert any(f"http://127.0.0.1:{port}" in line and "started" in line for line in running.stdout)
        secret = (guided.folder / "secret").read_text().strip()
        script = f"cd hms; SECRET={secret}\n" + at(gateway, steps()["partner"] + steps()["event"]).replace("8000", port)
        made = application.sh(script)
        assert '"patient_id":"pat_1"' in made.stdout, made.stdout + made.stderr
        assert any(re.search(r"Processed: +App.Inbox.HandleWebhook", line) for line in running.stdout)

    assert "To: amal@example.org" in log(application)
    assert "Your appointment is booked for Tuesday 24 November, 09:30 EET." in log(application)
    shown = application.artisan("outbox")
    assert (shown.stdout, shown.returncode) == ("nothing waits\n", 0)
    with Gateway(gateway.url, gateway.key) as hospital:
        endpoint = re.search(r'"(ep_\w+)"', made.stdout)
        assert endpoint is not None
        hospital.post(f"/v1/endpoints/{endpoint[1]}/pause")
        (event,) = [row["webhook_id"] for row in application.rows("inbox")]
        assert hospital.get(f"/v1/events/{event}")["type"] == "appointment.scheduled"


@pytest.fixture
def application(guided: Laravel, tmp_path: Path) -> Laravel:
    """What the guide has made, with an empty database; nobody works off its queue but the test."""
    return guided.copy(tmp_path / "hms")


REQUESTS = {
    "appointment.scheduled": ("POST", "/api/appointments", BOOKING),
    "payment.processed": (
        "POST",
        "/api/payments",
        {"invoice_id": "inv_1", "patient_id": "pat_1", "amount": "85", "currency": "USD"},
    ),
    "lab_result.final": ("PUT", "/api/lab-results/res_1", {"order_id": "o", "patient_id": "p", "abnormal": True}),
    "insurance_claim.submitted": (
        "POST",
        "/api/claims",
        {"patient_id": "pat_1", "payer_id": "payer_1", "member_id": "W1", "total": 3420.5, "currency": "USD"},
    ),
    "staff_shift.assigned": (
        "POST",
        "/api/shifts",
        {"staff_id": "stf_1", "facility_id": "fac", "starts_at": "2026-11-25T19:00:00+02:00"},
    ),
}


def test_each_of_the_five_controllers_posts_an_event_that_its_schema_allows(
    application: Laravel, gateway: RunningGateway
) -> None:
    for method, path, given in REQUESTS.values():
        assert application.request(method, path, json.dumps(given)).status in (200, 201)
    written = application.rows("outbox")
    assert [row["type"] for row in written] == list(REQUESTS)
    application.work()
    assert application.rows("outbox") == []
    data = {row["type"]: json.loads(row["event"])["data"] for row in written}
    assert data["payment.processed"]["amount"] == {"value": "85.00", "currency": "USD"}
    assert data["insurance_claim.submitted"]["total"] == {"value": "3420.50", "currency": "USD"}
    assert data["appointment.scheduled"]["starts_at"] == "2026-11-24T07:30:00+00:00"
    assert all(is_there(gateway, row) for row in written)


def test_what_is_rolled_back_leaves_no_event_and_no_transaction_means_no_event(application: Laravel) -> None:
    said = application.php(
        "$outbox = $app->make(App\\Outbox\\Outbox::class); $said = [];"
        "foreach ([fn () => $outbox->write('a.b', []), fn () => Illuminate\\Support\\Facades\\DB::transaction("
        "  function () use ($outbox) { $outbox->write('a.b', []); throw new Exception('rolled back'); })] as $try) {"
        "  try { $try(); } catch (Throwable $thrown) { $said[] = $thrown->getMessage(); } }"
        "return $said;"
    )
    assert said == ["Write an event in the transaction of what it tells of: DB::transaction(…).", "rolled back"]
    assert application.rows("outbox") == application.rows("jobs") == []


def test_while_the_gateway_is_away_events_wait_and_nothing_about_a_patient_leaves_the_outbox(
    application: Laravel, gateway: RunningGateway
) -> None:
    for _ in range(3):
        assert book(application).status == 201
    waiting = application.rows("outbox")
    application.work(GATEWAY_URL="http://127.0.0.1:1")
    assert application.rows("outbox") == waiting
    assert len(application.rows("jobs")) == 1, "one comes again, whatever the number of events"
    assert application.rows("failed_jobs") == []
    told = log(application) + json.dumps(application.rows("jobs"))
    assert "the gateway is unavailable" in told.lower()
    assert "unforgettable" not in told

    later(application)
    application.work()
    assert application.rows("outbox") == []
    assert all(is_there(gateway, row) for row in waiting)


def test_a_job_that_died_between_the_answer_and_the_deletion_does_no_harm(
    application: Laravel, gateway: RunningGateway
) -> None:
    book(application)
    (row,) = application.rows("outbox")
    application.work()
    insert = "Illuminate\\Support\\Facades\\DB::table('outbox')->insert($given); App\\Outbox\\PostOutbox::dispatch();"
    application.php(insert, row)
    application.work()
    assert application.rows("outbox") == []
    assert is_there(gateway, row)


def test_a_queue_that_is_down_costs_neither_the_appointment_nor_its_event(application: Laravel) -> None:
    application.php("Illuminate\\Support\\Facades\\Schema::rename('jobs', 'jobs_elsewhere');")
    assert book(application).status == 201
    application.php("Illuminate\\Support\\Facades\\Schema::rename('jobs_elsewhere', 'jobs');")
    assert len(application.rows("outbox")) == 1
    assert "no such table: jobs" in log(application), "it is reported"


def test_more_events_than_are_read_at_once_are_all_posted_by_one_job(application: Laravel) -> None:
    write = (
        "$outbox = $app->make(App\\Outbox\\Outbox::class);"
        "Illuminate\\Support\\Facades\\DB::transaction(function () use ($outbox, $given) {"
        "  for ($n = 0; $n < 501; $n++) { $outbox->write('lab_order.placed', $given); } });"
        "Illuminate\\Support\\Facades\\DB::table('jobs')->delete(); App\\Outbox\\PostOutbox::dispatch();"
    )
    application.php(write, {"order_id": "o", "patient_id": "p", "ordering_practitioner_id": "d"})
    assert application.artisan("queue:work", "--once").returncode == 0
    assert application.rows("outbox") == []


def test_an_event_whose_job_was_lost_is_posted_by_the_schedule(application: Laravel) -> None:
    book(application)
    application.php("Illuminate\\Support\\Facades\\DB::table('jobs')->delete();")
    assert application.artisan("schedule:run").returncode == 0
    application.work()
    assert application.rows("outbox") == []


def test_a_refused_event_stays_with_its_reason_holds_nobody_up_and_is_seen(application: Laravel) -> None:
    write = (
        "Illuminate\\Support\\Facades\\DB::transaction(fn () => $app->make(App\\Outbox\\Outbox::class)"
        "->write('appointment.scheduled', ['patient_id' => 'pat_unforgettable', 'version' => 'x']));"
    )
    application.php(write)
    book(application)
    application.work()
    (row,) = application.rows("outbox")
    assert "/data/version" in row["refused"]
    assert "unforgettable" not in log(application) + row["refused"]
    shown = application.artisan("outbox")
    assert shown.returncode == 1
    assert f"refused: {row['id']} appointment.scheduled: 422" in shown.stdout

    assert application.artisan("outbox", "--retry").stdout == "1 to be posted again\n"
    assert application.rows("outbox") == [row | {"refused": None}]
    application.work()
    assert application.rows("outbox") == [row]


def test_a_key_that_is_wrong_costs_no_event_and_is_seen(application: Laravel) -> None:
    book(application)
    application.work(GATEWAY_API_KEY="whk_wrong")
    (row,) = application.rows("outbox")
    assert row["refused"] is None
    (failed,) = application.rows("failed_jobs")
    assert "WebhookGateway\\Refused: 401" in failed["exception"]
    assert "unforgettable" not in json.dumps(failed)

    later(application)
    application.work()
    assert application.rows("outbox") == []


def test_events_are_posted_in_the_order_in_which_they_were_written_whoever_works(
    application: Laravel, gateway: RunningGateway
) -> None:
    for _ in range(20):
        application.request(*REQUESTS["lab_result.final"][:2], json.dumps(REQUESTS["lab_result.final"][2]))
    written = [json.loads(row["event"]) for row in application.rows("outbox")]
    worker = "php artisan queue:work --stop-when-empty --sleep=0"
    both = application.sh(f"cd hms; {worker} & {worker} & {worker}; wait")
    assert both.returncode == 0, both.stdout + both.stderr
    assert application.rows("outbox") == []
    moments = {event["timestamp"]: event["data"]["version"] for event in written}
    with Gateway(gateway.url, gateway.key) as hospital:
        newest = hospital.get("/v1/events", type="lab_result.final", limit=20)["items"]
    stamps = [at_utc(event["timestamp"]) for event in reversed(newest)]
    assert [{at_utc(moment): version for moment, version in moments.items()}[stamp] for stamp in stamps] == list(
        range(1, 21)
    )


# The receiving side


Mails = tuple[Sample, dict[str, str]]


@pytest.fixture
def mails(mail_server: tuple[Sample, str]) -> Mails:
    """A mail server, and what an application has to know of it."""
    sink, address = mail_server
    host, _, port = address.rpartition(":")
    return sink, {"MAIL_MAILER": "smtp", "MAIL_HOST": host, "MAIL_PORT": port}


@pytest.fixture
def receive(application: Laravel, guided: Laravel) -> Callable[..., int]:
    """Posts a signed event to the application, and returns the status of its answer."""
    secret = (guided.folder / "secret").read_text().strip()

    def post(type: str = "appointment.scheduled", webhook_id: str = "evt_1") -> int:
        contact = {"channel": "email", "address": CONTACT, "language": "en", "reminder_opt_in": True}
        data = {"starts_at": "2026-11-24T09:30:00+02:00", "department": "cardiology", "contact": contact}
        body = json.dumps({"id": webhook_id, "type": type, "data": data})
        now = datetime.now(UTC)
        headers = {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign(webhook_id, now, body),
        }
        return application.request("POST", "/webhooks", body, headers).status

    return post


def test_a_webhook_becomes_one_mail_however_often_it_comes(
    application: Laravel, receive: Callable[..., int], mails: Mails
) -> None:
    sink, settings = mails
    assert [receive(), receive()] == [204, 204]
    application.work(**settings)
    assert receive() == 204
    application.work(**settings)
    (mail,) = sink.get(f"/mails?to={CONTACT}")
    assert mail["text"].strip() == "Your appointment is booked for Tuesday 24 November, 09:30 EET."
    (row,) = application.rows("inbox")
    assert row["body"] is None
    assert application.rows("jobs") == application.rows("failed_jobs") == []
    assert "unforgettable" not in log(application)


def test_a_type_that_nobody_knows_is_a_success(application: Laravel, receive: Callable[..., int]) -> None:
    assert receive("something.new") == 204
    application.work()
    (row,) = application.rows("inbox")
    assert row["handled_at"] is not None


def test_forged_old_and_unsigned_requests_are_refused_and_leave_nothing(application: Laravel, guided: Laravel) -> None:
    secret = (guided.folder / "secret").read_text().strip()
    for headers, body in forgeries(secret):
        assert application.request("POST", "/webhooks", body.decode(), headers).status == 401
    assert application.rows("inbox") == application.rows("jobs") == []


def test_while_a_secret_is_changed_both_are_accepted(application: Laravel, guided: Laravel) -> None:
    old, new = (guided.folder / "secret").read_text().strip(), "whsec_" + "A" * 43 + "="
    for secret in (old, new):
        headers, body = request(secret)
        answer = application.request("POST", "/webhooks", body.decode(), headers, WEBHOOK_SECRETS=f"{new},{old}")
        assert answer.status == 204


def test_a_mail_server_that_is_away_loses_no_event(
    application: Laravel, receive: Callable[..., int], mails: Mails
) -> None:
    sink, settings = mails
    receive()
    application.work(**settings | {"MAIL_PORT": "1"})
    (row,) = application.rows("inbox")
    assert (row["handled_at"], len(application.rows("jobs"))) == (None, 1)
    later(application)
    application.work(**settings)
    assert len(sink.get("/mails")) == 1


def test_an_event_kept_just_before_a_crash_is_worked_off_when_it_comes_again(
    application: Laravel, receive: Callable[..., int], mails: Mails
) -> None:
    sink, settings = mails
    receive()
    application.php("Illuminate\\Support\\Facades\\DB::table('jobs')->delete();")  # it died before it queued the job
    receive()
    application.work(**settings)
    assert len(sink.get("/mails")) == 1


# What it was like before


def test_before_a_partner_that_was_down_cost_the_message_and_showed_the_user_an_error(application: Laravel) -> None:
    shutil.copytree(CHECKOUT / "examples" / "laravel" / "before", application.folder, dirs_exist_ok=True)
    names = ("sms", "calendar", "receipts", "doctors", "insurer", "staff")
    partners = ", ".join(f"'{name}' => 'http://127.0.0.1:1'" for name in names)
    (application.folder / "config" / "services.php").write_text(f"<?php return ['partners' => [{partners}]];\n")
    for number, (method, path, given) in enumerate(REQUESTS.values(), 1):
        assert application.request(method, path, json.dumps(given)).status == 500
        assert log(application).count("local.ERROR: cURL error 7") == number, "it is the partner's failure"
    for table in ("appointments", "payments", "lab_results", "claims", "shifts"):
        assert len(application.rows(table)) == 1
    assert application.rows("outbox") == []


def book(application: Laravel) -> Any:
    return application.request("POST", "/api/appointments", json.dumps(BOOKING))


def later(application: Laravel) -> None:
    """As if the pauses were over: jobs are due, what the cache remembers has expired."""
    application.artisan("cache:clear")
    application.php("Illuminate\\Support\\Facades\\DB::table('jobs')->update(['available_at' => 0]);")
    application.php("App\\Outbox\\PostOutbox::dispatch();")


def log(application: Laravel) -> str:
    file = application.folder / "storage" / "logs" / "laravel.log"
    return file.read_text() if file.exists() else ""


def is_there(gateway: RunningGateway, row: dict[str, Any]) -> bool:
    """Whether posting the same bytes once more finds the event there."""
    answer = httpx.post(
        f"{gateway.url}/v1/events",
        content=row["event"].encode(),
        headers={"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"},
        trust_env=False,
    )
    return answer.status_code == 202 and answer.json()["duplicate"] is True


def at_utc(moment: str) -> datetime:
    return datetime.fromisoformat(moment).astimezone(UTC)
