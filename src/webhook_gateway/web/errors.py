"""Every error as RFC 9457 problem JSON: what is wrong, where, and what to do. Never the value that was given.

A type is ``urn:problem:webhook-gateway:`` and a name from `TITLES`; clients tell problems apart by it.

    Problem              raised by routes, answered as it says
    ├── bad_request … 4xx: the caller can fix it
    └── unavailable      503: ask again after Retry-After
    RequestValidationError  422 with a fault for each place, or 400 for what is no JSON
    DatabaseUnavailable         503
    KeyMissing           503: an encryption key isn't there (yet)
    Tampered             500: what is stored was changed by somebody else
    anything else        500 with a request id and no detail (`web/guard.py`)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, assert_never

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException, RequestValidationError, ResponseValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from webhook_gateway import telemetry
from webhook_gateway.crypto.vault import KeyMissing, Tampered
from webhook_gateway.operations.refusals import Conflict, Exhausted, Invalid, NotFound, NotHeld, Refusal, WouldCutOff
from webhook_gateway.rules.faults import Fault
from webhook_gateway.store.database import DatabaseUnavailable

from .api.schemas.shapes import MEANINGS

T = TypeVar("T")

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:problem:webhook-gateway:"
RETRY_AFTER = "2"
"""Seconds. A database that restarts is back within a few."""

UPGRADE = "10"
"""Seconds for which a worker counts as alive after its last sign of life."""

TITLES: dict[str, str] = {
    "malformed-json": "The body is not JSON",
    "invalid-request": "The request breaks the rules of this operation",
    "unauthorized": "The request needs a valid API key",
    "forbidden": "The API key does not allow this",
    "gone": "It is no longer kept",
    "not-found": "There is no such thing here",
    "method-not-allowed": "The path has no such method",
    "conflict": "The state of things forbids this",
    "workers-too-old": "A worker is too old for this",
    "body-too-large": "The body is too large",
    "unsupported-media-type": "The body has to be JSON",
    "too-many-requests": "The API is asked too often",
    "request-timeout": "The request took too long to come",
    "uri-too-long": "The URL is too long",
    "headers-too-large": "The headers are too large",
    "internal-error": "The gateway failed",
    "record-damaged": "What is stored was changed",
    "unavailable": "The gateway can't do this just now",
    "bad-request": "The request can't be understood",
}


class Problem(HTTPException):
    """An answer other than the one asked for. ``name`` is a key of `TITLES`, ``detail`` tells the caller what to do."""

    def __init__(
        self,
        status: int,
        name: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.name = name
        self.faults = tuple(faults)


def granted(answer: T | Refusal) -> T:
    """What was asked for.

    Raises:
        Problem: it was refused. Raised inside of a change, it leaves nothing of it.
    """
    if isinstance(answer, Refusal):
        raise refused(answer)
    return answer


def refused(refusal: Refusal) -> Problem:
    match refusal:
        case NotFound():
            return not_found(refusal.value)
        case Conflict.WORKERS_TOO_OLD:
            return Problem(409, "workers-too-old", refusal.value, headers={"Retry-After": UPGRADE})
        case Conflict():
            return conflict(refusal.value)
        case Exhausted():
            return Problem(429, "too-many-requests", refusal.value, headers={"Retry-After": "3600"})
        case NotHeld():
            return forbidden(f"This key can't grant what it doesn't hold itself: {', '.join(refusal.beyond)}.")
        case Invalid():
            return invalid(*refusal.faults)
        case WouldCutOff():
            return conflict(str(refusal))
        case _:
            assert_never(refusal)


def not_found(what: str) -> Problem:
    """The same for an id that doesn't exist, one of another tenant, and one of another subscriber."""
    return Problem(404, "not-found", f"There is no such {what}, or this key may not see it. Check the id.")


def conflict(detail: str) -> Problem:
    return Problem(409, "conflict", detail)


def forbidden(detail: str) -> Problem:
    return Problem(403, "forbidden", detail)


def invalid(*faults: Fault) -> Problem:
    """422 with the places that are wrong."""
    return Problem(422, "invalid-request", "Correct what `errors` lists and send the request again.", faults=faults)


def unavailable(detail: str) -> Problem:
    return Problem(503, "unavailable", detail, headers={"Retry-After": RETRY_AFTER})


def database_unavailable() -> Problem:
    return unavailable("The database can't be reached. Whether the request took effect may be unknown: send it again.")


def key_missing() -> Problem:
    return unavailable("An encryption key is missing. Nothing is lost; an operator has to configure it again.")


def record_damaged(error: Tampered) -> Problem:
    telemetry.record_damaged(str(error))
    detail = "It was changed in the database since it was sealed. Tell the operator: a backup may have it whole."
    return Problem(500, "record-damaged", detail)


def answer_with(request_id: str, problem: Problem) -> Response:
    """The problem as a response."""
    body = members_of(problem) | {"request_id": request_id}
    return Response(msgspec.json.encode(body), problem.status_code, problem.headers, MEDIA_TYPE)


