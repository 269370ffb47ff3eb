"""What a gateway does to a partner: POST events, signed by the independent library."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
from standardwebhooks import Webhook

from examples.partners.running import Running

SECRET = "whsec_c2FtcGxlLXBhcnRuZXItc2VjcmV0LW9mLXRlc3Rz"


class Sample:
    """One running sample."""

    def __init__(self, run: Running) -> None:
        self.run = run
        self.http = httpx.Client(base_url=run.url, timeout=15)

    def __enter__(self) -> "Sample":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def post(
        self, type: str, data: dict[str, Any], webhook_id: str = "evt_1", secret: str = SECRET, spoil: bytes = b""
    ) -> httpx.Response:
        """POST a signed event; `spoil` is appended to the body after signing."""
        now = datetime.now(UTC)
        event = {"id": webhook_id, "type": type, "timestamp": "2026-11-23T09:00:00.000Z", "data": data}
        body = json.dumps(event, separators=(",", ":"))
        signature = Webhook(secret).sign(webhook_id, now, body)
        headers = {"webhook-id": webhook_id, "webhook-timestamp": str(int(now.timestamp()))}
        headers |= {"webhook-signature": signature, "content-type": "application/json"}
        return self.http.post("/webhooks", content=body.encode() + spoil, headers=headers)

    def get(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()

    def did(self) -> list[str]:
        """What was done with each request so far, when all of it is done."""
        return [entry["did"] for entry in self.get("/ledger?settled")]


Start = Callable[..., Sample]  # start("notifier", "--slow", "1", SMTP_ADDRESS="...") runs a sample until the test ends
