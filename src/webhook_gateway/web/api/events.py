"""Events come in. The byte routes (`byte_routes.py`), in the OpenAPI document like every other."""

from __future__ import annotations

import asyncio
from datetime import datetime
from functools import partial
from time import perf_counter
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from webhook_gateway.host import tracing
from webhook_gateway.intake.commits import EventRefused, Outcome, Receipt, RefusedBecause
from webhook_gateway.intake.events import NewEvent
from webhook_gateway.intake.ingest import Ingest
from webhook_gateway.operations.refusals import Conflict
from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.web.callers import Caller, Callers
from webhook_gateway.web.errors import Problem, forbidden, invalid, members_of, refused
from webhook_gateway.web.whole import Whole

from .byte_routes import Handler, Headers
from .event_bodies import read_batch, read_event

LARGE = 65_536
"""Bytes of a body after whose parsing other requests go on first."""


class ReceiptOut(msgspec.Struct):
    """The event is committed. `duplicate`: it was before, under the same idempotency key."""

    id: str
    type: str
    accepted_at: Annotated[datetime, msgspec.Meta(tz=True)]
    duplicate: bool


class ResultOut(msgspec.Struct, kw_only=True):
    """One event of a batch: its receipt, or the problem as `error`."""

    index: int
    status: int
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    accepted_at: Annotated[datetime, msgspec.Meta(tz=True)] | UnsetType = UNSET
    duplicate: bool | UnsetType = UNSET
    error: dict[str, Any] | UnsetType = UNSET


class BatchOut(msgspec.Struct):
    """A result for each event, in the order given."""

    accepted: int
    refused: int
    results: list[ResultOut]


def handlers(ingest: Ingest, callers: Callers) -> dict[str, Handler]:
    """By path, for `ByteRoutes`."""
    return {"/v1/events": partial(post_event, ingest), "/v1/events/batch": partial(post_events, ingest, callers)}


async def post_event(ingest: Ingest, caller: Caller, headers: Headers, body: bytes, until: float) -> tuple[int, bytes]:
    """``POST /v1/events``: 202 once the event is committed."""
    began = perf_counter()
    _check_producer(caller)
    new = _of_type_allowed(caller, read_event(body, headers.get(b"idempotency-key")))
    if len(body) > LARGE:
        await asyncio.sleep(0)
    result = await ingest.accept(caller.tenant_id, new, until)
    if isinstance(result, EventRefused):
        raise _problem(result)
    _trace(result, began, headers)
    return 202, _receipt(result)


def begin_event(ingest: Ingest, whole: Whole, until: float) -> bool:
    """The same without waiting: the answer is given later. False where the database has to be asked before.

    Raises:
        Problem, DatabaseUnavailable: it is refused.
    """
    if len(whole.body) > LARGE:
        return False
    caller, head = whole.caller, whole.head
    if head.producer is not caller:
        _check_producer(caller)
        head.producer = caller
    new = _of_type_allowed(caller, read_event(whole.body, head.fields.get(b"idempotency-key")))
    return ingest.put(caller.tenant_id, new, until, partial(_tell, whole))


def _tell(whole: Whole, outcome: Outcome) -> None:
    if isinstance(outcome, Exception):
        whole.fail(outcome)
    elif isinstance(result := outcome[0], EventRefused):
        whole.fail(_problem(result))
    else:
        try:
            _trace(result, whole.began, whole.head.fields)
        except Exception as unexpected:
            whole.fail(unexpected)  # or whoever waits for the answer would wait without end
        else:
            whole.answer(202, _receipt(result))


