"""The only outgoing HTTP: judge, connect, POST, read a bounded answer → `Exchange`.

Nothing that a partner or a network does raises here; whatever does raise is a bug of ours. `egress` opens connections,
`http1` speaks over them, `pool` keeps them, for the same revision of the same endpoint only.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from errno import EAFNOSUPPORT, EHOSTUNREACH, ENETDOWN, ENETUNREACH
from functools import lru_cache, partial
from hashlib import sha256
from re import compile as regex
from time import monotonic
from typing import Any
from uuid import UUID
from weakref import WeakSet

import msgspec
from msgspec.structs import replace

from webhook_gateway.rules.credentials import NEVER_SENT, TlsSettings
from webhook_gateway.rules.outcome import (
    Accepted,
    Blocked,
    Exchange,
    Outcome,
    Phase,
    Rejected,
    Remedy,
    ResponseSummary,
    TimedOut,
    Unreachable,
    Unsendable,
)
from webhook_gateway.rules.retry_after import read_retry_after
from webhook_gateway.rules.targets import Policy
from webhook_gateway.rules.unreachable import Trouble

from .egress import OUR_OWN, AddressDenied, Egress, Progress, Proxy
from .http1 import Answer, Connection, NoAnswer, tell
from .names import ResolverSilent
from .pool import KEEPALIVE, Pool
from .resolvers import DnsResolver, NameNotFound, Resolve, ResolverFailed
from .tls import trouble_with_certificate, trust_in

Found = Exchange | Coroutine[Any, Any, Exchange]
"""What a request met, or what there is to await for it: it takes a new connection."""
SWEEP = 1.0  # seconds between two looks for connections that were idle for so long
POOL_LIMIT = 20_000


class Request(msgspec.Struct, frozen=True):
    """One POST. ``headers`` are sent as they are, beside Host and Content-Length; deadlines are in seconds.

    ``keep_excerpt`` is how many bytes of the answer's body may be kept; by default only its measure is.
    ``tenant_id`` tells whose name is resolved.
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
    tenant_id: UUID | None = None


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
        self._system_trust = trust_in(None)
        self._proxy = Proxy(proxy) if proxy is not None else None
        self.egress = Egress(
            policy,
            resolver or DnsResolver(),
            proxy=self._proxy,
            proxy_trust=self._system_trust if self._proxy is not None and self._proxy.secure else None,
            deadline=resolve_deadline,
            cache_seconds=resolve_cache,
        )
        self._pools: dict[tuple[UUID, int], Pool] = {}
        self._connections: WeakSet[Connection] = WeakSet()
        self._sweeping: asyncio.TimerHandle | None = None
        self._is_answering = False
        self._following: list[tuple[Connection, bytes, float, Callable[[Answer | Exception], None]]] = []
        """Requests for which answers of this round of the loop have made room."""

    async def post(self, request: Request) -> Exchange:
        """Send a request and say what it met, within ``request.deadline`` seconds whatever the partner does."""
        waiter: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        found = self.begin(request, partial(tell, waiter)) or await waiter
        return found if isinstance(found, Exchange) else await found

    def begin(self, request: Request, done: Callable[[Found | Exception], None]) -> Found | None:
        """`post` without a task where a connection is open: None, and ``done`` gets later what is returned otherwise.

        An exception is a bug of ours.
        """
        started = monotonic()
        pool = self._pools.get((request.endpoint_id, request.revision))
        if pool is None or (pool.written, pool.tls) != (request.url, request.tls):
            pool = self._open_pool(request)
        wire = pool.refusal or _write(pool.opening, request.headers, request.body)
        if not isinstance(wire, bytes):
            return Exchange(wire, Phase.STARTED, monotonic() - started)

        kept = pool.take(started)
        if kept is None:
            return self._send_anew(pool, wire, request, started)
        answered = partial(self._answered, pool, kept, wire, request, started, done)
        if self._is_answering:
            if not self._following:
                asyncio.get_running_loop().call_soon(self._begin_following)
            self._following.append((kept, wire, request.deadline, answered))
        else:
            kept.begin(wire, request.deadline, answered)
        return None

    async def aclose(self) -> None:
        """Close all connections, also those in use."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for pool in self._pools.values():
            pool.retire()
        for connection in list(self._connections):
            connection.abort()
        await self.egress.close()
        await asyncio.sleep(0)  # the event loop closes a dropped connection in its next round

    def _answered(
        self,
        pool: Pool,
        kept: Connection,
        wire: bytes,
        request: Request,
        started: float,
        done: Callable[[Found | Exception], None],
        found: Answer | Exception,
    ) -> None:
        met: Found | Exception
        try:
            met = exchange = _conclude(pool, kept, found, request, started, written=True)
            if isinstance(exchange.outcome, Unreachable) and kept.unanswered:
                met = self._send_again(pool, wire, request, started, exchange)
            else:
                pool.closed_in_a_row = 0
        except Exception as error:
            met = error
        self._is_answering = True
        try:
            done(met)
        finally:
            self._is_answering = False

    def _begin_following(self) -> None:
        """Once all answers that are there were read: whoever sleeps until requests come is woken once, not for each."""
        following, self._following = self._following, []
        for kept, wire, seconds, answered in following:
            try:
                kept.begin(wire, seconds, answered)
            except Exception as error:
                answered(error)  # others follow

    async def _send_anew(self, pool: Pool, wire: bytes, request: Request, started: float, sends: int = 1) -> Exchange:
        opened = await self._connect(pool, request, started)
        if isinstance(opened, Exchange):
            return opened
        written = not opened.ended
        found: Answer | Exception
        try:
            found = await opened.exchange(wire, request.deadline - (monotonic() - started))
        except asyncio.CancelledError:
            opened.abort()
            raise
        except (NoAnswer, OSError) as error:
            found = error
        return replace(_conclude(pool, opened, found, request, started, written=written), sends=sends)

    async def _send_again(self, pool: Pool, wire: bytes, request: Request, started: float, first: Exchange) -> Exchange:
        """The same bytes once more, over a new connection: most probably the partner had closed the kept one before."""
        pool.note_closed(monotonic())
        if pool.retired or monotonic() - started >= request.deadline:
            return first
        second = await self._send_anew(pool, wire, request, started, sends=2)
        # From the first the partner may have the event, however far the second got.
        phase = max(first.phase, second.phase, key=tuple(Phase).index)
        return replace(second, phase=phase, written=first.written or second.written)

    async def _connect(self, pool: Pool, request: Request, started: float) -> Connection | Exchange:
        """A new connection, or how the request ended without one."""
        progress = Progress()
        try:
            async with asyncio.timeout(min(request.connect_deadline, request.deadline - (monotonic() - started))):
                connection = await self.egress.connect(pool.target, pool.trust, progress, request.tenant_id)
        except (NoAnswer, OSError, AddressDenied, NameNotFound, ResolverFailed, ResolverSilent) as error:
            outcome = _explain(error, progress.phase)
            if progress.at_proxy and self._proxy is not None and not isinstance(outcome, Unsendable):
                self._proxy.tell_unavailable()
                outcome = Unsendable("proxy_unavailable", Remedy.WAIT)
            return Exchange(outcome, progress.phase, monotonic() - started)
        self._connections.add(connection)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP, self._sweep)
        return connection

    def _sweep(self) -> None:
        """Drop what was idle for too long, here for all pools: a timer for each connection would cost more."""
        self._sweeping = None
        before = monotonic() - KEEPALIVE
        for pool in self._pools.values():
            pool.drop_idle(before)
        if self._connections:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _open_pool(self, request: Request) -> Pool:
        place = request.endpoint_id, request.revision
        left = self._pools.pop(place, None)
        if left is None and len(self._pools) >= POOL_LIMIT:
            left = self._pools.pop(next(iter(self._pools)))
        if left is not None:
            left.retire()
        pool = self._pools[place] = Pool(request.url, request.tls, self._policy, self._system_trust, self._proxy)
        return pool


# The request


def _write(opening: str, headers: Mapping[str, str], body: bytes) -> bytes | Unsendable:
    """The whole request, in one piece: head and body mostly leave in one packet then."""
    template, values = _template(tuple(headers)), tuple(headers.values())
    if template is None:
        return Unsendable("forbidden_header")
    text = "".join(values)
    if not text.isprintable() and _UNPRINTABLE.search(text):
        return Unsendable("malformed_header")
    return b"%b%b" % (f"{opening}{template % values}Content-Length: {len(body)}\r\n\r\n".encode(), body)


@lru_cache(1024)
def _template(names: tuple[str, ...]) -> str | None:
    """Of these header lines, for their values; None where one of them isn't ours to send."""
    if not all(_TOKEN.fullmatch(name) is not None and name.lower() not in NEVER_SENT for name in names):
        return None
    return "".join([f"{name.replace('%', '%%')}: %s\r\n" for name in names])


