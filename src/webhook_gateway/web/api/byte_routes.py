"""A door of their own for the byte routes: from the server's bytes to a handler's, past the framework.

A framework's objects for request, response and routing cost more than storing an event does; so do the server's and a
task, for an event that is all here. The rules are those of `guard.py`, in the same order; the handlers are in
`events.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import monotonic

from starlette.types import Receive, Scope, Send

from webhook_gateway.intake.ingest import PATIENCE
from webhook_gateway.rules.faults import Fault
from webhook_gateway.web import guard
from webhook_gateway.web.access import Access
from webhook_gateway.web.callers import Caller, Callers, key_in
from webhook_gateway.web.errors import answer_with, invalid
from webhook_gateway.web.whole import ROUTE, Head, Whole

Headers = Mapping[bytes, bytes]
"""By lower-case name; of one given twice the last."""
Handler = Callable[[Caller, Headers, bytes, float], Awaitable[tuple[int, bytes]]]
"""From who asks, the headers, the body and a moment of monotonic time to the answer's status and JSON.

What is not stored by that moment is answered as unknown (`DatabaseUnavailable`).
"""
Beginning = Callable[[Whole, float], bool]
"""A handler that doesn't wait. False where it would have to; then nothing has happened."""

_JSON_HEADERS = [*guard.SECURITY_HEADERS, guard.CONTENT_SECURITY_POLICY, (b"content-type", b"application/json")]
_TARGET = ROUTE.encode()


class ByteRoutes:
    """POST requests for the ``handlers``, by path. ``begin`` is the one that doesn't wait, for `ROUTE`."""

    def __init__(
        self, handlers: Mapping[str, Handler], begin: Beginning, callers: Callers, access: Access, body_limit: int
    ) -> None:
        self._handlers = handlers
        self._begin = begin
        self._callers = callers
        self._access = access
        self._body_limit = body_limit
        self.heads: dict[bytes, Head] = {}
        """As they came, with the API keys in them: to be cleared from time to time."""

    def takes(self, scope: Scope) -> bool:
        return scope["method"] == "POST" and scope["path"] in self._handlers

    def takes_whole(self, method: bytes, target: bytes) -> bool:
        return target == _TARGET and method == b"POST"

    def take(self, whole: Whole) -> bool:
        """Sees to a request. False where something has to be asked first; then nothing has happened."""
        head = whole.head
        if head.key is None:
            head.key = key_in(head.fields)
        caller = self._callers.recall(head.key, whole.source)
        if caller is None:
            return False
        whole.begin(self._access, caller)
        try:
            self._callers.requests.take(caller, 1)
            if not head.is_right:
                guard.check_body(head.fields, self._body_limit)
                _check_once(head.pairs, b"idempotency-key")
                if len(whole.body) > self._body_limit:  # in chunks
                    raise guard.too_large(self._body_limit)
                head.is_right = True
            if not self._begin(whole, monotonic() + PATIENCE):
                self._callers.requests.take(caller, -1)  # it is counted again on its way
                self._access.in_flight -= 1
                return False
        except Exception as unexpected:
            whole.fail(unexpected)
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        state = scope["state"]
        request_id = state["request_id"] = guard.request_id_of(headers)
        began = monotonic()
        try:
            caller = state["caller"] = await self._callers.authenticate(scope, headers)
            looked_up = monotonic() - began
            guard.check_body(headers, self._body_limit)
            _check_once(scope["headers"], b"idempotency-key")
            body = await self._body(receive)
            if body is None:
                return
            # The key's look-up and the commit are bounded together; what a client takes to send is not ours to count.
            until = monotonic() + PATIENCE - looked_up
            status, answer = await self._handlers[scope["path"]](caller, headers, body, until)
        except Exception as unexpected:
            problem = guard.problem_behind(unexpected, request_id)
            await answer_with(request_id, problem)(scope, receive, guard.Answered(send, request_id))
            return
        length = (b"content-length", b"%d" % len(answer))
        given = [*_JSON_HEADERS, length, (b"x-request-id", request_id.encode())]
        await send({"type": "http.response.start", "status": status, "headers": given})
        await send({"type": "http.response.body", "body": answer})

    async def _body(self, receive: Receive) -> bytes | None:
        """All of it, however slowly it comes; None where the client has gone.

        Raises:
            Problem: 413.
        """
        parts, got, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            got += len(parts[-1])
            if got > self._body_limit:
                raise guard.too_large(self._body_limit)
            more = message.get("more_body", False)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_once(headers: Iterable[tuple[bytes, bytes]], header: bytes) -> None:
    """
    Raises:
        Problem: 422: it is given more than once, and which one counts would be a guess.
    """
    if sum(name == header for name, _ in headers) > 1:
        raise invalid(Fault("once", "Give the header once.", parameter=header.decode().title()))
