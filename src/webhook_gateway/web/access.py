"""Every request is counted and has a line in the log: its route, how it ended, how long it took, and who asked."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from time import monotonic, perf_counter

from starlette.types import Message, Receive, Scope, Send

from webhook_gateway import telemetry
from webhook_gateway.rules import ids

from .callers import Bucket

AT_ONCE = "webhook_gateway.at_once"
"""The server's extension of ASGI that takes a whole answer: its status, its headers, and its body."""
Headers = list[tuple[bytes, bytes]]
AtOnce = Callable[[int, Headers, bytes], bool]
"""False where the answer has to go the usual way."""
NAMELESS = 10.0
"""Lines a second for requests without a live key: all are counted, but whoever may connect could fill the log."""

_RANDOM = re.compile(r"req_[0-9a-z]{26}|[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")
"""Request ids that are ours, or a UUID: any other may say who it is about."""


class Access:
    """What stands before the application and the byte routes. ``has_log``: whether it writes lines."""

    def __init__(self, *, has_log: bool) -> None:
        self._has_log = has_log
        self._nameless = Bucket(NAMELESS)
        self.in_flight = 0

    async def __call__(self, app: Answering, scope: Scope, receive: Receive, send: Send, route: str | None) -> None:
        """``route`` is its template where that is known before; else the router says it, if there is one."""
        began, answer = perf_counter(), Answer(send, scope.get("extensions", {}).get(AT_ONCE))
        scope.setdefault("state", {})
        self.in_flight += 1
        try:
            await app(scope, receive, answer)
        finally:
            self.in_flight -= 1
            duration = perf_counter() - began
            route = route or getattr(scope.get("route"), "path", None)
            telemetry.request_answered(scope["method"], route, answer.status, duration, self._line(scope))

    def _line(self, scope: Scope) -> dict[str, object] | None:
        caller, client = scope["state"].get("caller"), scope.get("client")
        if not self._has_log or (caller is None and not self._nameless.take(monotonic())):
            return None
        request_id = scope["state"].get("request_id")
        return {
            "request_id": request_id if request_id and _RANDOM.fullmatch(request_id) else None,
            "actor": None if caller is None else caller.name,
            "tenant_id": None if caller is None else ids.recall(ids.TENANT, caller.tenant_id),
            "source": client[0] if client else None,
        }


class Answer:
    """``send`` that knows the status; None before there is one."""

    __slots__ = ("_at_once", "_send", "status")

    def __init__(self, send: Send, at_once: AtOnce | None) -> None:
        self._send = send
        self._at_once = at_once
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """All of an answer, in one write where the server can. Its headers are known to be right."""
        if self._at_once is not None and self._at_once(status, headers, body):
            self.status = status
            return
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


Answering = Callable[[Scope, Receive, Answer], Awaitable[None]]
"""An ASGI application, or one that gives whole answers."""
