"""An SMS and e-mail provider: tells patients about appointments, results and payments.

Nothing clinical leaves in a message: a result is announced, never told, and a department is not named.
"""

import sqlite3
from datetime import datetime
from typing import Any

from .mail import send_mail
from .receiver import Event
from .serve import page, serve

TABLES = """
CREATE TABLE IF NOT EXISTS contacts (patient_id TEXT PRIMARY KEY, email TEXT, phone TEXT);
CREATE TABLE IF NOT EXISTS appointments (appointment_id TEXT PRIMARY KEY, version INT);
CREATE TABLE IF NOT EXISTS sms (webhook_id TEXT PRIMARY KEY, phone TEXT, text TEXT);
"""


def work(store: sqlite3.Connection, event: Event) -> str:
    data = event["data"]
    match event["type"]:
        case "appointment.scheduled":
            remember_contact(store, data)
            return tell_appointment(store, event, f"Your appointment is booked for {spoken(data['starts_at'])}.")
        case "appointment.rescheduled":
            return tell_appointment(store, event, f"Your appointment has moved to {spoken(data['starts_at'])}.")
        case "appointment.cancelled":
            return tell_appointment(store, event, "Your appointment has been cancelled.")
        case "lab_result.final":
            return send_sms(store, event, "A new result is ready. Sign in to the patient portal to read it.")
        case "payment.processed":
            return send_sms(store, event, "We have received your payment. Thank you.")
        case "payment.failed":
            return send_sms(store, event, "Your payment did not go through. No money was taken.")
        case _:
            return "nothing: not for patients"


def remember_contact(store: sqlite3.Connection, data: dict[str, Any]) -> None:
    """`contact` names the preferred channel and address; `email` and `phone` may stand beside them."""
    contact = data.get("contact", {})
    known = {contact.get("channel"): contact.get("address")}
    email, phone = contact.get("email", known.get("email")), contact.get("phone", known.get("sms"))
    store.execute("INSERT OR REPLACE INTO contacts VALUES (?, ?, ?)", (data["patient_id"], email, phone))


def tell_appointment(store: sqlite3.Connection, event: Event, text: str) -> str:
    data = event["data"]
    newer = "INSERT INTO appointments VALUES (?, ?) ON CONFLICT DO UPDATE SET version = excluded.version"
    late = "SELECT 1 FROM appointments WHERE appointment_id = ? AND version > ?"
    if store.execute(late, (data["appointment_id"], data["version"])).fetchone():
        return "nothing: the patient knows a newer version"
    store.execute(newer, (data["appointment_id"], data["version"]))
    return f"{send_email(store, event, text)}, {send_sms(store, event, text)}"


def send_email(store: sqlite3.Connection, event: Event, text: str) -> str:
    contact = contact_of(store, event)
    if contact is None or contact["email"] is None:
        return "no e-mail address known"
    send_mail(contact["email"], "Your appointment at City Hospital", text, event["id"])
    return "sent an e-mail"


def send_sms(store: sqlite3.Connection, event: Event, text: str) -> str:
    contact = contact_of(store, event)
    if contact is None or contact["phone"] is None:
        return "no phone known"
    store.execute("INSERT OR IGNORE INTO sms VALUES (?, ?, ?)", (event["id"], contact["phone"], text))
    return "sent an SMS"


def contact_of(store: sqlite3.Connection, event: Event) -> sqlite3.Row | None:
    query = "SELECT * FROM contacts WHERE patient_id = ?"
    row: sqlite3.Row | None = store.execute(query, (event["data"]["patient_id"],)).fetchone()
    return row


def spoken(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%A %d %B, %H:%M}"


if __name__ == "__main__":
    serve("notifier", work, TABLES, [page("/sms", "SELECT * FROM sms ORDER BY rowid")])
