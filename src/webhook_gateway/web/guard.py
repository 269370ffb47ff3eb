"""What every request passes first, before anything of it is parsed.

In this order: a request id, security headers on whatever is answered, the API key (for every path but the few that are
public), its rate, the body's kind and its size counted byte by byte. What nobody foresaw ends here, as a problem
without detail. Plain ASGI, since the hot route pays for it, too.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from webhook_gateway import telemetry
from webhook_gateway.ingest import PATIENCE
from webhook_gateway.rules import ids
from webhook_gateway.store.database import DatabaseAway
from webhook_gateway.vault import KeyMissing

from .callers import Callers
from .errors import Problem, database_away, problem_of, render

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
)
LOOKING_UP = 4.0
"""Seconds that the look-up of a key takes at most; what a client takes to send its body is not ours to count."""
CONTENT_SECURITY_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._\-]{1,64}")
_JSON = re.compile(rb"application/(?:[a-z0-9.\-]+\+)?json[ \t]*(?:;.*)?", re.IGNORECASE)


class Guard:
    """Wraps the app. ``public`` are the paths that need no key; ``body_limit`` is in bytes.

    ``hot`` are the handlers of POST requests that are called from here, without the framework's way to them.
    """

    def __init__(
        self,
        app: ASGIApp,
        callers: Callers,
        public: frozenset[str],
        body_limit: int,
        hot: Mapping[str, Callable[[Request], Awaitable[Response]]],
    ) -> None:
        self._app = app
        self._hot = hot
        self._callers = callers
        self._public = public
        self._body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        answered = Answered(send, request_id)
        try:
            handler = self._hot.get(scope["path"]) if scope["method"] == "POST" else None
            if handler is None:
                await self._identify(scope, headers)
                await self._app(scope, self._checked(headers, receive), answered)
            else:
                began = monotonic()
                await self._identify(scope, headers)
                response = await self._handle(handler, Request(scope, self._checked(headers, receive)), began)
                await response(scope, receive, answered)
        except ClientDisconnect:
            return
        except Exception as unexpected:
            if answered.begun:
                raise
            problem = self._problem(scope, request_id, unexpected)
            await render(request_id, problem)(scope, receive, answered)

    async def _identify(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if scope["path"] not in self._public:
            scope["state"]["caller"] = await self._callers.authenticate(scope, headers)

    async def _handle(
        self, handler: Callable[[Request], Awaitable[Response]], request: Request, began: float
    ) -> Response:
        """A hot route. A slow database may cost the look-up of the key its time: both together are bounded.

        Raises:
            DatabaseAway: it is unknown whether the events were stored.
        """
        await request.body()  # as slow as the client likes
        began = max(began, monotonic() - LOOKING_UP)
        try:
            async with asyncio.timeout(PATIENCE - (monotonic() - began)):
                return await handler(request)
        except TimeoutError:
            raise DatabaseAway("the commit took too long") from None

    def _checked(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """``receive`` that refuses a body which is too large or no JSON.

        Raises:
            Problem: 413 or 415, at once where the headers already say so.
        """
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._body_limit:
            raise self._too_large()
        has_body = b"transfer-encoding" in headers or length.strip(b"0") != b""
        if has_body and not _JSON.fullmatch(headers.get(b"content-type", b"")):
            raise Problem(415, "unsupported-media-type", "Send the body with `Content-Type: application/json`.")
        got = 0

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            if message["type"] == "http.request":
                got += len(message.get("body", b""))
                if got > self._body_limit:
                    raise self._too_large()
            return message

        return counted

    def _too_large(self) -> Problem:
        limit = f"The limit is {self._body_limit:,} bytes: send less at once."
        return Problem(413, "body-too-large", limit, headers={"Connection": "close"})

    def _problem(self, scope: Scope, request_id: str, unexpected: Exception) -> Problem:
        match unexpected:
            case Problem():
                return unexpected
            case DatabaseAway():
                return database_away()
            case KeyMissing():
                return problem_of(Request(scope), unexpected)
            case _:
                telemetry.stage_failed(f"request {request_id}", unexpected)
                return Problem(
                    500, "internal-error", "Nothing more can be said here. Tell the operator the request_id."
                )


class Answered:
    """``send`` that adds the headers which every answer has, and knows whether one has begun."""

    __slots__ = ("_headers", "_send", "begun")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._headers = [*SECURITY_HEADERS, (b"x-request-id", request_id.encode())]
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            given: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
            policy = [] if any(name == CONTENT_SECURITY_POLICY[0] for name, _ in given) else [CONTENT_SECURITY_POLICY]
            message = {**message, "headers": [*given, *self._headers, *policy]}
        await self._send(message)


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else ids.render("req", uuid7())
