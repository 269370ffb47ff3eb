"""The sample partners: what each wants, how it misbehaves, and what its ledger says."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass, field
from typing import Any

from webhook_gateway.rules.matching import fits
from webhook_gateway.rules.signing import SECRET_BYTES, encode_secret

POSTED = "posted as "
"""How the claims desk's ledger tells of a decision that the gateway took."""


@dataclass(slots=True)
class Partner:
    """A program of `examples/` and what has become of it. ``flags`` make it misbehave, ``absent`` lets it come late."""

    name: str
    event_types: tuple[str, ...]
    what: str
    flags: tuple[str, ...] = ()
    absent: bool = False
    secret: str = field(default_factory=lambda: encode_secret(secrets.token_bytes(SECRET_BYTES)), repr=False)
    url: str = ""
    endpoint_id: str = ""
    is_up: bool = False
    reserved: socket.socket | None = None
    """Keeps the port of one that is not there yet."""
    ledger: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """Every request that it received, oldest first, by its own account."""
    waiting: int = 0
    """Deliveries that the gateway has open for it."""
    in_vain: int = 0
    """Attempts at those that failed, as far as we have seen."""

    def wants(self, event_type: str) -> bool:
        return any(fits(pattern, event_type) for pattern in self.event_types)

    def kept(self) -> set[str]:
        """The ids of the events that it has."""
        return {row["webhook_id"] for row in self.ledger if row["signature_ok"] and not is_refusal(row)}

    def posted(self) -> list[tuple[str, str]]:
        """The id and type of each event that it posted itself (the claims desk does)."""
        return [(row["did"].removeprefix(POSTED), row["type"]) for row in self.ledger if row["did"].startswith(POSTED)]


def is_refusal(row: dict[str, Any]) -> bool:
    return str(row["did"]).startswith("refused")


def the_partners() -> list[Partner]:
    decisions = ("insurance_claim.adjudicated", "insurance_claim.denied")
    return [
        Partner("laboratory", ("lab_order.placed",), "accepts orders"),
        Partner("doctors_inbox", ("lab_result.*",), "files results"),
        Partner(
            "notifier", ("appointment.*", "lab_result.final", "payment.*"), "refuses twice", flags=("--fail-first", "2")
        ),
        Partner("receipts", ("payment.*", *decisions), "is slow: 1 s", flags=("--slow", "1")),
        Partner("insurer", ("medical_record.updated", "insurance_claim.submitted"), "decides, calls back"),
        Partner("staff_notifier", ("staff_shift.*",), "was down at first", absent=True),
    ]
