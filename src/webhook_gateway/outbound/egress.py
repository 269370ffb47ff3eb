"""The way out: what a name resolves to, which addresses a socket is made for, and new connections over those.

`rules.targets` says what is allowed; this file sees to it that nothing else is ever connected to. Every address is
judged twice: all answers of a lookup together (one bad answer refuses them all, since an attacker mixes them), and each
address again where its socket is made, which no path to a connection can avoid.
"""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import ssl
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from itertools import zip_longest
from time import monotonic
from urllib.parse import unquote, urlsplit
from uuid import UUID

from webhook_gateway import telemetry
from webhook_gateway.rules.denials import Denial
from webhook_gateway.rules.outcome import Phase
from webhook_gateway.rules.targets import Policy, Target, judge
from webhook_gateway.rules.unreachable import Trouble

from .http1 import Connection, NoAnswer
from .names import CACHE_SECONDS, RESOLVE_DEADLINE, Names
from .resolvers import Resolve

ADDRESS_LIMIT = 8  # addresses of one name that are tried; all are judged
STAGGER = 0.25  # seconds that an address has for itself before the next is tried beside it (RFC 8305, section 8)
TOLD_AGAIN = 60.0  # seconds until the operator is told again
PROXY_AUTHENTICATION_REQUIRED = 407
OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""What the operating system says when the trouble is this machine's own."""


class AddressDenied(Exception):
    """Policy forbids an address. The argument is the name of a `rules.denials.Denial`."""

    @property
    def reason(self) -> str:
        return str(self.args[0])


class Progress:
    """How far the opening of one connection got."""

    __slots__ = ("at_proxy", "phase")

    def __init__(self) -> None:
        self.phase = Phase.STARTED
        self.at_proxy = False
        """It is the egress proxy that keeps it from going on, not the partner."""


