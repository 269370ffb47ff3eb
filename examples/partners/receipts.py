"""Payments and receipts: keeps each payment's status and writes a PDF for every step."""

import sqlite3

from fpdf import FPDF
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .receiver import Event
from .serve import page, serve

TABLES = """
CREATE TABLE IF NOT EXISTS payments (payment_id TEXT PRIMARY KEY, status TEXT, step INT, value TEXT, currency TEXT);
CREATE TABLE IF NOT EXISTS receipts (webhook_id TEXT PRIMARY KEY, payment_id TEXT, title TEXT, pdf BLOB);
"""

ADVANCE = """
INSERT INTO payments VALUES (:payment_id, :status, :step, :value, :currency)
ON CONFLICT DO UPDATE SET status = excluded.status, step = excluded.step
WHERE excluded.step > step  -- a refund is never undone by a capture that comes late
"""

STEPS = {"payment.failed": 1, "payment.processed": 2, "payment.refunded": 3}
TITLES = {"payment.failed": "Payment failed", "payment.processed": "Receipt", "payment.refunded": "Refund receipt"}


def work(store: sqlite3.Connection, event: Event) -> str:
    if event["type"] not in STEPS:
        return "nothing: not a payment"
    payment_id, amount = event["data"]["payment_id"], event["data"]["amount"]
    status, step = event["type"].removeprefix("payment."), STEPS[event["type"]]
    receipt = (event["id"], payment_id, TITLES[event["type"]], draw_receipt(event))
    store.execute("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?)", receipt)
    store.execute(ADVANCE, {"payment_id": payment_id, "status": status, "step": step, **amount})
    return f"wrote a PDF, payment is {status}"


def draw_receipt(event: Event) -> bytes:
    data = event["data"]
    lines = {
        "Payment": data["payment_id"],
        "Invoice": data.get("invoice_id", "-"),
        "Amount": f"{data['amount']['value']} {data['amount']['currency']}",
        "Paid by": f"{data['method']} {data.get('card_last4', '')}" if "method" in data else "-",
        "Reason": data.get("failure_code", data.get("reason_code", "-")),
        "Date": event["timestamp"][:10],
    }
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", "B", 18)
    pdf.cell(0, 14, f"City Hospital - {TITLES[event['type']]}", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("Helvetica", size=12)
    for label, value in lines.items():
        pdf.cell(30, 9, label)
        pdf.cell(0, 9, latin(value), new_x="LMARGIN", new_y="NEXT")
    return bytes(pdf.output())


def latin(text: str) -> str:
    """The built-in fonts of a PDF know Latin-1 only; embed a font of your own for more."""
    return text.encode("latin-1", "replace").decode("latin-1")


async def show_receipt(request: Request) -> Response:
    query = "SELECT pdf FROM receipts WHERE webhook_id = ?"
    row = request.app.state.store.execute(query, (request.path_params["webhook_id"],)).fetchone()
    return Response(row["pdf"], media_type="application/pdf") if row else Response(status_code=404)


if __name__ == "__main__":
    pages = [
        page("/payments", "SELECT payment_id, status, value, currency FROM payments ORDER BY rowid"),
        page("/receipts", "SELECT webhook_id, payment_id, title FROM receipts ORDER BY rowid"),
        Route("/receipts/{webhook_id}.pdf", show_receipt),
    ]
    serve("receipts", work, TABLES, pages)
