"""What is posted to the byte routes, from bytes to events.

The body is read once for what it means (refusing members given twice, NaN and broken UTF-8) and once for its shape,
which keeps ``data`` as the very bytes that came: nothing is encoded again on its way to the partner.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import jiter
import msgspec

from webhook_gateway.intake.events import NewEvent
from webhook_gateway.rules.faults import Fault
from webhook_gateway.web.errors import Problem, invalid

MOST_EVENTS = 1_000
MOST_ADDRESSEES = 100

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Addressees = Annotated[
    list[Text],
    msgspec.Meta(
        min_length=1,
        max_length=MOST_ADDRESSEES,
        description="Only these subscribers get it, by id or `external_id`; whoever may if left out.",
        examples=[["payer_17"]],
    ),
]


class EventIn(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An event as an HMS service posts it."""

    type: Annotated[str, msgspec.Meta(max_length=128, description="An event type.", examples=["lab_result.final"])]
    data: Annotated[msgspec.Raw, msgspec.Meta(description="An object that fits the event type's schema.")]
    timestamp: (
        Annotated[
            datetime,
            msgspec.Meta(tz=True, description="When it happened (RFC 3339); the time of acceptance if left out."),
        ]
        | None
    ) = None
    subject: Text | None = None
    ordering_key: Text | None = None
    idempotency_key: Annotated[Text, msgspec.Meta(description="Makes it safe to post again: 72 hours.")] | None = None
    to: Addressees | msgspec.UnsetType = msgspec.UNSET
    patient: Annotated[Text, msgspec.Meta(description="Whom it is about. Not in the body partners get.")] | None = None


class BatchIn(msgspec.Struct, forbid_unknown_fields=True):
    """Up to 1,000 events; each has its own result."""

    events: Annotated[list[EventIn], msgspec.Meta(min_length=1, max_length=MOST_EVENTS)]


EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_one = msgspec.json.Decoder(EventIn)
_many = msgspec.json.Decoder(BatchIn)
_each = msgspec.json.Decoder(
    msgspec.defstruct(
        "Each",
        [("events", Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MOST_EVENTS)])],
        forbid_unknown_fields=True,
    )
)
_AROUND = re.compile(rb'\s*\{\s*"[^"]*"\s*:\s*\[[\s,]*\]\s*\}\s*')
_TEXT = "Give a text of 1 to 256 characters, or leave it out."
_OF_EVENT = {
    "": "Give a JSON object with `type` and `data`.",
    "/type": "Give the name of an event type, a text of at most 128 characters.",
    "/timestamp": "Give an RFC 3339 time with its offset, as in 2026-11-23T08:00:00Z (a leap second as 59), or none.",
    "/subject": _TEXT,
    "/ordering_key": _TEXT,
    "/idempotency_key": _TEXT,
    "/patient": _TEXT,
    "/to": f"Give a list of 1 to {MOST_ADDRESSEES} ids or external ids of subscribers; without it whoever may gets it.",
    "/to/*": "Give the id or the external_id of a subscriber, a text of 1 to 256 characters.",
}
_OF_BATCH = {
    "": "Give a JSON object with `events`, a list of events.",
    "/events": f"Give a list of 1 to {MOST_EVENTS:,} events.",
}
_WRAP = 'Wrap the payload: {"type": "…", "data": {…}}, with the name of an event type, and the payload as `data`.'


def read_event(body: bytes, header: bytes | None = None) -> NewEvent:
    """
    Raises:
        Problem: 400 or 422.
    """
    parsed = _read(body)
    event = _shape(_one, body, parsed)
    return _new(event, parsed.get("data"), _agreed_key(event.idempotency_key, header))


def read_batch(body: bytes) -> Sequence[NewEvent | Problem]:
    """Each event of a batch, or what is wrong with it.

    Raises:
        Problem: 400 or 422, where the batch itself is not right.
    """
    try:
        parsed = _read(body)
        batch = _shape(_many, body, parsed)
        return [
            _new(event, meant.get("data"), event.idempotency_key)
            for event, meant in zip(batch.events, parsed["events"], strict=True)
        ]
    except Problem as problem:
        return _one_by_one(body, problem)


