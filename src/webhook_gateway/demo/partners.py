"""The sample partners: what each wants, how it misbehaves, and what its ledger says."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from webhook_gateway.rules.matching import fits
from webhook_gateway.rules.signing import SECRET_BYTES, encode_secret

POSTED = "posted as "
"""How the claims desk's ledger tells of a decision that the gateway took."""
BILLING = "billing"
CONTACT_AND_TIME = ("/patient_id", "/contact", "/starts_at", "/appointment_id", "/version")
"""Of an appointment, a result or a payment: nothing that tells what it is about."""


class Posted(NamedTuple):
    """An event that was answered with 202, and what of it says whose it is."""

    id: str
    type: str
    to: tuple[str, ...] | None = None
    payer_id: str | None = None


@dataclass(slots=True)
class Partner:
    """A program of `examples/` and what has become of it. ``flags`` make it misbehave, ``absent`` lets it come late."""

    name: str
    event_types: tuple[str, ...]
    what: str
    flags: tuple[str, ...] = ()
    absent: bool = False
    module: str = ""
    """Of the program, where it has another name."""
    external_id: str | None = None
    payer_id: str | None = None
    """Of claims only those with it are for them."""
    content: dict[str, Any] = field(default_factory=lambda: {"level": "full"})
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

    def should_have(self, event: Posted) -> bool:
        """By what the hospital meant, not by what the gateway makes of it."""
        if event.to is not None and self.external_id not in event.to:
            return False
        return event.payer_id in (None, self.payer_id) and any(fits(each, event.type) for each in self.event_types)

    def kept(self) -> set[str]:
        """The ids of the events that it has."""
        return {row["webhook_id"] for row in self.ledger if row["signature_ok"] and not is_refusal(row)}

    def posted(self) -> list[Posted]:
        """The events that it posted itself (the claims desk does), to whoever does the billing."""
        return [
            Posted(row["did"].removeprefix(POSTED), row["type"], (BILLING,))
            for row in self.ledger
            if row["did"].startswith(POSTED)
        ]


def is_refusal(row: dict[str, Any]) -> bool:
    return str(row["did"]).startswith("refused")


def the_partners() -> list[Partner]:
    decisions = ("insurance_claim.adjudicated", "insurance_claim.denied")
    claims = ("insurance_claim.*",)
    return [
        Partner("laboratory", ("lab_order.placed",), "accepts orders"),
        Partner("doctors_inbox", ("lab_result.*",), "files results"),
        Partner(
            "notifier",
            ("appointment.*", "lab_result.final", "payment.*"),
            "sees no diagnosis, refuses twice",
            flags=("--fail-first", "2"),
            content={"level": "fields", "pointers": CONTACT_AND_TIME},
        ),
        Partner("receipts", ("payment.*", *decisions), "is slow: 1 s", flags=("--slow", "1"), external_id=BILLING),
        Partner(
            "insurer", ("medical_record.updated", *claims), "gets its own claims, by a filter", payer_id="payer_0042"
        ),
        Partner(
            "other_insurer",
            claims,
            "and its own, by their address",
            module="insurer",
            external_id="payer_0017",
            payer_id="payer_0017",
        ),
        Partner("staff_notifier", ("staff_shift.*",), "was down at first", absent=True),
    ]
