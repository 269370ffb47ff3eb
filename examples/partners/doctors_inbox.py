"""A doctor's inbox: shows the latest version of each result and what it superseded.

A result goes from preliminary to final to corrected and never back: a version that comes late is filed as superseded.
"""

import json
import sqlite3

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .receiver import Event
from .serve import serve

TABLES = """
CREATE TABLE IF NOT EXISTS results (result_id TEXT, version INT, status TEXT, reason TEXT, data TEXT,
                                    PRIMARY KEY (result_id, version));
"""


def work(store: sqlite3.Connection, event: Event) -> str:
    match event["type"]:
        case "lab_result.preliminary" | "lab_result.final" | "lab_result.corrected":
            return file_result(store, event)
        case _:
            return "nothing: not a result"


def file_result(store: sqlite3.Connection, event: Event) -> str:
    result = event["data"]
    row = (
        result["result_id"],
        result["version"],
        result["status"],
        result.get("correction_reason"),
        json.dumps(result),
    )
    store.execute("INSERT OR IGNORE INTO results VALUES (?, ?, ?, ?, ?)", row)
    (latest,) = store.execute("SELECT max(version) FROM results WHERE result_id = ?", row[:1]).fetchone()
    if result["version"] < latest:
        return f"filed version {result['version']} behind version {latest}"
    return f"shows version {latest}: {result['status']}"


async def show_inbox(request: Request) -> Response:
    """Each result once: its current version in full, and the versions that it superseded, newest first."""
    inbox: dict[str, dict[str, object]] = {}
    superseded: dict[str, list[dict[str, object]]] = {}
    for row in request.app.state.store.execute("SELECT * FROM results ORDER BY version DESC"):
        result_id = row["result_id"]
        if result_id not in inbox:
            superseded[result_id] = []
            inbox[result_id] = {**json.loads(row["data"]), "superseded": superseded[result_id]}
        else:
            superseded[result_id].append({"version": row["version"], "status": row["status"], "reason": row["reason"]})
    return JSONResponse(list(inbox.values()))


if __name__ == "__main__":
    serve("doctors_inbox", work, TABLES, [Route("/inbox", show_inbox)])
