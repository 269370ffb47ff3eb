"""The connections that are kept for one revision of an endpoint, and what all its requests share."""

from __future__ import annotations

import ssl

from webhook_gateway.rules.credentials import TlsSettings
from webhook_gateway.rules.outcome import Blocked, Outcome, Remedy, Unsendable
from webhook_gateway.rules.targets import Policy, Target, parse

from .egress import Proxy
from .http1 import Connection
from .tls import trust_in

KEEPALIVE = 4.0  # seconds; many servers close an idle connection after 5, and a race with that costs an attempt
LIFETIME = 60.0  # seconds that a connection is used for, so that a change in DNS is followed
CLOSED_IN_A_ROW = 2  # kept connections that a partner closed unanswered; then each request gets a new one
FRESH_ONLY = 3600.0  # seconds for which it does


class Pool:
    """What all requests of one revision of an endpoint share: where to, whom to trust, and idle connections."""

    __slots__ = (
        *("_fresh_until", "_idle", "closed_in_a_row", "refusal"),
        *("opening", "retired", "target", "tls", "trust", "written"),
    )

    target: Target

    def __init__(
        self, url: str, tls: TlsSettings | None, policy: Policy, system_trust: ssl.SSLContext, proxy: Proxy | None
    ) -> None:
        self.written = url
        self.tls = tls
        self.refusal: Outcome | None = None
        self.trust: ssl.SSLContext | None = None
        self.opening = ""
        self._idle: list[Connection] = []
        self._fresh_until = 0.0
        self.closed_in_a_row = 0
        self.retired = False
        target = parse(url, policy)
        if not isinstance(target, Target):
            self.refusal = Blocked(target.reason)
            return
        self.target = target
        _, _, place = target.url.partition("://")
        host, _, path = place.partition("/")
        self.opening = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\n"
        if target.scheme == "https":
            try:
                self.trust = system_trust if tls is None else trust_in(tls)
            except (OSError, ValueError):  # ssl.SSLError is an OSError
                self.refusal = Unsendable("tls_settings_invalid", Remedy.WAIT)
        elif proxy is not None:
            self.opening = f"POST {target.url} HTTP/1.1\r\nHost: {host}\r\n{proxy.credentials}"

    def take(self, now: float) -> Connection | None:
        """The connection that was used last: the others may then grow old."""
        while self._idle:
            connection = self._idle.pop()
            fresh = now - connection.idle_since < KEEPALIVE and now - connection.opened_at < LIFETIME
            if fresh and not connection.ended:
                return connection
            connection.abort()
        return None

    def put_back(self, connection: Connection, now: float) -> None:
        if self.retired or now < self._fresh_until:
            connection.abort()
            return
        connection.idle_since = now
        self._idle.append(connection)

    def note_closed(self, now: float) -> None:
        """A kept connection was closed before an answer. Where that happens again, none is kept for a while."""
        self.closed_in_a_row += 1
        if self.closed_in_a_row >= CLOSED_IN_A_ROW:
            self._fresh_until = now + FRESH_ONLY
            self.drop_idle(float("inf"))

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
        self.retired = True
        self.drop_idle(float("inf"))
