"""What the bench posts: lab results and their like, each another one, rendered before the clock runs."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from webhook_gateway.intake.catalogue import shipped

TYPES = (
    "lab_result.final",
    "lab_result.preliminary",
    "lab_result.corrected",
    "appointment.scheduled",
    "medication_order.placed",
    "lab_order.placed",
    "insurance_claim.submitted",
    "payment.processed",
    "encounter.admitted",
    "invoice.issued",
)
"""One endpoint each, where an event goes to one endpoint."""

_MARK = "@@@@@@@@@@"


def templates(types: Sequence[str], *, keyed: bool = True) -> list[bytes]:
    """Bodies of ``POST /v1/events`` with ``%`` places for one number (`fill`), as the Python client would send them.

    The number makes the ordering key another one, and with ``keyed`` the idempotency key, which our client always
    sends.
    """
    known = {event_type.name: event_type for event_type in shipped()}
    made = []
    for name in types:
        event_type = known.get(name)
        data = {"value": _MARK} if event_type is None else dict(event_type.example)
        if event_type is not None and event_type.ordering_key is not None:
            data[event_type.ordering_key.partition("{")[2].rstrip("}")] = "bench_" + _MARK
        body: dict[str, object] = {"type": name, "data": data}
        if keyed:
            body["idempotency_key"] = "bench-" + _MARK
        text = json.dumps(body, separators=(",", ":")).replace("%", "%%").replace(_MARK, "%(n)010d")
        made.append(text.encode())
    return made


def fill(template: bytes, number: int) -> bytes:
    """The body of event ``number``; every one of a template has the same length."""
    return template % {b"n": number}


def data_of(body: bytes) -> bytes:
    """The ``data`` of a body, as its bytes."""
    return bytes(msgspec.json.decode(body, type=dict[str, msgspec.Raw])["data"])
