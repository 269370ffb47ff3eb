"""Names looked up once for all who need them, kept for a moment, and whose fault it is when no answer comes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

from .resolvers import DnsResolver, NameNotFound, Resolve, ResolverFailed, SystemResolver

RESOLVE_DEADLINE = 3.0  # seconds
CACHE_SECONDS = 3.0  # how long an answer is used again; it is judged at every use
CACHE_LIMIT = 10_000  # names
WITNESSES = 3  # names that were resolved lately; where they are silent, too, the silence is the resolver's
WITNESS_SECONDS = 600.0  # how long ago that may be
WITNESS_DEADLINE = 1.0  # seconds


class ResolverSilent(Exception):
    """The resolver answers nobody, so it says nothing of the name."""


class Names:
    """What this process knows of names."""

    def __init__(self, resolve: Resolve, deadline: float, cache_seconds: float) -> None:
        self._resolve = resolve
        self._deadline = deadline
        self._cache_seconds = cache_seconds
        self._cache: dict[str, _Found] = {}
        self._lookups: dict[str, asyncio.Task[Sequence[str]]] = {}
        self._hearings: dict[UUID | None, asyncio.Task[bool]] = {}

    async def look_up(self, host: str, tenant_id: UUID | None) -> Sequence[str]:
        """The addresses of a name that a tenant wants to send to.

        Raises:
            NameNotFound, ResolverFailed, TimeoutError: of this name.
            ResolverSilent: nobody's name is answered.
        """
        known = self._cache.get(host)
        if known is not None and monotonic() - known.at < self._cache_seconds:
            return known.addresses
        lookup = self._lookups.get(host)
        if lookup is None:  # however many requests wait for a name, it is looked up once
            lookup = self._lookups[host] = asyncio.create_task(self._ask(host, tenant_id))
            lookup.add_done_callback(partial(_forget, self._lookups, host))
        try:
            async with asyncio.timeout(self._deadline):
                return await asyncio.shield(lookup)
        except (TimeoutError, ResolverFailed):
            if await self._is_silent(host, tenant_id):
                raise ResolverSilent(host) from None
            raise

    async def close(self) -> None:
        for task in (*self._lookups.values(), *self._hearings.values()):
            task.cancel()
        if isinstance(self._resolve, DnsResolver | SystemResolver):
            await self._resolve.close()

    async def _ask(self, host: str, tenant_id: UUID | None) -> Sequence[str]:
        addresses = tuple(dict.fromkeys(await self._resolve(host)))
        if not addresses:
            raise NameNotFound(host)
        if len(self._cache) >= CACHE_LIMIT:
            self._cache.clear()
        self._cache.pop(host, None)  # so that the latest stand last
        self._cache[host] = _Found(monotonic(), addresses, tenant_id)
        return addresses

    async def _is_silent(self, host: str, tenant_id: UUID | None) -> bool:
        """Whether names that others resolved lately are silent, too: who owns a name can make no more than it hang.

        Others are other tenants, and where there are none, other names.
        """
        hearing = self._hearings.get(tenant_id)
        if hearing is None:
            since = monotonic() - WITNESS_SECONDS
            lately = list(takewhile(lambda item: item[1].at > since, reversed(self._cache.items())))
            others: dict[UUID | None, str] = {}  # one name each, or a single tenant could speak for all
            for name, found in lately:
                if found.tenant_id != tenant_id:
                    others.setdefault(found.tenant_id, name)
            witnesses = (list(others.values()) or [name for name, _ in lately if name != host])[:WITNESSES]
            if not witnesses:
                return False
            hearing = self._hearings[tenant_id] = asyncio.create_task(self._hear(witnesses))
            hearing.add_done_callback(partial(_forget, self._hearings, tenant_id))
        return await asyncio.shield(hearing)

    async def _hear(self, witnesses: Sequence[str]) -> bool:
        """Whether none of the names is answered when it is asked for anew."""
        resolve = self._resolve.anew() if isinstance(self._resolve, DnsResolver) else self._resolve
        asking = [asyncio.ensure_future(resolve(name)) for name in witnesses]
        try:
            async with asyncio.timeout(WITNESS_DEADLINE):
                for asked in asyncio.as_completed(asking):
                    try:
                        await asked
                    except ResolverFailed:
                        continue
                    except NameNotFound:
                        pass
                    return False
        except TimeoutError:
            pass
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            if isinstance(resolve, DnsResolver):
                await resolve.close()
        return True


class _Found(NamedTuple):
    """When a name was resolved, in monotonic seconds, to what, and for whom."""

    at: float
    addresses: Sequence[str]
    tenant_id: UUID | None


def _forget(tasks: dict[Any, asyncio.Task[Any]], key: Any, task: asyncio.Task[Any]) -> None:
    del tasks[key]
    if not task.cancelled():
        task.exception()  # whoever waited for it may have given up
