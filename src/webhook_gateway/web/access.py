"""Every request is counted and has a line in the log: its route, how it ended, how long it took, and who asked."""

from __future__ import annotations

import re
from time import monotonic, perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webhook_gateway import telemetry
from webhook_gateway.rules import ids

from .callers import Bucket, Caller

NAMELESS = 10.0
"""Lines a second for requests without a live key: all are counted, but whoever may connect could fill the log."""

_RANDOM = re.compile(r"req_[0-9a-z]{26}|[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")


class Access:
    """What stands before the application and the byte routes. ``has_log``: whether it writes lines."""

    def __init__(self, *, has_log: bool) -> None:
        self._has_log = has_log
        self._nameless = Bucket(NAMELESS)
        self.in_flight = 0

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, route: str | None) -> None:
        """``route`` is its template where that is known before; else the router says it, if there is one."""
        began, answer, state = perf_counter(), Answer(send), scope.setdefault("state", {})
        self.in_flight += 1
        try:
            await app(scope, receive, answer)
        finally:
            client, about = scope.get("client"), (told(state.get("request_id")), state.get("caller"))
            route = route or getattr(scope.get("route"), "path", None)
            self.ended(scope["method"], route, answer.status, began, *about, client[0] if client else None)

    def ended(
        self,
        method: str,
        route: str | None,
        status: int | None,
        began: float,
        request_id: str | None,
        caller: Caller | None,
        source: str | None,
    ) -> None:
        """``began`` is a moment of `perf_counter`, the request's id one that may be `told`."""
        self.in_flight -= 1
        who = None
        if self._has_log and (caller is not None or self._nameless.take(monotonic())):
            named = (None, None) if caller is None else (caller.name, ids.recall(ids.TENANT, caller.tenant_id))
            who = request_id, *named, source
        telemetry.request_answered(method, route, status, perf_counter() - began, who)


def told(request_id: str | None) -> str | None:
    """The id for the log, if it is ours, or a UUID: any other may say who it is about."""
    return request_id if request_id is not None and _RANDOM.fullmatch(request_id) else None


class Answer:
    """``send`` that knows the status; None before there is one."""

    __slots__ = ("_send", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)
