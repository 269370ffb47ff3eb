"""The only outgoing HTTP: judge, connect, POST, read a bounded answer → `Exchange`.

Nothing that a partner or a network does raises here; whatever does raise is a bug of ours. `egress` opens connections,
`http1` speaks over them; here they are kept, and used again for the same revision of the same endpoint only.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import EAFNOSUPPORT, EHOSTUNREACH, ENETDOWN, ENETUNREACH
from functools import lru_cache
from hashlib import sha256
from re import compile as regex
from time import monotonic
from uuid import UUID
from weakref import WeakSet

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
from webhook_gateway.rules.targets import Policy, Target, parse
from webhook_gateway.rules.unreachable import Trouble

from .egress import OUR_OWN, Egress, Journey, NameNotFound, Proxy, Refused, Resolve, ResolverFailed, SystemResolver
from .http1 import Answer, Connection, NoAnswer

KEEPALIVE = 4.0  # seconds; many servers close an idle connection after 5, and a race with that costs an attempt
SWEEP = 1.0  # seconds between two looks for connections that were idle for so long
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
        self._system_trust = _trust(None)
        self._proxy = Proxy(proxy) if proxy is not None else None
        self._egress = Egress(
            policy,
            resolver or SystemResolver(),
            proxy=self._proxy,
            proxy_trust=self._system_trust if self._proxy is not None and self._proxy.secure else None,
            deadline=resolve_deadline,
            cache_seconds=resolve_cache,
        )
        self._lanes: dict[tuple[UUID, int], _Lane] = {}
        self._connections: WeakSet[Connection] = WeakSet()
        self._sweeping: asyncio.TimerHandle | None = None

    async def post(self, request: Request) -> Exchange:
        """Send a request and say what it met, within ``request.deadline`` seconds whatever the partner does."""
        started = monotonic()
        lane = self._lanes.get((request.endpoint_id, request.revision))
        if lane is None or not lane.fits(request):
            lane = self._open_lane(request)
        letter = lane.hindrance or _write(lane.opening, request.headers, request.body)
        if not isinstance(letter, bytes):
            return Exchange(letter, Phase.STARTED, monotonic() - started)

        connection = lane.take(started)
        seconds = request.deadline
        if connection is None:
            opened = await self._connect(lane, request, started)
            if isinstance(opened, Exchange):
                return opened
            connection = opened
            seconds -= monotonic() - started
        try:
            answer = await connection.exchange(letter, seconds)
        except asyncio.CancelledError:
            connection.abort()
            raise
        except (NoAnswer, OSError) as error:
            phase = connection.phase
            return Exchange(_explain(error, phase), phase, monotonic() - started, connection.tls_version)
        ended = monotonic()
        if connection.reusable:
            lane.give_back(connection, ended)
        return Exchange(
            _judge_answer(answer),
            Phase.ANSWERED,
            ended - started,
            connection.tls_version,
            _summarize(answer, request.keep_excerpt),
        )

    async def aclose(self) -> None:
        """Close all connections, also those in use."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._connections):
            connection.abort()
        await self._egress.close()
        await asyncio.sleep(0)  # the event loop closes a dropped connection in its next round

    async def _connect(self, lane: _Lane, request: Request, started: float) -> Connection | Exchange:
        """A new connection, or how the request ended without one."""
        journey = Journey()
        try:
            async with asyncio.timeout(min(request.connect_deadline, request.deadline)):
                connection = await self._egress.connect(lane.target, lane.trust, journey)
        except (NoAnswer, OSError, Refused, NameNotFound, ResolverFailed) as error:
            return Exchange(_explain(error, journey.phase), journey.phase, monotonic() - started)
        self._connections.add(connection)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP, self._sweep)
        return connection

    def _sweep(self) -> None:
        """Drop what was idle for too long, here for all lanes: a timer for each connection would cost more."""
        self._sweeping = None
        before = monotonic() - KEEPALIVE
        for lane in self._lanes.values():
            lane.drop_idle(before)
        if self._connections:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _open_lane(self, request: Request) -> _Lane:
        place = request.endpoint_id, request.revision
        left = self._lanes.pop(place, None)
        if left is None and len(self._lanes) >= LANE_LIMIT:
            left = self._lanes.pop(next(iter(self._lanes)))
        if left is not None:
            left.retire()
        lane = self._lanes[place] = _Lane(request, self._policy, self._system_trust, self._proxy)
        return lane


