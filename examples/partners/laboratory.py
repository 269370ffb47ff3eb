"""An external laboratory: accepts orders and gives each an accession number."""

import sqlite3
from datetime import datetime

from .receiver import Event
from .serve import page, serve

TABLES = """
CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, order_id TEXT UNIQUE, accession_number TEXT,
                                   priority TEXT, tests INT);
"""


def work(store: sqlite3.Connection, event: Event) -> str:
    match event["type"]:
        case "lab_order.placed":
            return accept(store, event)
        case _:
            return "nothing: not an order"


def accept(store: sqlite3.Connection, event: Event) -> str:
    """Idempotent: an order that is known keeps the number it has."""
    order = event["data"]
    row = (order["order_id"], order.get("priority", "routine"), len(order.get("tests", [])))
    store.execute("INSERT OR IGNORE INTO orders (order_id, priority, tests) VALUES (?, ?, ?)", row)
    (number,) = store.execute("SELECT number FROM orders WHERE order_id = ?", row[:1]).fetchone()
    day = datetime.fromisoformat(event["timestamp"])
    accession = order.get("accession_number") or f"{day:%y-%j}-{number:05}"
    store.execute("UPDATE orders SET accession_number = ? WHERE number = ?", (accession, number))
    return f"accepted the order as {accession}"


if __name__ == "__main__":
    serve("laboratory", work, TABLES, [page("/orders", "SELECT * FROM orders ORDER BY number")])
