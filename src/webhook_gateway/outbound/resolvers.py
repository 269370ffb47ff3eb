"""What a host name resolves to: asked of DNS itself, or of the operating system."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from errno import EMFILE
from functools import partial
from typing import Literal

import aiodns
from aiodns.error import ARES_EBADNAME, ARES_ENODATA, ARES_ENONAME, ARES_ENOTFOUND, DNSError
from pycares import AresError

TIMEOUT = 1.0  # seconds for a question's first try; c-ares shortens it where servers answer quickly
TRIES = 4  # each twice as long as the one before: the last still waits when `egress.RESOLVE_DEADLINE` is over

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Looks up a host name: its addresses as text, or `NameNotFound`, or `ResolverFailed`."""


class NameNotFound(Exception):
    """DNS knows no address for the name."""


class ResolverFailed(Exception):
    """The resolver itself has trouble."""


def resolver_named(name: Literal["dns", "system"]) -> DnsResolver | SystemResolver:
    return DnsResolver() if name == "dns" else SystemResolver()


class DnsResolver:
    """Asks /etc/hosts and the servers of /etc/resolv.conf, in the order of nsswitch.conf; nothing else of it.

    A name that hangs costs a question on the way and no thread, so however many do, they hold up no other name.
    ``servers`` are addresses with a port, in place of the machine's.
    """

    def __init__(self, servers: Sequence[str] = ()) -> None:
        self._servers = servers
        self._opened: aiodns.DNSResolver | None = None

    async def __call__(self, host: str) -> Sequence[str]:
        if self._opened is None:
            self._opened = self._open()
        try:
            found = await self._opened.getaddrinfo(host, type=socket.SOCK_STREAM)
        except DNSError as error:
            if error.args[0] in _UNKNOWN:
                raise NameNotFound(host) from error
            raise ResolverFailed(host) from error
        return [node.addr[0].decode() for node in found.nodes]

    def anew(self) -> DnsResolver:
        """One that knows no answer yet: c-ares keeps each for as long as its TTL says."""
        return DnsResolver(self._servers)

    def _open(self) -> aiodns.DNSResolver:
        try:
            # Not with ``lookups``: pycares (5.2.1) frees the text before c-ares has read it.
            return aiodns.DNSResolver(self._servers or None, timeout=TIMEOUT, tries=TRIES)
        except AresError as error:
            raise OSError(EMFILE, "no resolver could be opened") from error

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()


class SystemResolver:
    """getaddrinfo() of the operating system, so everything in nsswitch.conf is the machine's own.

    It blocks for as long as the system's resolver likes, so it has threads of its own: names that hang hold one thread
    each, and when all are held every other name waits.
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

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


_UNKNOWN = frozenset({ARES_ENODATA, ARES_ENOTFOUND, ARES_ENONAME, ARES_EBADNAME})