_UNPRINTABLE = regex(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_TOKEN = regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


# The answer


def _conclude(
    pool: Pool, connection: Connection, found: Answer | Exception, request: Request, started: float, *, written: bool
) -> Exchange:
    ended, tls = monotonic(), connection.tls_version
    if not isinstance(found, Answer):
        if not isinstance(found, NoAnswer | OSError):
            raise found
        phase = connection.phase
        return Exchange(_explain(found, phase), phase, ended - started, tls, written=written)
    if connection.reusable:
        pool.put_back(connection, ended)
    if found.judged is None:
        found.judged = _judge_answer(found), _summarize(found, request.keep_excerpt)
    outcome, summary = found.judged
    return Exchange(outcome, Phase.ANSWERED, ended - started, tls, summary, written=True)


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
        return Accepted(answer.status, answer.malformed)
    asked = answer.headers.get(b"retry-after")
    return Rejected(
        answer.status, read_retry_after(asked.decode("latin-1"), datetime.now(UTC)) if asked is not None else None
    )


# Failures


def _explain(error: Exception, phase: Phase) -> Outcome:
    match error:
        case AddressDenied():
            return Blocked(error.reason)
        case NameNotFound():
            return Unreachable(Trouble.NAME_NOT_FOUND)
        case ResolverFailed():
            return Unreachable(Trouble.RESOLVER_FAILED)
        case ResolverSilent():
            return Unsendable("resolver_silent", Remedy.WAIT)
        case NoAnswer():
            return Unreachable(error.trouble)
        case ssl.SSLCertVerificationError():
            return Unreachable(trouble_with_certificate(error))
        case ssl.SSLError():  # TLS 1.3 tells of a refused client certificate only after the handshake
            return Unreachable(Trouble.TLS_FAILED)
        case TimeoutError():
            return TimedOut(phase)
        case OSError() if error.errno in OUR_OWN:
            return Unsendable("no_sockets", Remedy.WAIT)
        case ConnectionRefusedError():
            return Unreachable(Trouble.CONNECTION_REFUSED)
        case OSError() if error.errno in (ENETUNREACH, EHOSTUNREACH, ENETDOWN, EAFNOSUPPORT):
            return Unreachable(Trouble.NETWORK_UNREACHABLE)
        case _:
            return Unreachable(Trouble.CONNECTION_RESET)
