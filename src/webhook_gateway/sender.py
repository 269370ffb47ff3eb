"""The only outgoing HTTP: resolve, check, POST, read a bounded answer → `Exchange`.

Nothing that a partner or a network does raises here; whatever does raise is a bug of ours. Only this file and
`egress` know which HTTP client is used (aiohttp).

Connections are kept and used again for one revision of one endpoint: the client's pool keys its connections by host
name, among other things, so every revision asks with a name object of its own (`_PoolName`). Editing an endpoint
leaves its old connections behind, which are closed when they were idle for `KEEPALIVE`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from re import compile as regex
from time import monotonic
from typing import Any
from uuid import UUID

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.payload import Payload
from multidict import CIMultiDict
from yarl import URL

from webhook_gateway.egress import (
    Egress,
    Journey,
    NameNotFound,
    Refused,
    Resolve,
    ResolverFailed,
    SystemResolver,
    journey,
)
from webhook_gateway.rules.credentials import TlsSettings
from webhook_gateway.rules.outcome import (
    Accepted,
    Blocked,
    Exchange,
    Outcome,
    Phase,
    Rejected,
    ResponseSummary,
    TimedOut,
    Unreachable,
    Unsendable,
)
from webhook_gateway.rules.retry_after import read_retry_after
from webhook_gateway.rules.targets import Denial, Denied, Policy, Target, parse
from webhook_gateway.rules.unreachable import Trouble

KEEPALIVE = 4.0  # seconds; many servers close an idle connection after 5, and a race with that costs an attempt
BODY_LIMIT = 16 * 1024  # bytes of an answer's body that are read
LINE_LIMIT = 8190  # bytes
HEADER_LIMIT = 128
INFORMATIONAL_LIMIT = 8  # 1xx answers before the real one
LANE_LIMIT = 20_000


@dataclass(frozen=True, slots=True)
class Request:
    """One POST. ``headers`` are sent as they are, beside Host and Content-Length; deadlines are in seconds.

    ``keep_excerpt`` is how many bytes of the answer's body may be kept; by default only its measure is.
    """

    endpoint_id: UUID
    revision: int
    url: str
    headers: Mapping[str, str]
    body: bytes
    deadline: float = 15.0
    connect_deadline: float = 5.0
    tls: TlsSettings | None = None
    keep_excerpt: int = 0


class Sender:
    """POSTs requests to where policy allows. One for a process; use it from one event loop.

    ``proxy`` is the URL of an egress proxy. Everything then goes through it (CONNECT for https), and it resolves the
    partners' names, so it must refuse private addresses itself. Variables like HTTP_PROXY are never read.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        resolver: Resolve | None = None,
        proxy: str | None = None,
        resolve_deadline: float = 3.0,
        resolve_cache: float = 3.0,
    ) -> None:
        self._policy = policy
        self._proxy = URL(proxy) if proxy is not None else None
        self._egress = Egress(
            policy,
            resolver or SystemResolver(),
            proxy_port=self._proxy.port if self._proxy is not None else None,
            deadline=resolve_deadline,
            cache_seconds=resolve_cache,
        )
        self._system_trust = _trust(None)
        self._lanes: dict[tuple[UUID, int], _Lane] = {}
        self._session: aiohttp.ClientSession | None = None

    async def post(self, request: Request) -> Exchange:
        """Send a request and say what it met, within ``request.deadline`` seconds whatever the partner does."""
        started = monotonic()
        lane = self._lanes.get((request.endpoint_id, request.revision))
        if lane is None or not lane.fits(request):
            lane = self._open_lane(request)
        hindrance = lane.hindrance or _judge_headers(request.headers)
        if hindrance is not None:
            return Exchange(hindrance, Phase.STARTED, monotonic() - started)

        letter = _Letter(request.body, lane.secure)
        journey.set(letter.journey)
        try:
            answer = await (self._session or self._open_session()).post(
                lane.url,
                data=letter,
                headers=request.headers,
                allow_redirects=False,
                timeout=lane.timeout,
                ssl=lane.trust,
                server_hostname=lane.pool_name,
                proxy=self._proxy,
            )
        except asyncio.CancelledError:
            letter.break_off()
            raise
        except (aiohttp.ClientError, HttpProcessingError, OSError, *_EGRESS_ERRORS) as error:
            letter.break_off()
            phase = letter.journey.phase
            return Exchange(_explain(error, letter.journey), phase, monotonic() - started, letter.tls_version)
        try:
            response = await _read(answer, request.keep_excerpt)
        finally:
            if not answer.content.at_eof() or letter.journey.phase is not Phase.SENT:
                answer.close()
                letter.break_off()
        outcome = _judge_answer(answer)
        return Exchange(outcome, Phase.ANSWERED, monotonic() - started, letter.tls_version, response)

    async def aclose(self) -> None:
        """Close all connections, also those in use."""
        if self._session is not None:
            await self._session.close()
        await self._egress.close()

    def _open_session(self) -> aiohttp.ClientSession:
        """The client needs a running loop, which nobody has yet when a sender is made."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=self._egress,
                use_dns_cache=False,
                socket_factory=self._egress.make_socket,
                limit=0,
                keepalive_timeout=KEEPALIVE,
                timeout_ceil_threshold=_NEVER_ROUND_UP,
            ),
            request_class=_PlainRequest,
            response_class=_Answer,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=BODY_LIMIT,
            max_line_size=LINE_LIMIT,
            max_field_size=LINE_LIMIT,
            max_headers=HEADER_LIMIT,
        )
        return self._session

    def _open_lane(self, request: Request) -> _Lane:
        if len(self._lanes) >= LANE_LIMIT:
            del self._lanes[next(iter(self._lanes))]
        lane = _Lane(request, self._policy, self._system_trust)
        self._lanes[request.endpoint_id, request.revision] = lane
        return lane


class _PoolName(str):
    """A host name that equals no other, so that the pool keeps the connections of each lane apart."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