class _Lane:
    """What all requests of one revision of an endpoint share: where to, whom to trust, and idle connections."""

    __slots__ = ("_idle", "_retired", "hindrance", "opening", "target", "tls", "trust", "written")

    target: Target

    def __init__(self, request: Request, policy: Policy, system_trust: ssl.SSLContext, proxy: Proxy | None) -> None:
        self.written = request.url
        self.tls = request.tls
        self.hindrance: Outcome | None = None
        self.trust: ssl.SSLContext | None = None
        self.opening = ""
        self._idle: list[Connection] = []
        self._retired = False
        target = parse(request.url, policy)
        if not isinstance(target, Target):
            self.hindrance = Blocked(target.reason)
            return
        self.target = target
        _, _, place = target.url.partition("://")
        host, _, path = place.partition("/")
        self.opening = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\n"
        if target.scheme == "https":
            try:
                self.trust = system_trust if request.tls is None else _trust(request.tls)
            except (OSError, ValueError):  # ssl.SSLError is an OSError
                self.hindrance = Unsendable("tls_settings_invalid", waits=True)
        elif proxy is not None:
            self.opening = f"POST {target.url} HTTP/1.1\r\nHost: {host}\r\n{proxy.credentials}"

    def fits(self, request: Request) -> bool:
        return self.written == request.url and self.tls == request.tls

    def take(self, now: float) -> Connection | None:
        """The connection that was used last: the others may then grow old."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.ended and now - connection.idle_since < KEEPALIVE:
                return connection
            connection.abort()
        return None

    def give_back(self, connection: Connection, now: float) -> None:
        if self._retired:
            connection.abort()
            return
        connection.idle_since = now
        self._idle.append(connection)

    def drop_idle(self, before: float) -> None:
        """Drop the connections that were last used before, and those that partners closed."""
        if self._idle:
            kept = []
            for connection in self._idle:
                if connection.ended or connection.idle_since < before:
                    connection.abort()
                else:
                    kept.append(connection)
            self._idle = kept

    def retire(self) -> None:
        self._retired = True
        self.drop_idle(float("inf"))


# The request


def _write(opening: str, headers: Mapping[str, str], body: bytes) -> bytes | Unsendable:
    """The whole request, in one piece: head and body mostly leave in one packet then."""
    if not _are_ours_to_send(tuple(headers)):
        return Unsendable("forbidden_header")
    text = "".join(headers.values())
    if not text.isprintable() and _UNPRINTABLE.search(text):
        return Unsendable("malformed_header")
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return b"%b%b" % (f"{opening}{fields}Content-Length: {len(body)}\r\n\r\n".encode(), body)


@lru_cache(1024)
def _are_ours_to_send(names: tuple[str, ...]) -> bool:
    return all(_TOKEN.fullmatch(name) is not None and name.lower() not in _FRAMING for name in names)


_UNPRINTABLE = regex(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_TOKEN = regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FRAMING = frozenset(
    {
        *("host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer"),
        *("expect", "cookie", "proxy-authorization", "proxy-connection", "content-encoding"),
    }
)


# The answer


def _summarize(answer: Answer, keep: int) -> ResponseSummary:
    body, kind = answer.body, answer.headers.get(b"content-type")
    return ResponseSummary(
        length=len(body),
        truncated=not answer.whole,
        content_type=kind.decode("latin-1") if kind is not None else None,
        sha256=sha256(body).digest() if body else b"",
        excerpt=body[:keep],
    )


def _judge_answer(answer: Answer) -> Accepted | Rejected:
    if 200 <= answer.status < 300:
        return Accepted(answer.status)
    asked = answer.headers.get(b"retry-after")
    return Rejected(
        answer.status, read_retry_after(asked.decode("latin-1"), datetime.now(UTC)) if asked is not None else None
    )


# Failures


def _explain(error: Exception, phase: Phase) -> Outcome:
    match error:
        case Refused():
            return Blocked(error.reason)
        case NameNotFound():
            return Unreachable(Trouble.NAME_NOT_FOUND)
        case ResolverFailed():
            return Unreachable(Trouble.RESOLVER_FAILED)
        case NoAnswer():
            return Unreachable(error.trouble)
        case ssl.SSLCertVerificationError():
            return Unreachable(Trouble.TLS_CERTIFICATE_INVALID)
        case ssl.SSLError():  # TLS 1.3 tells of a refused client certificate only after the handshake
            return Unreachable(Trouble.TLS_FAILED)
        case TimeoutError():
            return TimedOut(phase)
        case OSError() if error.errno in OUR_OWN:
            return Unsendable("no_sockets", waits=True)
        case ConnectionRefusedError():
            return Unreachable(Trouble.CONNECTION_REFUSED)
        case OSError() if error.errno in (ENETUNREACH, EHOSTUNREACH, ENETDOWN, EAFNOSUPPORT):
            return Unreachable(Trouble.NETWORK_UNREACHABLE)
        case _:
            return Unreachable(Trouble.CONNECTION_RESET)


# TLS


@lru_cache(1024)
def _trust(settings: TlsSettings | None) -> ssl.SSLContext:
    """A client context: TLS 1.2 or later, certificate and host name verified. Raises ssl.SSLError or ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
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
