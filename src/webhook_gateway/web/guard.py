"""What every request passes first, before anything of it is parsed.

In this order: a request id, security headers on whatever is answered, the API key (for every path but the few that are
public), its rate, the body's kind and its size counted byte by byte. What nobody foresaw ends here, as a problem
without detail. Plain ASGI; the byte routes have a door of their own (`byte_routes.py`) with the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from webhook_gateway import telemetry
from webhook_gateway.crypto.vault import KeyMissing
from webhook_gateway.rules import ids
from webhook_gateway.store.database import DatabaseUnavailable

from .callers import Callers
from .errors import Problem, answer_with, database_unavailable, key_missing

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
)
CONTENT_SECURITY_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")

MOST_VALUES = 20_000
"""In a body of any route but those for events: each may be a fault, and faults are listed before fifty are kept."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._\-]{1,64}")
_JSON = re.compile(rb"application/(?:[a-z0-9.\-]+\+)?json[ \t]*(?:;.*)?", re.IGNORECASE)


class Guard:
    """Wraps the app. ``public`` are the paths that need no key; ``body_limit`` is in bytes."""

    def __init__(self, app: ASGIApp, callers: Callers, public: frozenset[str], body_limit: int) -> None:
        self._app = app
        self._callers = callers
        self._public = public
        self._body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = request_id_of(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        answered = Answered(send, request_id)
        try:
            if scope["path"] not in self._public:
                scope["state"]["caller"] = await self._callers.authenticate(scope, headers)
            check_body(headers, self._body_limit)
            await self._app(scope, self._counted(receive), answered)
        except Exception as unexpected:
            if answered.begun:
                raise
            await answer_with(request_id, problem_behind(unexpected, request_id))(scope, receive, answered)

    def _counted(self, receive: Receive) -> Receive:
        """``receive`` that refuses a body which grows too large, or has too many values."""
        got = values = 0

        async def counted() -> Message:
            nonlocal got, values
            message = await receive()
            if message["type"] == "http.request":
                part: bytes = message.get("body", b"")
                got += len(part)
                if got > self._body_limit:
                    raise too_large(self._body_limit)
                values += part.count(b",")  # what is nested without one is bounded by its depth
                if values > MOST_VALUES:
                    detail = f"The limit here is {MOST_VALUES:,} values: send less at once."
                    raise Problem(413, "body-too-large", detail, headers={"Connection": "close"})
            return message

        return counted


class Answered:
    """``send`` that adds the headers which every answer has, where it has no such, and knows whether one has begun."""

    __slots__ = ("_request_id", "_send", "begun")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            message = {**message, "headers": with_ours(message.get("headers", ()), self._request_id)}
        await self._send(message)


def lines_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they are sent."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def with_ours(given: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """The headers of an answer, and those that every answer has, where it has no such."""
    given = tuple(given)
    names = {name for name, _ in given}
    ours = (*SECURITY_HEADERS, CONTENT_SECURITY_POLICY, (b"x-request-id", request_id.encode()))
    return [*given, *(header for header in ours if header[0] not in names)]


def request_id_of(headers: dict[bytes, bytes]) -> str:
    """The client's own, if it looks like one, so that both sides' logs agree."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if given and _REQUEST_ID.fullmatch(given) else next(_request_ids)


def _new_ids() -> Iterator[str]:
    """TypeIDs, of which one of 1,024 is made anew: those behind it end otherwise."""
    while True:
        first = ids.render("req", uuid7())[:-2]
        yield from map(first.__add__, ids.PAIRS)


_request_ids = _new_ids()


def check_body(headers: dict[bytes, bytes], limit: int) -> None:
    """
    Raises:
        Problem: 413 or 415, where the headers already say so.
    """
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length.lstrip(b"0") or b"0") > limit:  # int() takes no zeros without end
        raise too_large(limit)
    has_body = b"transfer-encoding" in headers or length.strip(b"0") != b""
    if has_body and not _is_json(headers.get(b"content-type", b"")):
        raise Problem(415, "unsupported-media-type", "Send the body with `Content-Type: application/json`.")
    if has_body and headers.get(b"content-encoding", b"identity").strip().lower() not in {b"identity", b""}:
        plain = {"Accept-Encoding": "identity"}
        raise Problem(415, "unsupported-media-type", "Send the body without `Content-Encoding`.", headers=plain)


def _is_json(media_type: bytes) -> bool:
    return media_type == b"application/json" or _JSON.fullmatch(media_type) is not None


def too_large(limit: int) -> Problem:
    return Problem(
        413, "body-too-large", f"The limit is {limit:,} bytes: send less at once.", headers={"Connection": "close"}
    )


def problem_behind(unexpected: Exception, request_id: str) -> Problem:
    """What an exception that reached the outermost wall is answered with."""
    match unexpected:
        case Problem():
            return unexpected
        case DatabaseUnavailable():
            return database_unavailable()
        case KeyMissing():
            return key_missing()
        case _:
            telemetry.stage_failed(f"request {request_id}", unexpected)
            return Problem(500, "internal-error", "Nothing more can be said here. Tell the operator the request_id.")
