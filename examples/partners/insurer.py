"""An insurer: notes chart updates, decides claims, and sends each decision back to the hospital.

The decision goes to CALLBACK_URL, signed with CALLBACK_SECRET in the same way as the hospital signs, so the hospital
can receive it with the same few lines (see examples/claims_desk.py).
"""

import json
import os
import sqlite3
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.request import Request, urlopen

from standardwebhooks import Webhook

from .receiver import Event
from .serve import page, serve

TABLES = """
CREATE TABLE IF NOT EXISTS records (webhook_id TEXT PRIMARY KEY, patient_id TEXT, section TEXT, change TEXT);
CREATE TABLE IF NOT EXISTS decisions (claim_id TEXT PRIMARY KEY, type TEXT, decision TEXT);
"""


def work(store: sqlite3.Connection, event: Event) -> str:
    data = event["data"]
    match event["type"]:
        case "medical_record.updated":
            row = (event["id"], data["patient_id"], data["section"], data["change"])
            store.execute("INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?)", row)
            return "noted the update"
        case "insurance_claim.submitted":
            type, decision = decide(data, datetime.fromisoformat(event["timestamp"]))
            kept = (data["claim_id"], type, json.dumps(decision))
            store.execute("INSERT OR IGNORE INTO decisions VALUES (?, ?, ?)", kept)
            return f"decided: {type}, {send_back(type, decision, event)}"
        case _:
            return "nothing: not for an insurer"


def decide(claim: dict[str, Any], now: datetime) -> tuple[str, dict[str, Any]]:
    """Up to 1,000 is paid in full, up to 10,000 at 85 %; more would have needed an authorisation (CO-197)."""
    total, currency = Decimal(claim["total"]["value"]), claim["total"]["currency"]
    if total > 10_000:
        appeal_by: date = now.date() + timedelta(days=60)
        denial = {"claim_id": claim["claim_id"], "denial_codes": ["CO-197"], "appeal_by": appeal_by.isoformat()}
        return "insurance_claim.denied", denial
    approved = total if total <= 1_000 else total * Decimal("0.85")
    return "insurance_claim.adjudicated", {
        "claim_id": claim["claim_id"],
        "outcome": "complete" if approved == total else "partial",
        "approved": {"value": f"{approved:.2f}", "currency": currency},
        "patient_responsibility": {"value": f"{total - approved:.2f}", "currency": currency},
        "adjustment_codes": [] if approved == total else ["CO-45"],
        "decided_at": now.isoformat(timespec="milliseconds"),
    }


def send_back(type: str, decision: dict[str, Any], event: Event) -> str:
    """POST the decision as a signed webhook. Its id is made of the claim's: sent twice, it is kept once."""
    url = os.environ.get("CALLBACK_URL")
    if not url:
        return "to be fetched from /decisions"
    answer_id, now = f"decision_{decision['claim_id']}", datetime.now(UTC)
    body = json.dumps({"id": answer_id, "type": type, "timestamp": event["timestamp"], "data": decision})
    signature = Webhook(os.environ["CALLBACK_SECRET"]).sign(answer_id, now, body)
    headers = {"webhook-id": answer_id, "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    with urlopen(Request(url, body.encode(), {"Content-Type": "application/json", **headers}), timeout=10):
        return "sent to the hospital"


if __name__ == "__main__":
    pages = [page("/decisions", "SELECT * FROM decisions"), page("/records", "SELECT * FROM records ORDER BY rowid")]
    serve("insurer", work, TABLES, pages)
