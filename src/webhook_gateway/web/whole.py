"""A request that is all here when its connection is read, as most events are: it needs no ASGI, and no task."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware, _TrustedHosts
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .access import Access, told
from .callers import Caller
from .errors import answer_with
from .guard import CONTENT_SECURITY_POLICY, SECURITY_HEADERS, lines_of, problem_behind, request_id_of, with_ours

if TYPE_CHECKING:
    from .api.byte_routes import ByteRoutes

ROUTE = "/v1/events"

MOST_HEADS, LONGEST_HEAD = 1_000, 2_048
"""Header sections that are remembered, and the bytes of one."""
OF_ONE_REQUEST = frozenset({b"idempotency-key", b"traceparent", b"x-request-id"})
"""With these a header section doesn't come again."""
_CLOSE = b"connection: close\r\n"
_JSON = lines_of([*SECURITY_HEADERS, CONTENT_SECURITY_POLICY, (b"content-type", b"application/json")])


_lines_of_server = lru_cache(maxsize=1)(lines_of)
"""Of the headers that all answers of a second have."""


class Head:
    """A header section. Most requests of a client have that of the one before, which was understood then."""

    __slots__ = ("fields", "is_right", "key", "length", "pairs", "peer", "producer", "source")

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self.pairs = pairs
        self.fields = dict(pairs)
        """Of one given twice the last."""
        self.length = 0
        """Of the body, where the head is remembered."""
        self.key: bytes | None = None
        """The digest of its API key, once somebody has looked."""
        self.is_right = False
        """Whether it has been looked for what makes it one to refuse."""
        self.producer: Caller | None = None
        """Whose it was when somebody looked whether they may post."""
        self.peer = self.source = ""
        """The address that it last came from, and the one that this stands for."""


class Whole:
    """The request, and in uvicorn's eyes the cycle of its answer. ``source`` is the address that it comes from."""

    __slots__ = (
        *("_access", "_connection", "_request_id", "began", "body", "caller", "disconnected", "head", "keep_alive"),
        *("response_complete", "source"),
    )
    caller: Caller
    message_event = asyncio.Event()
    """Set when the client goes: nobody waits for it."""
    scope: ClassVar[dict[str, Any]] = {}

    def __init__(self, connection: HttpToolsProtocol, head: Head, body: bytes, source: str, *, keep: bool) -> None:
        self._connection: HttpToolsProtocol | None = connection
        self.head = head
        self.body = body
        self.source = source
        self.keep_alive = keep
        self.response_complete = self.disconnected = False

    @property
    def response_started(self) -> bool:
        return self.response_complete

    def begin(self, access: Access, caller: Caller) -> None:
        """From now on it is to be answered, once."""
        self._access, self.caller, self.began = access, caller, perf_counter()
        self._request_id = request_id_of(self.head.fields)
        access.in_flight += 1

    def answer(self, status: int, body: bytes) -> None:
        about = b"content-length: %d\r\nx-request-id: %b\r\n" % (len(body), self._request_id.encode())
        self._end(status, _JSON + about, body)

    def fail(self, error: Exception) -> None:
        response = answer_with(self._request_id, problem_behind(error, self._request_id))
        headers = with_ours(response.raw_headers, self._request_id)
        self._end(response.status_code, lines_of(headers), bytes(response.body))

    def _end(self, status: int, head: bytes, body: bytes) -> None:
        """All of it in one write."""
        connection, self._connection = self._connection, None  # which leads to us: nobody would let go of the other
        self.response_complete = True
        if not self.disconnected and connection is not None:
            is_said = _CLOSE in head
            keep = self.keep_alive and not is_said
            end = b"\r\n" if keep or is_said else _CLOSE + b"\r\n"
            first = _lines_of_server(tuple(connection.server_state.default_headers))
            connection.transport.write(b"".join((STATUS_LINE[status], first, head, end, body)))
            if not keep:
                connection.transport.close()
            connection.on_response_complete()
        request_id = told(self._request_id) if b"x-request-id" in self.head.fields else self._request_id
        self._access.ended("POST", ROUTE, status, self.began, request_id, self.caller, self.source)


class Door:
    """A connection's way to what takes whole requests, beneath an application as uvicorn has loaded it."""

    def __init__(self, app: Any) -> None:
        proxied = isinstance(app, ProxyHeadersMiddleware)
        self.peer = ""
        """The address at the other end."""
        self.routes: ByteRoutes | None = getattr(app.app if proxied else app, "byte_routes", None)
        self._trusted = app.trusted_hosts if proxied else _TrustedHosts("")
        self.parts: list[bytes] | None = None
        """Of the body of a request that may be all here: no ASGI has begun for it."""
        self.read: bytes | None = None
        """What was read last, where a request begins with it."""

    def recall(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head and the body, if that is what this is, and the head came before."""
        if self.routes is None:
            return None
        end = data.find(b"\r\n\r\n") + 4
        head = self.routes.heads.get(data[:end])
        return None if head is None or len(data) - end != head.length else (head, data[end:])

    def remember(self, data: bytes, head: Head, body: bytes) -> None:
        """To be called with all that was read, where that is a request which was taken, and the connection goes on."""
        end = data.find(b"\r\n\r\n") + 4
        is_plain = b"transfer-encoding" not in head.fields and len(data) - end == len(body)
        if self.routes is not None and is_plain and end <= LONGEST_HEAD and not OF_ONE_REQUEST & head.fields.keys():
            if len(self.routes.heads) >= MOST_HEADS:
                self.routes.heads.clear()
            head.length = len(body)
            self.routes.heads[data[:end]] = head

    def source_of(self, head: Head) -> str:
        """As `ProxyHeadersMiddleware` has it."""
        if head.peer != self.peer:
            head.peer = head.source = self.peer
            forwarded = b", ".join([value for name, value in head.pairs if name == b"x-forwarded-for"])
            if forwarded and self.peer in self._trusted:
                head.source = self._trusted.get_trusted_client_address(forwarded.decode("latin-1"))[0] or self.peer
        return head.source