class Proxy:
    """The operator's egress proxy. It resolves partners' names itself, so there only the name could be judged."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.secure = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.secure else 80)
        self._told_at = -math.inf
        self.credentials = ""
        """A header line, where the URL has a user name."""
        if parts.username is not None:
            account = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self.credentials = f"Proxy-Authorization: Basic {b64encode(account).decode()}\r\n"

    def tell_unavailable(self) -> None:
        """The operator hears of it once a minute, however many requests wait for it."""
        if monotonic() - self._told_at >= TOLD_AGAIN:
            self._told_at = monotonic()
            telemetry.egress_proxy_unavailable()

    def ask_for(self, target: Target) -> bytes:
        """The request for a tunnel (RFC 9110, section 9.3.6)."""
        place = f"[{target.host}]:{target.port}" if ":" in target.host else f"{target.host}:{target.port}"
        return f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{self.credentials}\r\n".encode()


class Egress:
    """Opens connections to where policy allows.

    With a ``proxy`` they all go to it, and only to its port.
    """

    def __init__(
        self,
        policy: Policy,
        resolve: Resolve,
        *,
        proxy: Proxy | None = None,
        proxy_trust: ssl.SSLContext | None = None,
        deadline: float = RESOLVE_DEADLINE,
        cache_seconds: float = CACHE_SECONDS,
    ) -> None:
        self._policy = policy
        self._own_origins = policy.own_origins
        self._own_ports = {port for host, port in policy.own_origins if host == "127.0.0.1"}
        self._names = Names(resolve, deadline, cache_seconds)
        self._proxy = proxy
        self._proxy_trust = proxy_trust

    def refuse(self, listeners: frozenset[tuple[str, int]]) -> None:
        """From now on nothing is connected to there: the gateway itself listens, perhaps on another machine."""
        self._policy = replace(self._policy, own_origins=self._own_origins | listeners)

    async def connect(
        self, target: Target, trust: ssl.SSLContext | None, progress: Progress, tenant_id: UUID | None = None
    ) -> Connection:
        """A new connection to a partner, secured where there is a ``trust``; ``progress`` says how far it got.

        Raises:
            AddressDenied: policy forbids an address.
            NameNotFound, ResolverFailed: there is no address.
            ResolverSilent: nobody's name is answered.
            NoAnswer: the egress proxy failed.
            OSError: what the network or TLS said.
        """
        if self._proxy is None:
            return await self._reach(target.host, target.port, trust, progress, tenant_id)
        progress.at_proxy = True
        connection = await self._reach(self._proxy.host, self._proxy.port, self._proxy_trust, progress)
        progress.at_proxy = False
        if trust is None:
            return connection
        progress.phase = Phase.RESOLVED
        try:
            await _ask_for_tunnel(connection, self._proxy, target, progress)
            progress.phase = Phase.CONNECTED
            return await _secure(connection, trust, target.host)
        except BaseException:
            connection.abort()
            raise

    async def _reach(
        self, host: str, port: int, trust: ssl.SSLContext | None, progress: Progress, tenant_id: UUID | None = None
    ) -> Connection:
        """A connection to one of a host's addresses. Where TLS fails at one, it is tried with the others."""
        addresses = await self.resolve(host, port, tenant_id)
        while True:
            progress.phase = Phase.RESOLVED
            plug, address = await self._dial_any(addresses, port)
            progress.phase = Phase.CONNECTED
            try:
                _, connection = await asyncio.get_running_loop().create_connection(
                    Connection, sock=plug, ssl=trust, server_hostname=host if trust is not None else None
                )
            except OSError:
                addresses.remove(address)
                if not addresses:
                    raise
            else:
                return connection

    async def resolve(self, host: str, port: int, tenant_id: UUID | None = None) -> list[str]:
        """All addresses of a host that may be tried, or `AddressDenied` if any that it resolves to is forbidden."""
        addresses = [host] if _is_address(host) else await self._names.look_up(host, tenant_id)
        for address in addresses:
            self._judge(address, port)
        return _by_turns(addresses)[:ADDRESS_LIMIT]

    async def _dial_any(self, addresses: Sequence[str], port: int) -> tuple[socket.socket, str]:
        """A socket connected to the first address that takes it (RFC 8305), and that address."""
        if len(addresses) == 1:
            return await self.dial(addresses[0], port), addresses[0]
        dialling: dict[asyncio.Task[socket.socket], str] = {}
        failure: BaseException | None = None
        connected: list[tuple[socket.socket, str]] = []
        untried = list(addresses)
        try:
            while not connected and (untried or dialling):
                if untried:
                    address = untried.pop(0)
                    dialling[asyncio.create_task(self.dial(address, port))] = address
                done, _ = await asyncio.wait(
                    dialling, timeout=STAGGER if untried else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    address = dialling.pop(task)
                    failure = task.exception()
                    if failure is None:
                        connected.append((task.result(), address))
        finally:
            for task in dialling:
                task.add_done_callback(_hang_up)
                task.cancel()
            for plug, _ in connected[1:]:
                plug.close()
        if connected:
            return connected[0]
        assert failure is not None
        raise failure

    async def dial(self, address: str, port: int) -> socket.socket:
        """A connected socket, for an address that passes; for another none is made, so nothing can be connected."""
        self._judge(address, port)
        plug = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            plug.setblocking(False)
            await asyncio.get_running_loop().sock_connect(plug, (address, port))
            if self._proxy is None and port in self._own_ports and plug.getsockname()[0] == address:
                raise AddressDenied(
                    Denial.OWN_ORIGIN
                )  # both ends are this machine, whichever of its addresses was meant
        except BaseException:
            plug.close()
            raise
        return plug

    async def close(self) -> None:
        await self._names.close()

    def _judge(self, address: str, port: int) -> None:
        if self._proxy is not None:
            if port != self._proxy.port:
                raise AddressDenied(Denial.FORBIDDEN_PORT)
        elif (denied := judge(address, port, self._policy)) is not None:
            raise AddressDenied(denied.reason)


async def _ask_for_tunnel(connection: Connection, proxy: Proxy, target: Target, progress: Progress) -> None:
    try:
        answer = await connection.exchange(proxy.ask_for(target), head_only=True)
    except (NoAnswer, OSError) as error:
        progress.at_proxy = True
        raise NoAnswer(Trouble.PROXY_FAILED) from error
    progress.at_proxy = answer.status == PROXY_AUTHENTICATION_REQUIRED
    if answer.status != 200:
        raise NoAnswer(Trouble.PROXY_FAILED)


async def _secure(tunnel: Connection, trust: ssl.SSLContext, host: str) -> Connection:
    """The tunnel's transport with TLS in it, as a connection of its own."""
    if tunnel.ended:  # the proxy said more than it should
        raise NoAnswer(Trouble.PROXY_FAILED)
    connection = Connection()
    transport = await asyncio.get_running_loop().start_tls(tunnel.transport, connection, trust, server_hostname=host)
    if transport is None:  # it was closing already
        raise NoAnswer(Trouble.PROXY_FAILED)
    connection.connection_made(transport)
    return connection


def _hang_up(dialled: asyncio.Task[socket.socket]) -> None:
    """One that came too late may have connected all the same."""
    if not dialled.cancelled() and dialled.exception() is None:
        dialled.result().close()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _by_turns(addresses: Sequence[str]) -> list[str]:
    """IPv6 and IPv4 in turn, beginning with whichever came first: where one of both is broken, little is lost."""
    first = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    other = [address for address in addresses if (":" in address) != (":" in addresses[0])]
    return [address for pair in zip_longest(first, other) for address in pair if address is not None]
