"""A request that is all here when its connection is read, as most events are: it needs no ASGI, and no task."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware, _TrustedHosts
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .guard import lines_of

if TYPE_CHECKING:
    from .api.byte_routes import ByteRoutes

MOST_HEADS, LONGEST_HEAD = 1_000, 2_048
"""Header sections that are remembered, and the bytes of one."""
OF_ONE_REQUEST = frozenset({b"idempotency-key", b"traceparent", b"x-request-id"})
"""With these a header section doesn't come again."""
_CLOSE = b"connection: close\r\n"


class Head:
    """A header section. Most requests of a client have that of the one before, which was understood then."""

    __slots__ = ("fields", "is_right", "key", "length", "pairs")

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


class Whole:
    """The request, and in uvicorn's eyes the cycle of its answer. ``source`` is the address that it comes from."""

    __slots__ = ("_connection", "body", "disconnected", "head", "keep_alive", "response_complete", "source")
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

    def answer(self, status: int, head: bytes, body: bytes) -> None:
        """All of it in one write. To be called once; ``head`` are lines that are known to be right."""
        connection, self._connection = self._connection, None  # which leads to us: nobody would let go of the other
        self.response_complete = True
        if self.disconnected or connection is None:
            return
        is_said = _CLOSE in head
        keep = self.keep_alive and not is_said
        end = b"\r\n" if keep or is_said else _CLOSE + b"\r\n"
        first = lines_of(connection.server_state.default_headers)
        connection.transport.write(b"".join((STATUS_LINE[status], first, head, end, body)))
        if not keep:
            connection.transport.close()
        connection.on_response_complete()


class Door:
    """A connection's way to what takes whole requests, beneath an application as uvicorn has loaded it."""

    def __init__(self, app: Any) -> None:
        proxied = isinstance(app, ProxyHeadersMiddleware)
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

    def source_of(self, client: tuple[str, int] | None, head: Head) -> str:
        """As `ProxyHeadersMiddleware` has it."""
        source = client[0] if client else ""
        if source in self._trusted:
            forwarded = b", ".join([value for name, value in head.pairs if name == b"x-forwarded-for"]).decode(
                "latin-1"
            )
            return self._trusted.get_trusted_client_address(forwarded)[0] or source if forwarded else source
        return source
