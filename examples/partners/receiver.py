"""What every partner does with a callback: verify, keep once, answer 202; then work it off, even after a crash."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NotRequired, TypedDict

from standardwebhooks import Webhook, WebhookVerificationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

TABLES = """
CREATE TABLE IF NOT EXISTS inbox (webhook_id TEXT PRIMARY KEY, body BLOB);  -- body: NULL as soon as the work is done
CREATE TABLE IF NOT EXISTS ledger (webhook_id TEXT, type TEXT, duplicate INT, signature_ok INT, did TEXT, received_at);
"""
NOTE = "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"
OLDEST = "SELECT webhook_id, body FROM inbox WHERE body NOT NULL ORDER BY rowid LIMIT 1"


class Event(TypedDict):
    id: str
    type: str
    timestamp: str
    test: NotRequired[bool]  # sent to try us: nothing has happened
    data: dict[str, Any]


Work = Callable[[sqlite3.Connection, Event], str]  # says in a few words what it did; OSError means: try again


class Receiver:
    def __init__(self, secret: str, store: sqlite3.Connection, work: Work, fail_first: int, slow: float) -> None:
        self.webhook, self.store, self.work = Webhook(secret), store, work
        self.fail_first, self.slow = fail_first, slow
        self.arrived, self.settled, self.stopping = asyncio.Event(), asyncio.Event(), False
        store.executescript(TABLES)

    async def receive(self, request: Request) -> Response:
        webhook_id, body = request.headers.get("webhook-id", ""), await request.body()
        try:
            event: Event = self.webhook.verify(body, dict(request.headers))
        except (WebhookVerificationError, ValueError):  # ValueError: a signature or body that isn't even well-formed
            self.note(webhook_id, "", False, False, "refused: bad signature")
            return JSONResponse({"error": "bad signature"}, 401)
        if self.fail_first > 0:
            self.fail_first -= 1
            self.note(webhook_id, event["type"], False, True, "refused: busy, come back in a second")
            return JSONResponse({"error": "busy"}, 503, {"Retry-After": "1"})
        new = self.store.execute("INSERT OR IGNORE INTO inbox VALUES (?, ?)", (webhook_id, body)).rowcount == 1
        self.note(webhook_id, event["type"], not new, True, "waiting" if new else "nothing: had it already")
        self.settled.clear()
        self.arrived.set()
        await asyncio.sleep(self.slow)
        return JSONResponse({"status": "accepted" if new else "duplicate"}, 202)

    def note(self, *row: str | bool) -> None:
        self.store.execute(NOTE, row)

    async def work_off(self) -> None:
        while not self.stopping:
            self.arrived.clear()
            if (waiting := self.store.execute(OLDEST).fetchone()) is None:
                self.settled.set()
                await self.arrived.wait()
                continue
            try:
                event: Event = json.loads(waiting["body"])
                did = "nothing: a test" if event.get("test") else await asyncio.to_thread(self.work, self.store, event)
            except OSError:  # e.g. our mail server is away: the event waits, and so do those behind it
                await asyncio.sleep(0.5)
                continue
            except Exception as bug:
                did = f"failed: {bug!r}"
            done = "UPDATE ledger SET did = ? WHERE webhook_id = ? AND did = 'waiting'"
            self.store.execute(done, (did, waiting["webhook_id"]))
            self.store.execute("UPDATE inbox SET body = NULL WHERE webhook_id = ?", (waiting["webhook_id"],))

    async def ledger(self, request: Request) -> Response:
        """Every request received, oldest first. With ?settled, answers when all work so far is done (or after 10 s)."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.settled.wait(), 10 if "settled" in request.query_params else 0)
        return JSONResponse([dict(row) for row in self.store.execute("SELECT * FROM ledger ORDER BY rowid")])
