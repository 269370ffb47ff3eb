"""Receives webhooks with Python alone: verifies each, keeps it once, answers. Your work then reads the inbox.

WEBHOOK_SECRET=whsec_… PORT=9000 INBOX=inbox.db python receiver.py
"""

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LONGEST = 2_000_000  # bytes


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdecimal()) or abs(now - int(timestamp[:12])) > 300:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{message_id}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256))
    offered = headers.get("webhook-signature", "").encode().split()  # several, while a secret is changed
    return any(hmac.compare_digest(expected, signature) for signature in offered)


def keep(message_id: str, body: bytes) -> bool:
    """False if it was there before."""
    with closing(sqlite3.connect(os.environ.get("INBOX", "inbox.db"), timeout=10)) as store, store:
        store.execute("CREATE TABLE IF NOT EXISTS inbox (webhook_id TEXT PRIMARY KEY, body BLOB)")
        insert = "INSERT INTO inbox VALUES (?, ?) ON CONFLICT DO NOTHING"
        return store.execute(insert, (message_id, body)).rowcount == 1


class Receiver(BaseHTTPRequestHandler):
    timeout = 15  # seconds for a sender that stalls

    def do_POST(self) -> None:
        body = self.rfile.read(max(0, min(int(self.headers.get("content-length", 0)), LONGEST)))
        message_id, headers = self.headers.get("webhook-id", ""), {k.lower(): v for k, v in self.headers.items()}
        verified = verify(os.environ["WEBHOOK_SECRET"], headers, body, time.time())
        test = verified and json.loads(body).get("test") is True  # nothing has happened
        what = "test" if test else "accepted" if verified and keep(message_id, body) else "duplicate"
        self.send_response(204 if verified else 401)  # a duplicate is a success, too
        self.end_headers()
        print(f"{what} {message_id}" if verified else "refused", flush=True)

    def log_message(self, *_: object) -> None:
        """Without a line of its own for each request."""


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "9000"))
    with ThreadingHTTPServer(("127.0.0.1", port), Receiver) as server:  # a proxy before it speaks TLS
        print(f"listening on http://127.0.0.1:{port}", flush=True)
        server.serve_forever()
