"""Staff notification: tells colleagues by mail and SMS which shifts they have."""

import sqlite3
import zlib
from datetime import datetime

from .mail import send_mail
from .receiver import Event
from .serve import page, serve

TABLES = """
CREATE TABLE IF NOT EXISTS shifts (shift_id TEXT PRIMARY KEY, staff_id TEXT, unit TEXT, starts_at TEXT, state TEXT,
                                   version INT);
CREATE TABLE IF NOT EXISTS sms (webhook_id TEXT PRIMARY KEY, phone TEXT, text TEXT);
"""

UPSERT = """
INSERT INTO shifts VALUES (:shift_id, :staff_id, :unit, :starts_at, :state, :version)
ON CONFLICT DO UPDATE SET unit = coalesce(excluded.unit, unit), starts_at = coalesce(excluded.starts_at, starts_at),
                          state = excluded.state, version = excluded.version
WHERE excluded.version >= version  -- an older version that comes late changes nothing; the same one again may
RETURNING *
"""


def work(store: sqlite3.Connection, event: Event) -> str:
    match event["type"]:
        case "staff_shift.assigned":
            return tell(store, event, "assigned", "You have a new shift")
        case "staff_shift.changed":
            return tell(store, event, "changed", "Your shift has changed")
        case "staff_shift.cancelled":
            return tell(store, event, "cancelled", "Your shift is cancelled")
        case _:
            return "nothing: not for staff"


def tell(store: sqlite3.Connection, event: Event, state: str, headline: str) -> str:
    changes = {"unit": None, "starts_at": None, **event["data"], "state": state}
    shift = store.execute(UPSERT, changes).fetchone()
    if shift is None:
        return "nothing: a newer version is known"
    email, phone = addresses(shift["staff_id"])
    text = f"{headline}: {describe(shift)}"
    send_mail(email, headline, text, event["id"])
    store.execute("INSERT OR IGNORE INTO sms VALUES (?, ?, ?)", (event["id"], phone, text))
    return f"sent an e-mail and an SMS: {state}"


def describe(shift: sqlite3.Row) -> str:
    unit, starts_at = shift["unit"] or "unit to be announced", shift["starts_at"]
    return (
        f"{unit}, {datetime.fromisoformat(starts_at):%A %d %B, %H:%M}" if starts_at else f"{unit}, {shift['shift_id']}"
    )


def addresses(staff_id: str) -> tuple[str, str]:
    """Your staff directory goes here. In the sample an address is made of the id."""
    return f"{staff_id}@example.org", f"+1202555{zlib.crc32(staff_id.encode()) % 10_000:04}"


if __name__ == "__main__":
    pages = [page("/shifts", "SELECT * FROM shifts"), page("/sms", "SELECT * FROM sms ORDER BY rowid")]
    serve("staff_notifier", work, TABLES, pages)
