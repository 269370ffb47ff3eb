"""The last gate: what a name resolves to, and which addresses a socket is made for.

`rules.targets` says what is allowed; this file sees to it that nothing else is ever connected to. Every address is
judged twice: all answers of a lookup together (one bad answer refuses them all, since an attacker mixes them), and each
address again where its socket is made, which no path to a connection can avoid.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from time import monotonic
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from webhook_gateway.rules.outcome import Phase
from webhook_gateway.rules.targets import Denial, Policy, judge

RESOLVE_DEADLINE = 3.0  # seconds
CACHE_SECONDS = 3.0  # how long an answer is used again; it is judged at every use
CACHE_LIMIT = 10_000  # names
ADDRESS_LIMIT = 8  # addresses of one name that are tried; all are judged

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Looks up a host name: its addresses as text, or `NameNotFound`, or `ResolverFailed`."""


class NameNotFound(Exception):
    """DNS knows no address for the name."""


class ResolverFailed(Exception):
    """The resolver itself has trouble."""


class Refused(Exception):
    """Policy forbids an address. The argument is the name of a `rules.targets.Denial`."""

    @property
    def reason(self) -> str:
        return str(self.args[0])


class Journey:
    """How far one request got. Only the request's own task and those that it starts write to it."""

    __slots__ = ("phase", "refused")

    def __init__(self) -> None:
        self.phase = Phase.STARTED
        self.refused: str | None = None


journey: ContextVar[Journey] = ContextVar("journey")


class Egress(AbstractResolver):
    """The resolver and the socket factory of the one outgoing connector.

    With ``proxy_port`` the connections all go to the operator's egress proxy, and only to that port of it. It resolves
    partners' names itself, so there only the name could be judged.
    """

    def __init__(
        self,
        policy: Policy,
        resolve: Resolve,
        *,
        proxy_port: int | None = None,
        deadline: float = RESOLVE_DEADLINE,
        cache_seconds: float = CACHE_SECONDS,
    ) -> None:
        self._policy = policy
        self._resolve = resolve
        self._proxy_port = proxy_port
        self._deadline = deadline
        self._cache_seconds = cache_seconds
        self._cache: dict[str, tuple[float, Sequence[str]]] = {}
        self._lookups: dict[str, asyncio.Task[Sequence[str]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """All addresses of a name that may be tried, or `Refused` if any that it resolves to is forbidden."""
        addresses = await self._look_up(host)
        for address in addresses:
            if (reason := self._judge(address, port)) is not None:
                raise Refused(reason)
        _reach(Phase.RESOLVED)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses[:ADDRESS_LIMIT]
        ]

    def make_socket(self, info: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        """A socket for an address that passes; for another none is made, so nothing can be connected."""
        family, kind, protocol, _, (address, port, *_) = info
        if (reason := self._judge(address, port)) is not None:
            if (travelling := journey.get(None)) is not None:
                travelling.refused = reason
            # An OSError, since the client's race of several addresses would swallow any other kind.
            raise PermissionError(errno.EACCES, f"refused: {reason}")
        _reach(Phase.RESOLVED)
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        for lookup in self._lookups.values():
            lookup.cancel()
        if isinstance(self._resolve, SystemResolver):
            self._resolve.close()

    def _judge(self, address: str, port: int) -> str | None:
        if self._proxy_port is not None:
            return None if port == self._proxy_port else Denial.FORBIDDEN_PORT
        denied = judge(address, port, self._policy)
        return denied.reason if denied is not None else None

    async def _look_up(self, host: str) -> Sequence[str]:
        known = self._cache.get(host)
        if known is not None and known[0] > monotonic():
            return known[1]
        lookup = self._lookups.get(host)
        if lookup is None:  # however many requests wait for a name, it is looked up once
            lookup = self._lookups[host] = asyncio.create_task(self._ask(host))
            lookup.add_done_callback(partial(self._forget, host))
        async with asyncio.timeout(self._deadline):
            return await asyncio.shield(lookup)

    async def _ask(self, host: str) -> Sequence[str]:
        addresses = tuple(dict.fromkeys(await self._resolve(host)))
        if not addresses:
            raise NameNotFound(host)
        if len(self._cache) >= CACHE_LIMIT:
            self._cache.clear()
        self._cache[host] = (monotonic() + self._cache_seconds, addresses)
        return addresses

    def _forget(self, host: str, lookup: asyncio.Task[Sequence[str]]) -> None:
        del self._lookups[host]
        if not lookup.cancelled():
            lookup.exception()  # whoever waited for it may have given up


class SystemResolver:
    """getaddrinfo() of the operating system, so /etc/hosts, split DNS and search order are the machine's own.

    It blocks for as long as the system's resolver likes, so it has threads of its own: names that hang hold one thread
    each, and nothing else.
    """

    def __init__(self, threads: int = 64) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolve")

    async def __call__(self, host: str) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        ask = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        try:
            found = await loop.run_in_executor(self._threads, ask)
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
                raise NameNotFound(host) from error
            raise ResolverFailed(host) from error
        except (OSError, UnicodeError) as error:
            raise ResolverFailed(host) from error
        return [str(address[0]) for *_, address in found]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _reach(phase: Phase) -> None:
    if (travelling := journey.get(None)) is not None:
        travelling.phase = phase