def members_of(problem: Problem) -> dict[str, Any]:
    """The problem as JSON has it, also within a batch's answer."""
    members: dict[str, Any] = {
        "type": TYPE + problem.name,
        "title": TITLES[problem.name],
        "status": problem.status_code,
        "detail": problem.detail,
    }
    if problem.faults:
        members["errors"] = [
            {name: value for name, value in (("pointer", f.pointer), ("parameter", f.parameter)) if value is not None}
            | {"rule": f.rule, "remedy": f.remedy}
            for f in problem.faults
        ]
    return members


def install(app: FastAPI) -> None:
    """Makes the app answer with problems only. Unexpected exceptions are the guard's."""

    async def answer(request: Request, exception: Exception) -> Response:
        return answer_with(request.state.request_id, problem_of(request, exception))

    for kind in (StarletteHTTPException, RequestValidationError, DatabaseUnavailable, KeyMissing, Tampered):
        app.add_exception_handler(kind, answer)


def problem_of(request: Request, exception: Exception) -> Problem:
    """The problem that an expected exception stands for.

    Raises:
        Exception: the one given, where it is not expected.
    """
    match exception:
        case Problem():
            return exception
        case ResponseValidationError():
            raise exception
        case RequestValidationError() if request.method not in _methods_of(request):
            return _no_such_method(request)  # GET /v1/events/batch was taken for an event's id
        case RequestValidationError():
            return of_validation(exception)
        case DatabaseUnavailable():
            return database_unavailable()
        case KeyMissing():
            return key_missing()
        case Tampered():
            return record_damaged(exception)
        case StarletteHTTPException(status_code=404):
            return Problem(404, "not-found", "There is nothing at this path. The document at /openapi.json lists all.")
        case StarletteHTTPException(status_code=405):
            return _no_such_method(request)
        case StarletteHTTPException() if isinstance(exception.__cause__, RecursionError):
            return Problem(400, "malformed-json", "The body is nested too deep. Nest less.")
        case StarletteHTTPException(status_code=status) if status < 500:
            return Problem(400, "malformed-json", "The body can't be read as JSON in UTF-8. Send valid JSON.")
        case _:
            raise exception


def of_validation(error: RequestValidationError) -> Problem:
    """What the framework found wrong in a request."""
    found = error.errors()
    if any(one["loc"][0] == "path" for one in found):
        return not_found("thing")
    if any(one["type"] == "json_invalid" for one in found):
        return Problem(400, "malformed-json", "The body is not JSON. Send valid JSON in UTF-8.")
    return invalid(*(_fault(one) for one in found[:50]))


def _fault(error: Mapping[str, Any]) -> Fault:
    where, *parts = error["loc"]
    rule, remedy = error["type"], _remedy(error)
    if where == "body":
        return Fault(rule, remedy, pointer="".join("/" + _segment(part) for part in parts if part != "[key]"))
    if rule == "time" and " " in str(error["input"]):
        remedy += ". In a URL a + is a space: write it as %2B"
    return Fault(rule, remedy, parameter=_segment(parts[0]) if parts else str(where))


_NAME = re.compile(r"[A-Za-z_.\-]{1,40}")


def _segment(part: object) -> str:
    """An index, or a member's name if it looks like one: a number or a date may be a value in the wrong place."""
    return str(part) if isinstance(part, int) or _NAME.fullmatch(str(part)) else "*"


def _remedy(error: Mapping[str, Any]) -> str:
    """A sentence that says what to do. Pydantic's own say what was expected and never quote the input."""
    match error["type"]:
        case "missing":
            return "Add it: it is required."
        case "extra_forbidden":
            return "Remove it: it is not known here."
        case "model_attributes_type" | "dict_type":
            return "Give a JSON object."
        case "union_tag_invalid":
            return f"Give a {error['ctx']['discriminator'].strip(chr(39))} of {error['ctx']['expected_tags']}."
        case "string_pattern_mismatch":
            pattern = error["ctx"]["pattern"]
            return f"Give {MEANINGS.get(pattern, f'text that matches {pattern}')}"
        case _:
            message = str(error["msg"]).removeprefix("Value error, ")
            return message.replace("Input should", "It should")


def _no_such_method(request: Request) -> Problem:
    allowed = ", ".join(sorted(_methods_of(request)))
    return Problem(405, "method-not-allowed", f"This path knows {allowed}.", headers={"Allow": allowed})


def _methods_of(request: Request) -> set[str]:
    """The methods of the path over all routes: the framework names those of one route only."""
    path: str = request.scope["path"]
    by_path: dict[str, set[str]] = request.app.state.methods()
    # /v1/events/batch is itself, though /v1/events/{event_id} fits it, too.
    templates = [path] if path in by_path else [template for template in by_path if _fits(template, path)]
    return set().union(*(by_path[template] for template in templates))


def _fits(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)), path) is not None
