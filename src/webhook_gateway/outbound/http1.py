"""One connection to send POSTs over, one after the other: HTTP/1.1 (RFC 9112), and only as much of it as that needs.

It knows no policy, no names and no pool. llhttp reads the answers, in its strict mode. What it lets pass and another
reader may read differently is refused here: a framing that we never asked for, bytes after an answer's end, and bytes
that nobody asked for. No connection is used again that met any of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from re import compile as regex
from time import monotonic
from typing import NoReturn, TypeVar, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from webhook_gateway.rules.outcome import Outcome, Phase, ResponseSummary
from webhook_gateway.rules.unreachable import Trouble

BODY_LIMIT = 16 * 1024  # bytes of an answer's body that are read
LINE_LIMIT = 8190  # bytes
STATUS_LINE = 256  # bytes of an answer's beginning that are kept, at least
HEADER_LIMIT = 128
INFORMATIONAL_LIMIT = 8  # 1xx answers before the real one
REMEMBERED = 1024  # bytes of an answer that is compared with the next one, and then not parsed again
FRAMING_LIMIT = 8 * BODY_LIMIT  # bytes that a body may take with its chunks' sizes, extensions and trailers

T = TypeVar("T")


@dataclass(slots=True)
class Answer:
    """A final answer. ``headers`` have lower-case names, and of a repeated one the first value.

    ``whole`` is false where the body was cut: by our limit, by the deadline, or by the partner.
    ``malformed`` is true where only the status line could be read, and says success.
    """

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    whole: bool
    malformed: bool = False
    judged: tuple[Outcome, ResponseSummary] | None = None
    """What was made of it: the same answer comes again and again."""


class NoAnswer(Exception):
    """The connection ended without an answer, or what came is none."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble)
        self.trouble = trouble


class Connection(asyncio.Protocol):
    """One request at a time. What goes wrong once an answer's head was read changes nothing: the status counts."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._reader = _Reader()
        self._done: Callable[[Answer | Exception], None] | None = None  # whoever asked
        self._last: tuple[bytes, Answer] | None = None  # of a 2xx that left the connection as it was
        self._over: Exception | None = None  # why the connection can't be used any more
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._paused = False
        self.tls_version: str | None = None
        self.sent = False  # the request has left, but for what fits into the transport's buffer
        self.reusable = False
        self.opened_at = monotonic()
        self.idle_since = 0.0  # monotonic seconds, as above; for whoever keeps connections

    @property
    def phase(self) -> Phase:
        if self.sent:
            return Phase.SENT
        return Phase.CONNECTED if self.tls_version is None else Phase.SECURED

    @property
    def unanswered(self) -> bool:
        """Not a byte of an answer to the last request came, where that has failed."""
        return not self._reader.start

    @property
    def ended(self) -> bool:
        return self._over is not None

    def exchange(
        self, request: bytes, seconds: float | None = None, *, head_only: bool = False
    ) -> asyncio.Future[Answer]:
        """`begin`, to be awaited.

        Raises (when awaited):
            NoAnswer: the partner hung up, or did not answer with HTTP.
            TimeoutError: no answer came in time.
            OSError: what the network or TLS said.
        """
        waiter = asyncio.get_running_loop().create_future()
        self.begin(request, seconds, partial(tell, waiter), head_only=head_only)
        return waiter

    def begin(
        self,
        request: bytes,
        seconds: float | None,
        done: Callable[[Answer | Exception], None],
        *,
        head_only: bool = False,
    ) -> None:
        """Send a whole request; ``done`` gets its answer, within so many seconds, or what `exchange` raises.

        ``head_only`` is for CONNECT, after whose answer the bytes mean something else.
        """
        self._done = done
        if self._reader.start or self._reader.head_only or head_only:
            self._reader.begin(head_only=head_only)
        self.sent = self.reusable = False
        if self._over is not None:
            self._finish(self._over)
            return
        if seconds is not None:
            self._expires = monotonic() + seconds
            if self._timer is None or self._timer_at > self._expires:
                self._set_timer(seconds)
        self.transport.write(request)
        self.sent = not self._paused

    def abort(self) -> None:
        """Drop the connection with all that is still to be sent: closing would wait for a partner who never reads."""
        if self._over is None:
            self._over = NoAnswer(Trouble.CONNECTION_CLOSED)
        self.transport.abort()

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        tls = transport.get_extra_info("ssl_object")
        self.tls_version = tls.version() if tls is not None else None

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.sent = True

    def data_received(self, data: bytes) -> None:
        if self._done is None:  # nobody asked: were it kept, it would be taken for the answer to the next request
            self._over = NoAnswer(Trouble.PROTOCOL_ERROR)
            self.transport.abort()
            return
        reader = self._reader
        is_first = not (reader.start or reader.head_only) and self.sent
        if is_first and self._last is not None and data == self._last[0]:  # byte for byte: it reads the same
            self.reusable = True
            self._finish(self._last[1], keep=True)
            return
        try:
            reader.feed(data)
        except (HttpParserError, HttpParserUpgrade, _Stop):
            self._finish(reader.broken())
            return
        if reader.ended:
            answer = reader.answer(whole=True)
            self.reusable = answer.whole and self.sent and reader.reusable
            if self.reusable and is_first and 200 <= answer.status < 300 and len(data) <= REMEMBERED:
                self._last = data, answer
            self._finish(answer, keep=self.reusable or reader.head_only)

    def eof_received(self) -> None:
        self._lose(None)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc)
        if self._timer is not None:
            self._timer.cancel()
        self._reader.close()

    def _lose(self, error: Exception | None) -> None:
        reason = error or NoAnswer(Trouble.CONNECTION_CLOSED)
        if self._done is None:
            self._over = self._over or reason
        elif self._reader.status:
            self._finish(self._reader.answer(whole=self._reader.ends_with_connection and error is None))
        else:
            self._finish(reason)

    # How it ends

    def _finish(self, found: Answer | Exception, *, keep: bool = False) -> None:
        done, self._done = self._done, None
        if not keep:
            self.abort()
        if done is not None:
            done(found)

    def _set_timer(self, seconds: float) -> None:
        """One timer a connection, which finds out whether it is still wanted: setting one a request costs more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = monotonic() + seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._done is None:
            return
        left = self._expires - monotonic()
        if left > 0:
            self._set_timer(left)
        else:
            self._finish(self._reader.answer(whole=False) if self._reader.status else TimeoutError())