async def post_events(
    ingest: Ingest, callers: Callers, caller: Caller, headers: Headers, body: bytes, until: float
) -> tuple[int, bytes]:
    """``POST /v1/events/batch``: 200 with a result for each event, in the order given."""
    _check_producer(caller)
    if b"idempotency-key" in headers:
        remedy = "Give each event of the batch its own `idempotency_key` instead."
        raise invalid(Fault("unknown", remedy, parameter="Idempotency-Key"))
    began = perf_counter()
    async with ingest.turn(caller.tenant_id, until):
        ingest.expect_room(caller.tenant_id, 1)  # before the body is read: whoever floods is refused cheaply
        judged = [_allowed(caller, event) for event in read_batch(body)]
        callers.events.take(caller, len(judged))
        if len(body) > LARGE:
            await asyncio.sleep(0)
        new = [event for event in judged if isinstance(event, NewEvent)]
        stored = await ingest.enqueue(caller.tenant_id, new, until)
    outcomes, results = iter(await stored), []
    for index, event in enumerate(judged):
        result = next(outcomes) if isinstance(event, NewEvent) else event
        _trace(result, began, headers)
        results.append(_result(index, result))
    accepted = sum(result.error is UNSET for result in results)
    return 200, msgspec.json.encode(BatchOut(accepted, len(results) - accepted, results))


def _receipt(result: Receipt) -> bytes:
    event_id = ids.recall_recent(ids.EVENT, result.event_id)
    return msgspec.json.encode(ReceiptOut(event_id, result.type, result.accepted_at, result.duplicate))


def _trace(result: Receipt | EventRefused | Problem, began: float, headers: Headers) -> None:
    if isinstance(result, Receipt) and not result.duplicate and tracing.traces(result.event_id):
        tracing.accepted(result.event_id, perf_counter() - began, headers.get(b"traceparent"), type=result.type)


def _allowed(caller: Caller, event: NewEvent | Problem) -> NewEvent | Problem:
    try:
        return event if isinstance(event, Problem) else _of_type_allowed(caller, event)
    except Problem as problem:
        return problem


def _of_type_allowed(caller: Caller, event: NewEvent) -> NewEvent:
    if caller.event_types is not None and not caller.may_post(event.type):
        raise forbidden("This key may not post events of this type.")
    return event


def _check_producer(caller: Caller) -> None:
    caller.need(Scope.EVENTS_WRITE)
    if caller.subscriber_id is not None:
        raise forbidden("This key belongs to one subscriber, and events are the hospital's.")


def _result(index: int, result: Receipt | EventRefused | Problem) -> ResultOut:
    """
    Raises:
        Problem: 413, which is about the whole batch.
    """
    if isinstance(result, Problem | EventRefused):
        problem = result if isinstance(result, Problem) else _problem(result)
        if isinstance(result, EventRefused) and result.reason is RefusedBecause.TOO_MUCH_TOGETHER:
            raise problem
        return ResultOut(index=index, status=problem.status_code, error=members_of(problem))
    return ResultOut(
        index=index,
        status=202,
        id=ids.render(ids.EVENT, result.event_id),
        type=result.type,
        accepted_at=result.accepted_at,
        duplicate=result.duplicate,
    )


def _problem(refusal: EventRefused) -> Problem:
    match refusal.reason:
        case RefusedBecause.UNKNOWN_EVENT_TYPE:
            return invalid(Fault("unknown", "Give one of the types that GET /v1/event-types lists.", pointer="/type"))
        case RefusedBecause.RESERVED_EVENT_TYPE:
            return invalid(Fault("reserved", "Types that begin with gateway. are the gateway's own.", pointer="/type"))
        case RefusedBecause.UNUSABLE_SCHEMA:
            remedy = "Its schema can't be used: ask an administrator to change it."
            return invalid(Fault("unusable_schema", remedy, pointer="/type"))
        case RefusedBecause.SCHEMA | RefusedBecause.TOO_MUCH:
            return invalid(*(Fault(f.rule, f.remedy, pointer=f"/data{f.pointer}") for f in refusal.faults))
        case RefusedBecause.ADDRESSEE:
            return invalid(*refusal.faults)
        case RefusedBecause.WORKERS_TOO_OLD:
            return refused(Conflict.WORKERS_TOO_OLD)
        case RefusedBecause.TOO_MUCH_TOGETHER:
            return Problem(413, "body-too-large", "The events take too long to check together: post fewer at once.")
        case RefusedBecause.IDEMPOTENCY_CONFLICT:
            return Problem(
                409,
                "conflict",
                "Another event was posted with this idempotency key. Use a new key for a new event, "
                "and the same body when you post one again.",
            )
