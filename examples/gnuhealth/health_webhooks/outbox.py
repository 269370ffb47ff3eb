"""The table of events that the gateway does not have yet."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from trytond.model import ModelSQL, fields
from trytond.transaction import Transaction


class Outbox(ModelSQL):
    "Webhook Outbox"  # no ModelView: no client of Tryton can read it, since it is about patients

    __name__ = "webhook.outbox"

    # Not the number of the row, which another database, or one that was restored, gives another event.
    key = fields.Char("Idempotency Key", required=True)
    type = fields.Char("Type", required=True)
    data = fields.Text("Data", required=True)
    timestamp = fields.Char("Timestamp", required=True)
    refused = fields.Text("Refused")

    @classmethod
    def add(cls, type: str, data: dict[str, Any]) -> None:
        """The event is in the database if, and only if, what else the transaction does is."""
        row = {"key": uuid.uuid4().hex, "type": type, "data": json.dumps(data)}
        with Transaction().set_context(_check_access=False):
            cls.create([{**row, "timestamp": datetime.now(UTC).isoformat()}])