class _Lane:
    """What all requests of one revision of an endpoint share."""

    __slots__ = ("hindrance", "pool_name", "secure", "timeout", "tls", "trust", "url", "written")

    def __init__(self, request: Request, policy: Policy, system_trust: ssl.SSLContext) -> None:
        self.written = request.url
        self.tls = request.tls
        self.timeout = aiohttp.ClientTimeout(
            total=request.deadline, connect=request.connect_deadline, ceil_threshold=_NEVER_ROUND_UP
        )
        self.hindrance: Outcome | None = None
        self.trust = system_trust
        target = parse(request.url, policy)
        url = _agree(target) if isinstance(target, Target) else target
        if isinstance(url, Denied):
            self.hindrance = Blocked(url.reason)
            return
        self.url = url
        self.secure = url.scheme == "https"
        self.pool_name = _PoolName(url.raw_host)
        if request.tls is not None:
            try:
                self.trust = _trust(request.tls)
            except (OSError, ValueError):  # ssl.SSLError is an OSError
                self.hindrance = Unsendable("tls_settings_invalid", waits=True)

    def fits(self, request: Request) -> bool:
        return (
            self.written == request.url
            and self.tls == request.tls
            and self.timeout.total == request.deadline
            and self.timeout.connect == request.connect_deadline
        )


def _agree(target: Target) -> URL | Denied:
    """The URL as the client will read it, unless that is another one than was judged."""
    try:
        as_written, as_quoted = URL(target.url, encoded=True), URL(target.url)
    except ValueError:
        return Denied(Denial.PARSERS_DISAGREE)
    judged = (target.scheme, target.host, target.port, None, None, "")
    for url in (as_written, as_quoted):
        if judged != (url.scheme, url.raw_host, url.port, url.raw_user, url.raw_password, url.raw_fragment):
            return Denied(Denial.PARSERS_DISAGREE)
    return as_written


_NEVER_ROUND_UP = float("inf")  # the client rounds longer timeouts up to whole seconds
_EGRESS_ERRORS = (Refused, NameNotFound, ResolverFailed)


# The request


class _PlainRequest(aiohttp.ClientRequest):
    """Sends the headers that it is given, and none of the client's own."""

    def update_auto_headers(self, skip_auto_headers: object) -> None:
        pass


class _Letter(Payload):
    """The body on its way, and how far it got."""

    _headers = CIMultiDict({"Content-Type": "application/json"})
    _autoclose = True
    tls_version: str | None = None
    _transport: asyncio.WriteTransport | None = None

    def __init__(self, body: bytes, secure: bool) -> None:
        # Not super().__init__(): it makes headers for every body, and these never differ.
        self._value = body
        self._size = len(body)
        self._secure = secure
        self.journey = Journey()

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._transport = writer.transport
        if not self._secure:
            self.journey.phase = Phase.CONNECTED
        elif self._transport is not None:
            self.journey.phase = Phase.SECURED
            self.tls_version = self._transport.get_extra_info("ssl_object").version()
        await writer.write(self._value)
        self.journey.phase = Phase.SENT

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return bytes(self._value).decode(encoding, errors)

    def break_off(self) -> None:
        """Drop the connection with all that is still to be sent: closing would wait for a partner who never reads."""
        if self._transport is not None:
            self._transport.abort()


def _judge_headers(headers: Mapping[str, str]) -> Unsendable | None:
    for name, value in headers.items():
        if not _is_ours_to_send(name):
            return Unsendable("forbidden_header")
        if _UNPRINTABLE.search(value):
            return Unsendable("malformed_header")
    return None


@lru_cache(1024)
def _is_ours_to_send(name: str) -> bool:
    return _TOKEN.fullmatch(name) is not None and name.lower() not in _FRAMING


