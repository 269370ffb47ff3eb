"""The connections to this process: how many there may be, and how long each may take over what it does.

One sweep looks after all of them. It also moves the clock by which their times are taken, so no request reads a clock
or starts a timer; and since that clock stands still while this process does, nobody is punished for our own delay.
"""

from __future__ import annotations

import asyncio
import resource
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Protocol, Self

from webhook_gateway.host.supervisor import API_CONNECTIONS, BACKLOG
from webhook_gateway.settings import Settings

DESCRIPTORS_KEPT = API_CONNECTIONS + 48
"""File descriptors that clients never get: for PostgreSQL, the identity provider, DNS, and the process's own files."""
FEWEST = 16
"""Connections that there may be however few descriptors there are."""
LONGEST_SWEEP = 1.0
"""Seconds between two sweeps, or less where a limit is short."""


class CloseReason(StrEnum):
    """Why a connection is ended by us."""

    MALFORMED = "malformed"
    UPGRADE = "upgrade"
    REQUEST_LINE = "request_line"
    HEADERS = "headers"
    SLOW_HEADERS = "slow_headers"
    SLOW_BODY = "slow_body"
    UNREAD = "unread"
    PIPELINE = "pipeline"
    ADDRESS = "address"
    CONNECTIONS = "connections"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """For each connection to one process, and for all. Sizes are bytes, times are seconds."""

    connections: int
    by_address: int
    header: int
    patience: float
    """Until the header section is complete; and what a body may take beyond its rate."""
    body: int
    body_rate: int
    idle: float
    trusted: tuple[IPv4Network | IPv6Network, ...]
    """Proxies, whose connections are not counted by their address."""
    backlog: int

    @classmethod
    def from_settings(cls, settings: Settings, trusted_proxies: str) -> Self:
        """The limits, within what the process may open. What isn't accepted yet fits into it, too: a burst is
        accepted as a whole before the first of it can be refused."""
        free = max(2 * FEWEST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - DESCRIPTORS_KEPT)
        connections = min(settings.api_connections, free * 3 // 4)
        return cls(
            connections=connections,
            by_address=min(settings.api_connections_by_address, connections // 2),
            header=settings.header_limit,
            patience=settings.header_timeout,
            body=settings.body_limit,
            body_rate=settings.body_rate,
            idle=settings.idle_timeout,
            trusted=_networks(trusted_proxies),
            backlog=min(BACKLOG, free - connections),
        )


class Swept(Protocol):
    """A connection as the sweep sees it."""

    def check(self, now: float, passed: float) -> None:
        """Ends what has taken too long at ``now``, when ``passed`` seconds went by since the last time."""


class Connections:
    """Those that are open, and the clock for them."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.now = 0.0
        self._open: dict[Swept, str | None] = {}
        self._by_address: defaultdict[str, int] = defaultdict(int)
        self._interval = min(LONGEST_SWEEP, limits.patience / 4, limits.idle / 4)
        self._swept_at: float | None = None

    def admit(self, connection: Swept, address: str, loop: asyncio.AbstractEventLoop) -> CloseReason | None:
        """Counts a new connection, unless there are too many."""
        counted_as = None if self._is_trusted(address) else customer_of(address)
        if len(self._open) >= self.limits.connections:
            return CloseReason.CONNECTIONS
        if counted_as is not None:
            if self._by_address[counted_as] >= self.limits.by_address:
                return CloseReason.ADDRESS
            self._by_address[counted_as] += 1
        self._open[connection] = counted_as
        if self._swept_at is None:
            self._swept_at = loop.time()
            loop.call_later(self._interval, self._sweep, loop)
        return None

    def leave(self, connection: Swept) -> None:
        """Forgets one that has ended; nothing for one that was never admitted."""
        counted_as = self._open.pop(connection, None)
        if counted_as is not None:
            self._by_address[counted_as] -= 1
            if not self._by_address[counted_as]:
                del self._by_address[counted_as]

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._open or self._swept_at is None:
            self._swept_at = None
            return
        passed = min(loop.time() - self._swept_at, 2 * self._interval)
        self._swept_at = loop.time()
        self.now += passed
        for connection in tuple(self._open):
            connection.check(self.now, passed)
        loop.call_later(self._interval, self._sweep, loop)

    def _is_trusted(self, text: str) -> bool:
        address = _read(text) if self.limits.trusted else None
        return address is not None and any(address in network for network in self.limits.trusted)


@lru_cache(4_096)
def customer_of(text: str) -> str:
    """Whom an address counts for: itself, or of IPv6 the /64, which is the least that one customer has."""
    address = _read(text)
    if address is None:
        return text
    return str(IPv6Network((int(address) >> 64 << 64, 64))) if isinstance(address, IPv6Address) else str(address)


def _read(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _networks(trusted_proxies: str) -> tuple[IPv4Network | IPv6Network, ...]:
    found: list[IPv4Network | IPv6Network] = []
    for text in filter(None, (part.strip() for part in trusted_proxies.split(","))):
        if text == "*":
            return ip_network("0.0.0.0/0"), ip_network("::/0")
        try:
            found.append(ip_network(text, strict=False))
        except ValueError:
            continue  # a name or a path, which no connection over TCP has for an address
    return tuple(found)