def _one_by_one(body: bytes, problem: Problem) -> Sequence[NewEvent | Problem]:
    """The events of a batch of which at least one is not right, each read for itself."""
    try:
        body.decode()
    except UnicodeDecodeError:
        raise problem from None
    items = [bytes(item) for item in _shape(_each, body).events]
    around, end = [], body.find(b"[") + 1
    around.append(body[:end])
    for item in items:
        start = body.find(item, end)
        around.append(body[end:start])
        end = start + len(item)
    around.append(body[end:])
    if not _AROUND.fullmatch(b"".join(around)):
        raise problem  # what is around the events is not one list of them, whatever a parser makes of it
    return [_event_or_problem(item) for item in items]


def _event_or_problem(item: bytes) -> NewEvent | Problem:
    try:
        return read_event(item)
    except Problem as problem:
        return problem


def _read(body: bytes) -> dict[str, Any]:
    """What the body means.

    Raises:
        Problem: 400 where it is no JSON, or not to be trusted as such; 422 where it is no object.
    """
    try:
        parsed = jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError as error:
        raise _malformed(str(error)) from None
    if not isinstance(parsed, dict):
        raise invalid(Fault("type", _OF_EVENT[""], pointer=""))
    return parsed


def _malformed(reason: str) -> Problem:
    """The parser's sentence may quote a member's name: only its position is told."""
    position = re.search(r"line \d+ column \d+", reason)
    where = f" at {position[0]}" if position else ""
    if "recursion" in reason:
        return Problem(400, "malformed-json", f"The body is nested too deep{where}. Nest at most 200 levels.")
    if "out of range" in reason:
        return Problem(400, "malformed-json", f"A number is too long{where}. Give at most 4,300 digits.")
    twice = " A member is given twice." if "duplicate key" in reason else ""
    return Problem(400, "malformed-json", f"The body is not JSON{where}.{twice} Send valid JSON in UTF-8.")


def _shape(decoder: msgspec.json.Decoder[Any], body: bytes, parsed: Mapping[str, Any] | None = None) -> Any:
    """The body as a struct, with ``data`` untouched.

    Raises:
        Problem: 422 that names the member.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        if decoder is _one and parsed and "data" not in parsed and parsed.keys() - set(EventIn.__struct_fields__):
            raise invalid(Fault("envelope", _WRAP, pointer="")) from None
        raise invalid(_fault(str(error), _OF_EVENT if decoder is _one else _OF_BATCH)) from None
    except RecursionError:
        raise _malformed("recursion") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _malformed("") from None


_PATH = re.compile(r" - at `\$(.*)`$")


def _fault(sentence: str, remedies: Mapping[str, str]) -> Fault:
    """msgspec says "Expected `str`, got `int` - at `$.type`", and never the value."""
    path = _PATH.search(sentence)
    pointer = path[1].replace("[...]", "/*").replace(".", "/") if path else ""
    what = sentence[: path.start()] if path else sentence
    if what.startswith("Object contains unknown field"):  # its name may be a patient's
        known = ", ".join(BatchIn.__struct_fields__ if remedies is _OF_BATCH else EventIn.__struct_fields__)
        return Fault("unknown", f"Remove the member that is unknown here; known are {known}.", pointer=pointer)
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        return Fault("required", "Add the member: it is required.", pointer=f"{pointer}/{missing[1]}")
    return Fault("invalid", remedies.get(pointer, "Give what the API's document says."), pointer=pointer)


def _new(event: EventIn, parsed: Any, idempotency_key: str | None) -> NewEvent:
    if event.timestamp is not None and not EARLIEST <= event.timestamp < LATEST:
        raise invalid(Fault("range", "Give a time between the years 1900 and 2200.", pointer="/timestamp"))
    return NewEvent(
        type=event.type,
        data=bytes(event.data),
        parsed=parsed,
        timestamp=event.timestamp,
        subject=event.subject,
        ordering_key=event.ordering_key,
        idempotency_key=idempotency_key,
        to=None if event.to is msgspec.UNSET else tuple(event.to),
        patient=event.patient,
    )


def _agreed_key(member: str | None, raw: bytes | None) -> str | None:
    if raw is None:
        return member
    try:
        header = raw.decode()
    except UnicodeDecodeError:
        raise invalid(Fault("encoding", "Give it in ASCII or UTF-8.", parameter="Idempotency-Key")) from None
    if not 1 <= len(header) <= 256:
        raise invalid(Fault("length", "Give 1 to 256 characters.", parameter="Idempotency-Key"))
    if member is not None and member != header:
        remedy = "Give the same key as the Idempotency-Key header, or none."
        raise invalid(Fault("conflict", remedy, pointer="/idempotency_key"))
    return header