_UNPRINTABLE = regex(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_TOKEN = regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FRAMING = frozenset(
    {
        *("host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer"),
        *("expect", "cookie", "proxy-authorization", "proxy-connection", "content-encoding"),
    }
)


# The answer


class _Answer(aiohttp.ClientResponse):
    """A response that neither waits through endless 1xx answers nor keeps cookies."""

    async def start(self, connection: Connection) -> _Answer:
        self._closed = False
        self._connection = connection
        protocol = self._protocol = connection.protocol
        assert protocol is not None
        with self._timer:
            for _ in range(INFORMATIONAL_LIMIT):
                message, payload = await protocol.read()
                if message.code >= 200:
                    break
                if message.code not in (100, 102, 103):
                    raise HttpProcessingError(code=message.code, message="unexpected 1xx answer")
            else:
                raise HttpProcessingError(message="too many 1xx answers")
        payload.on_eof(self._response_eof)
        self.version = message.version
        self.status = message.code
        self.reason = message.reason
        self._headers = message.headers
        self._raw_headers = message.raw_headers
        self.content = payload
        return self


async def _read(answer: aiohttp.ClientResponse, keep: int) -> ResponseSummary:
    """Measure the body. What goes wrong from here on changes nothing: the status is the answer."""
    content = answer.content
    body = b""
    try:
        while len(body) <= BODY_LIMIT and not content.at_eof():
            body += await content.read(BODY_LIMIT + 1 - len(body))
    except (aiohttp.ClientError, OSError, HttpProcessingError):
        pass
    truncated = len(body) > BODY_LIMIT or not content.at_eof() or content.exception() is not None
    body = body[:BODY_LIMIT]
    return ResponseSummary(
        length=len(body),
        truncated=truncated,
        content_type=answer.headers.get("Content-Type"),
        sha256=sha256(body).digest() if body else b"",
        excerpt=body[:keep],
    )


def _judge_answer(answer: aiohttp.ClientResponse) -> Accepted | Rejected:
    if 200 <= answer.status < 300:
        return Accepted(answer.status)
    asked = answer.headers.get("Retry-After")
    return Rejected(answer.status, read_retry_after(asked, datetime.now(UTC)) if asked is not None else None)


# Failures


def _explain(error: Exception, travelled: Journey) -> Outcome:
    if travelled.refused is not None:
        return Blocked(travelled.refused)
    match error:
        case Refused():
            return Blocked(error.reason)
        case NameNotFound():
            return Unreachable(Trouble.NAME_NOT_FOUND)
        case ResolverFailed():
            return Unreachable(Trouble.RESOLVER_FAILED)
        case aiohttp.ClientConnectorCertificateError():
            return Unreachable(Trouble.TLS_CERTIFICATE_INVALID)
        case aiohttp.ClientConnectorSSLError():
            return Unreachable(Trouble.TLS_FAILED)
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return Unreachable(Trouble.PROXY_FAILED)
        case aiohttp.ClientConnectorError():
            return _explain_os(error.os_error, travelled)
        case aiohttp.ServerDisconnectedError():
            return Unreachable(Trouble.CONNECTION_CLOSED)
        case aiohttp.InvalidURL():
            return Blocked(Denial.PARSERS_DISAGREE)
        case OSError():
            return _explain_os(error, travelled)
        case HttpProcessingError() if _too_large(error):
            return Unreachable(Trouble.RESPONSE_HEADERS_TOO_LARGE)
        case _:
            return Unreachable(Trouble.PROTOCOL_ERROR)


def _explain_os(error: OSError, travelled: Journey) -> Outcome:
    if isinstance(error, ssl.CertificateError):
        return Unreachable(Trouble.TLS_CERTIFICATE_INVALID)
    if isinstance(error, ssl.SSLError):  # TLS 1.3 tells of a refused client certificate only after the handshake
        return Unreachable(Trouble.TLS_FAILED)
    if isinstance(error, TimeoutError):
        return TimedOut(travelled.phase)
    if error.errno in _OUR_OWN:
        return Unsendable("no_sockets", waits=True)
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(Trouble.CONNECTION_REFUSED)
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EAFNOSUPPORT):
        return Unreachable(Trouble.NETWORK_UNREACHABLE)
    return Unreachable(Trouble.CONNECTION_RESET)


_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


def _too_large(error: HttpProcessingError) -> bool:
    return isinstance(error.__cause__, LineTooLong) or "Too many headers" in error.message


# TLS


class _Trust(ssl.SSLContext):
    """A context that notes when TCP is connected and TLS begins."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        if (travelling := journey.get(None)) is not None:
            travelling.phase = Phase.CONNECTED
        return super().wrap_bio(*args, **kwargs)


@lru_cache(1024)
def _trust(settings: TlsSettings | None) -> ssl.SSLContext:
    """A client context: TLS 1.2 or later, certificate and host name verified. Raises ssl.SSLError or ValueError."""
    context = _Trust(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if settings is None or settings.ca is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cadata=settings.ca)
    if settings is not None and settings.certificate is not None and settings.key is not None:
        _show_certificate(context, settings.certificate, settings.key)
    return context


def _show_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """OpenSSL takes a key only from a file; this one is in memory, so that the key never reaches a disk."""
    memory = os.memfd_create("client-certificate")
    try:
        os.write(memory, f"{certificate}\n{key}\n".encode())
        context.load_cert_chain(f"/proc/self/fd/{memory}", password="")
    finally:
        os.close(memory)
