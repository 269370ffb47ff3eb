"""Events come in. The hot routes: from bytes to bytes (`byte_routes.py`), in the OpenAPI document like every other.

The body is read once for what it means (refusing members given twice, NaN and broken UTF-8) and once for its shape,
which keeps ``data`` as the very bytes that came: nothing is rendered again on its way to the partner.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import jiter
import msgspec

from webhook_gateway.intake.events import NewEvent
from webhook_gateway.intake.ingest import Ingest, Reason, Receipt, Refusal
from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import Problem, forbidden, invalid, members_of

from .byte_routes import Handler, Headers

MOST_EVENTS = 1_000

Key = Annotated[str, msgspec.Meta(min_length=1, max_length=256, description="Makes it safe to post again: 72 hours.")]


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
    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    ordering_key: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    idempotency_key: Key | None = None


class BatchIn(msgspec.Struct, forbid_unknown_fields=True):
    """Up to 1,000 events; each has its own result."""

    events: Annotated[list[EventIn], msgspec.Meta(min_length=1, max_length=MOST_EVENTS)]


class ReceiptOut(msgspec.Struct):
    """The event is committed."""

    id: str
    type: str
    accepted_at: datetime
    duplicate: bool


class ResultOut(msgspec.Struct):
    """One event of a batch that was accepted."""

    index: int
    status: int
    id: str
    type: str
    accepted_at: datetime
    duplicate: bool


class RefusedOut(msgspec.Struct):
    """One event of a batch that was not."""

    index: int
    status: int
    error: dict[str, Any]


EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_one = msgspec.json.Decoder(EventIn)
_many = msgspec.json.Decoder(BatchIn)


def handlers(ingest: Ingest) -> dict[str, Handler]:
    """By path, for `hot.Hot`."""
    return {"/v1/events": partial(post_event, ingest), "/v1/events/batch": partial(post_events, ingest)}


async def post_event(ingest: Ingest, caller: Caller, headers: Headers, body: bytes, until: float) -> tuple[int, bytes]:
    """``POST /v1/events``: 202 once the event is committed."""
    _check_producer(caller)
    parsed, event = _read(body), _shape(_one, body)
    new = _new(event, parsed.get("data"), _agreed_key(event.idempotency_key, headers.get(b"idempotency-key")))
    _check_type(caller, event.type)
    result = await ingest.accept(caller.tenant_id, new, until)
    if isinstance(result, Refusal):
        raise _problem(result)
    return 202, msgspec.json.encode(_receipt(result))


async def post_events(
    ingest: Ingest, caller: Caller, _headers: Headers, body: bytes, until: float
) -> tuple[int, bytes]:
    """``POST /v1/events/batch``: 200 with a result for each event, in the order given."""
    _check_producer(caller)
    parsed, batch = _read(body), _shape(_many, body)
    new = [
        _new(event, meant.get("data"), event.idempotency_key)
        for event, meant in zip(batch.events, parsed["events"], strict=True)
    ]
    stored = iter(await ingest.accept_many(caller.tenant_id, [e for e in new if caller.may_post(e.type)], until))
    results = [
        _result(index, next(stored)) if caller.may_post(event.type) else _refused(index, _not_yours())
        for index, event in enumerate(new)
    ]
    accepted = sum(isinstance(result, ResultOut) for result in results)
    answer = {"accepted": accepted, "refused": len(results) - accepted, "results": results}
    return 200, msgspec.json.encode(answer)


def _check_producer(caller: Caller) -> None:
    caller.need(Scope.EVENTS_WRITE)
    if caller.subscriber_id is not None:
        raise forbidden("This key belongs to one subscriber, and events are the hospital's.")


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
        raise invalid(Fault("type", "Give a JSON object.", pointer=""))
    return parsed


def _malformed(reason: str) -> Problem:
    """The parser's sentence may quote a member's name: only its place is told."""
    place = re.search(r"line \d+ column \d+", reason)
    twice = " A member is given twice." if "duplicate key" in reason else ""
    where = f" at {place[0]}" if place else ""
    return Problem(400, "malformed-json", f"The body is not JSON{where}.{twice} Send valid JSON in UTF-8.")


def _shape(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """The body as a struct, with ``data`` untouched.

    Raises:
        Problem: 422 that names the member.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(_fault(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _malformed("") from None


_PLACE = re.compile(r" - at `\$(.*)`$")


def _fault(sentence: str) -> Fault:
    """msgspec says "Expected `str`, got `int` - at `$.type`", and never the value."""
    place = _PLACE.search(sentence)
    path = place[1] if place else ""
    pointer = path.replace("[...]", "/*").replace("[", "/").replace("]", "").replace(".", "/")
    what = sentence[: place.start()] if place else sentence
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        name = unknown[1] if re.fullmatch(r"\w{1,64}", unknown[1], re.ASCII) else "*"
        return Fault("unknown", "Remove the member: it is not known here.", pointer=f"{pointer}/{name}")
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        return Fault("required", "Add the member: it is required.", pointer=f"{pointer}/{missing[1]}")
    return Fault("invalid", f"{what}.", pointer=pointer)


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
    )


def _agreed_key(member: str | None, raw: bytes | None) -> str | None:
    if raw is None:
        return member
    header = raw.decode("latin-1")
    if not 1 <= len(header) <= 256:
        raise invalid(Fault("length", "Give 1 to 256 characters.", parameter="Idempotency-Key"))
    if member is not None and member != header:
        remedy = "Give the same key as the Idempotency-Key header, or none."
        raise invalid(Fault("conflict", remedy, pointer="/idempotency_key"))
    return header


def _check_type(caller: Caller, event_type: str) -> None:
    if not caller.may_post(event_type):
        raise _not_yours()


def _not_yours() -> Problem:
    return forbidden("This key may not post events of this type.")


def _receipt(receipt: Receipt) -> ReceiptOut:
    return ReceiptOut(ids.render(ids.EVENT, receipt.event_id), receipt.type, receipt.accepted_at, receipt.duplicate)


def _result(index: int, result: Receipt | Refusal) -> ResultOut | RefusedOut:
    if isinstance(result, Refusal):
        return _refused(index, _problem(result))
    event_id = ids.render(ids.EVENT, result.event_id)
    return ResultOut(index, 202, event_id, result.type, result.accepted_at, result.duplicate)


def _problem(refusal: Refusal) -> Problem:
    match refusal.reason:
        case Reason.UNKNOWN_EVENT_TYPE:
            return invalid(Fault("unknown", "Give one of the types that GET /v1/event-types lists.", pointer="/type"))
        case Reason.RESERVED_EVENT_TYPE:
            return invalid(Fault("reserved", "Types that begin with gateway. are the gateway's own.", pointer="/type"))
        case Reason.SCHEMA:
            return invalid(*(Fault(f.rule, f.remedy, pointer=f"/data{f.pointer}") for f in refusal.faults[:50]))
        case Reason.IDEMPOTENCY_CONFLICT:
            return Problem(
                409,
                "conflict",
                "Another event was posted with this idempotency key. Use a new key for a new event, "
                "and the same body when you post one again.",
            )


def _refused(index: int, problem: Problem) -> RefusedOut:
    return RefusedOut(index, problem.status_code, members_of(problem))
