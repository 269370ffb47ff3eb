"""The server's side of a connection, before anybody knows who calls: uvicorn's protocol with a bound for everything.

Bytes are bounded by what the parser gives out: whatever it swallows without giving out a header section or a part of a
body (a request line, headers, trailers, extensions of chunks, empty lines) grows within it. Time is bounded by the
phase that the connection is in (`connections.py`).

    HEAD → BODY → ANSWERING → IDLE → HEAD …     CLOSING: we have said our last, or nothing
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Any, ClassVar

import httptools
from uuid_utils.compat import uuid7
from uvicorn import Config
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from webhook_gateway import telemetry
from webhook_gateway.rules import ids

from .connections import CloseReason, Connections, Limits
from .errors import RETRY_AFTER, Problem, answer_with
from .guard import CONTENT_SECURITY_POLICY, SECURITY_HEADERS, lines_of
from .whole import Door, Head, Whole

LONGEST_TARGET = 8_192
MOST_HEADERS = 128
MOST_PIPELINED = 128
"""Requests that may wait behind the one that is being answered."""
LINGERING = 262_144
"""Bytes that are still taken, and dropped, after our last word: a reset would take it from whoever is still sending."""

_PROBLEMS = {
    CloseReason.MALFORMED: (400, "bad-request", "This is not HTTP/1.1 as RFC 9112 has it. Use an HTTP client."),
    CloseReason.UPGRADE: (400, "bad-request", "Only HTTP/1.1 is spoken: ask for no other (`Version.HTTP_1_1`)."),
    CloseReason.REQUEST_LINE: (414, "uri-too-long", f"The limit is {LONGEST_TARGET:,} bytes: send less in the URL."),
    CloseReason.HEADERS: (
        431,
        "headers-too-large",
        f"Send fewer headers (the limit is {MOST_HEADERS}), or shorter ones.",
    ),
    CloseReason.SLOW_HEADERS: (408, "request-timeout", "The headers took too long to come. Send the request again."),
    CloseReason.SLOW_BODY: (408, "request-timeout", "The body took too long to come. Send the request again."),
    CloseReason.PIPELINE: (503, "unavailable", "Too many requests wait on this connection. Send this one again."),
    CloseReason.ADDRESS: (503, "unavailable", "Your address has too many connections open. Use fewer, and keep them."),
    CloseReason.CONNECTIONS: (503, "unavailable", "There are too many connections just now. Try again later."),
}
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_AT_ONCE = frozenset({CloseReason.ADDRESS, CloseReason.CONNECTIONS})
"""Are closed without lingering: it would take the place that is refused."""


class _TooMuch(Exception):
    """Raised through the parser, which stops it."""

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(reason)
        self.reason = reason


class _Phase(Enum):
    HEAD = auto()
    BODY = auto()
    ANSWERING = auto()
    IDLE = auto()
    CLOSING = auto()


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `bounded` makes the class that uvicorn is given."""

    shared: ClassVar[Connections]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.url, self.headers = b"", []
        self._phase = _Phase.HEAD
        self._began = 0.0
        """The phase, by the shared clock."""
        self._close_reason: CloseReason | None = None
        self._running: RequestResponseCycle | Whole | None = None
        self._door = Door(config.loaded_app)
        self._fed = 0
        """Bytes of the part that the parser has just now."""
        self._swallowed = 0
        """Bytes before it for which the parser gave out nothing."""
        self._given = 0
        """Header sections and parts of bodies that it gave out."""
        self._body_bytes = 0
        self._unsent = (0, 0.0)
        """Bytes that the client had not taken, and since when it took none of them."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._door.peer = self.client[0] if self.client else ""
        reason = self.shared.admit(self, self._door.peer, self.loop)
        self._began = self.shared.now
        if reason is not None:
            self._refuse(reason)

    def connection_lost(self, exc: Exception | None) -> None:
        self.shared.leave(self)
        self._forget_requests()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._close_reason is not None:
            self._drop(data)
            return
        begins = self._phase is _Phase.IDLE or not self._fed
        self._door.read = data if begins else None
        if begins and not self.flow.write_paused and (known := self._door.recall(data)) is not None:
            self._given, self._fed = self._given + 1, len(data)
            if self._take(*known, keep=True):
                return  # what has been understood is not parsed again
        if self._phase is _Phase.IDLE or self._phase is _Phase.ANSWERING:
            self._phase, self._began = _Phase.HEAD, self.shared.now
        given, self._fed = self._given, len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # nothing else is spoken here: the request is answered as if it had not asked
        except httptools.HttpParserError as error:
            self._begin()
            cause = error.__context__
            self._refuse(cause.reason if isinstance(cause, _TooMuch) else CloseReason.MALFORMED)
            return
        self._begin()
        if self._given != given:
            self._swallowed = 0
            return
        self._swallowed += len(data)
        if self._swallowed > self.shared.limits.header:
            self._refuse(self._what_grows())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase, self._began = _Phase.HEAD, self.shared.now  # what is read next isn't where a request begins

    def on_headers_complete(self) -> None:
        self._check_head()
        if self._may_be_whole():
            self._door.parts = []
        else:
            super().on_headers_complete()
        self.headers = []  # trailers come to the same callback, and are nobody's
        self._phase, self._began, self._body_bytes = _Phase.BODY, self.shared.now, 0
        self._given += 1

    def on_body(self, body: bytes) -> None:
        self._given += 1
        self._body_bytes += len(body)
        if self._door.parts is not None:
            self._door.parts.append(body)
            return
        cycle = self.cycle
        if cycle.response_complete:  # without it, as most refusals are
            if self._body_bytes > self.shared.limits.body:
                self.transport.close()
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self._door.parts is not None:
            head, body, keep = Head(self.scope["headers"]), b"".join(self._door.parts), self.parser.should_keep_alive()
            if self._take(head, body, keep=keep):
                self._door.parts = None
                if keep and self._door.read is not None:
                    self._door.remember(self._door.read, head, body)
                return
        self._begin()
        cycle = self.cycle
        if cycle.response_complete:
            self._phase, self._began = _Phase.IDLE, self.shared.now
            return
        self._phase = _Phase.ANSWERING
        cycle.more_body = False
        cycle.message_event.set()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._close_reason is not None:
            self._end(self._close_reason)
        else:
            self.flow.resume_reading()
            if self._phase is _Phase.ANSWERING:
                self._phase, self._began = _Phase.IDLE, self.shared.now

    def shutdown(self) -> None:
        super().shutdown()
        if self._running is not None and (end := self._running.scope.get("state", {}).get("end")) is not None:
            end()  # an answer that by itself goes on

    def _may_be_whole(self) -> bool:
        """Whether the request whose head has come is to be taken without ASGI, should the rest be here, too."""
        return (
            self._door.routes is not None
            and self._door.routes.takes_whole(self.parser.get_method(), self.url)
            and (self.cycle is None or self.cycle.response_complete)  # type: ignore[redundant-expr]
            and not self.expect_100_continue
            and not self.flow.write_paused
            and self.parser.get_http_version() == "1.1"
        )

    def _take(self, head: Head, body: bytes, *, keep: bool) -> bool:
        assert self._door.routes is not None
        before = self.cycle, self._running, self._phase
        whole = Whole(self, head, body, self._door.source_of(head), keep=keep)
        self.cycle = self._running = whole  # type: ignore[assignment]
        self._phase = _Phase.ANSWERING
        if self._door.routes.take(whole):
            return True
        self.cycle, self._running, self._phase = before
        return False

    def _begin(self) -> None:
        """Begins ASGI for a request of which not all is here."""
        if self._door.parts is not None:
            parts, self._door.parts = self._door.parts, None
            super().on_headers_complete()
            for part in parts:
                self.cycle.body += part

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def check(self, now: float, passed: float) -> None:
        """Ends what has taken too long at ``now``, when ``passed`` seconds went by since the last time."""
        limits, waited = self.shared.limits, now - self._began
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent[0]:
            self._unsent = unsent, now
        if unsent and now - self._unsent[1] > limits.idle:
            telemetry.connection_refused(CloseReason.UNREAD)
            self._forget_requests()
            self.transport.abort()
        elif self._phase is _Phase.CLOSING:
            if waited > limits.patience and not unsent:
                self.transport.abort()
        elif self.flow.read_paused:
            self._began += passed  # it is we who take our time
        elif self._phase is _Phase.HEAD and waited > limits.patience:
            self._refuse(CloseReason.SLOW_HEADERS)
        elif self._phase is _Phase.BODY and waited > limits.patience + self._body_bytes / limits.body_rate:
            self._refuse(CloseReason.SLOW_BODY)
        elif self._phase is _Phase.IDLE and waited > limits.idle:
            self._end(None)

    def _check_head(self) -> None:
        limit = self.shared.limits.header
        if self.transport.is_closing():
            raise _TooMuch(CloseReason.PIPELINE)  # came behind our last word: nobody would learn what became of it
        if self.parser.should_upgrade() and any(name in _FRAMING for name, _ in self.headers):
            raise _TooMuch(CloseReason.UPGRADE)  # the parser would take the body for the next request
        if len(self.url) > LONGEST_TARGET:
            raise _TooMuch(CloseReason.REQUEST_LINE)
        # What came in one small part can't be too large: only else it has to be added up.
        is_large = self._swallowed + self._fed > limit and limit < len(self.url) + sum(
            len(name) + len(value) + 4 for name, value in self.headers
        )
        if is_large or len(self.headers) > MOST_HEADERS:
            raise _TooMuch(CloseReason.HEADERS)
        if len(self.pipeline) >= MOST_PIPELINED:
            raise _TooMuch(CloseReason.PIPELINE)

    def _what_grows(self) -> CloseReason:
        is_line = self._phase is _Phase.HEAD and not self.headers and len(self.url) > LONGEST_TARGET
        return CloseReason.REQUEST_LINE if is_line else CloseReason.HEADERS

    def _drop(self, data: bytes) -> None:
        """What comes after a refusal."""
        self._swallowed += len(data)
        if self._phase is _Phase.CLOSING and self._swallowed > LINGERING:
            self.transport.abort()

    def _forget_requests(self) -> None:
        """Nobody is there any more to be answered. uvicorn would go on with all but the newest."""
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _refuse(self, reason: CloseReason) -> None:
        """Reads no more of this connection. Requests before it are still answered, then it is said why."""
        if self._close_reason is not None or self.transport.is_closing():
            return
        self._close_reason = reason
        telemetry.connection_refused(reason)
        cycle = self.cycle
        if not self._given or (cycle.response_complete and self._phase is not _Phase.BODY):
            self._end(reason)
        elif self._phase is not _Phase.BODY:
            return
        elif self.pipeline:
            self.pipeline.popleft()  # the newest, whose body will never be complete
        elif cycle.response_complete:
            self._end(None)
        else:
            self._forget_requests()
            self._end(None if cycle.response_started else reason)

    def _end(self, reason: CloseReason | None) -> None:
        if self.transport.is_closing():
            return
        self._phase, self._began, self._swallowed = _Phase.CLOSING, self.shared.now, 0
        if reason is not None and (self._fed or reason is not CloseReason.SLOW_HEADERS):  # a silent one is told nothing
            self.transport.write(_answer(reason, self.server_state.default_headers))
        if self._fed and self._close_reason is not None and self._close_reason not in _AT_ONCE:
            self.flow.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()


def bounded(limits: Limits) -> type[BoundedProtocol]:
    """The protocol of one server, whose connections are counted together."""
    return type("Bounded", (BoundedProtocol,), {"shared": Connections(limits)})


def _answer(reason: CloseReason, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    status, name, detail = _PROBLEMS[reason]
    request_id = ids.render("req", uuid7())
    retry = {"Retry-After": RETRY_AFTER} if status == 503 else None
    response = answer_with(request_id, Problem(status, name, detail, headers=retry))
    ours = [(b"x-request-id", request_id.encode()), (b"connection", b"close"), CONTENT_SECURITY_POLICY]
    headers = [*default_headers, *response.raw_headers, *SECURITY_HEADERS, *ours]
    return STATUS_LINE[status] + lines_of(headers) + b"\r\n" + bytes(response.body)