def tell(waiter: asyncio.Future[T], found: T | Exception) -> None:
    """Unless nobody waits any more."""
    if waiter.done():
        return
    if isinstance(found, Exception):
        waiter.set_exception(found)
    else:
        waiter.set_result(found)


class _Reader:
    """One answer after the other, held to our limits. The parser calls its ``on_…`` methods."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self.begin(head_only=False)

    def begin(self, *, head_only: bool) -> None:
        self.head_only = head_only
        self.start = b""
        self.status = 0  # of the real answer, once its head was read
        self.ended = self.ends_with_connection = self.reusable = False
        self._line = self._fields = self._informational = self._raw = 0
        self._headers: dict[bytes, bytes] = {}
        self._body = bytearray()
        self._trouble = Trouble.PROTOCOL_ERROR

    def feed(self, data: bytes) -> None:
        """
        Raises:
            HttpParserError, HttpParserUpgrade, _Stop: no more of it can be read, or is to be.
        """
        if len(self.start) < STATUS_LINE:
            self.start += data
        self._line += len(data)  # of a line that does not end; a header that ends makes it 0
        self._parser.feed_data(data)
        if self.ended:
            return
        if self.status:
            self._raw += len(data)
            if len(self._body) > BODY_LIMIT or self._raw > FRAMING_LIMIT:
                raise _Stop
        elif self._line > LINE_LIMIT:
            self._refuse_headers()

    def answer(self, *, whole: bool) -> Answer:
        whole = whole and len(self._body) <= BODY_LIMIT
        return Answer(self.status, self._headers, bytes(self._body[:BODY_LIMIT]), whole)

    def broken(self) -> Answer | NoAnswer:
        """What of an answer counts that can't be read. A partner who says 2xx has it, however odd the rest is."""
        if self.status and not self.head_only:
            return self.answer(whole=self.ended)
        said = None if self.head_only else _SUCCESS.match(self.start)
        return NoAnswer(self._trouble) if said is None else Answer(int(said[1]), {}, b"", whole=False, malformed=True)

    def close(self) -> None:
        del self._parser  # it refers to this reader, and the other way round

    def on_message_begin(self) -> None:
        if self.ended:
            raise _Stop

    def on_header(self, name: bytes, value: bytes) -> None:
        self._line = 0
        self._fields += 1
        if self._fields > HEADER_LIMIT or len(name) + len(value) > LINE_LIMIT:
            self._refuse_headers()
        if self.status:  # a trailer
            return
        name = name.lower()
        if name == _TRANSFER_ENCODING and name in self._headers:
            raise _Stop
        self._headers.setdefault(name, value)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        version = self._parser.get_http_version()
        if version not in _VERSIONS or (status < 200 and status not in _INFORMATIONAL):
            raise _Stop
        if status < 200:
            self._informational += 1
            if self._informational == INFORMATIONAL_LIMIT:
                raise _Stop
            self._fields = 0
            self._headers = {}
            return
        length, coding = self._headers.get(_CONTENT_LENGTH), self._headers.get(_TRANSFER_ENCODING)
        if coding is not None and coding.lower() != b"chunked":  # we never said that we take another (RFC 9112, 7.4)
            raise _Stop
        self.status = status
        self.ended = self.head_only
        self.ends_with_connection = length is None and coding is None
        bodiless = status in _BODILESS and (coding is not None or length not in (None, b"0"))
        self.reusable = version == "1.1" and not bodiless

    def on_body(self, data: bytes) -> None:
        if self.head_only:
            raise _Stop
        self._body += data[: BODY_LIMIT + 1 - len(self._body)]

    def on_message_complete(self) -> None:
        if self.status:
            self.ended = True
            self.reusable = self.reusable and self._parser.should_keep_alive()

    def _refuse_headers(self) -> NoReturn:
        self._trouble = Trouble.RESPONSE_HEADERS_TOO_LARGE
        raise _Stop


class _Stop(Exception):
    """No more of this answer is read: a limit, or what we never asked for. Stops the parser from within."""


_SUCCESS = regex(rb"HTTP/1\.[01] (2[0-9]{2})( [\t -~\x80-\xff]*)?\r?\n")
_VERSIONS = frozenset({"1.1", "1.0"})
_INFORMATIONAL = frozenset({100, 102, 103})
_BODILESS = frozenset({204, 304})
_CONTENT_LENGTH, _TRANSFER_ENCODING = b"content-length", b"transfer-encoding"
