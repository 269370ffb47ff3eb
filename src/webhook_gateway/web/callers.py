"""Who is asking: the API key in a request, looked up, remembered for a moment, and held to its rate.

Keys that don't exist, have expired, were revoked or come from the wrong network get the same answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from math import inf
from typing import Any
from uuid import UUID

from starlette.types import Scope

from webhook_gateway.crypto.vault import Vault
from webhook_gateway.operations.change import Actor
from webhook_gateway.rules import api_keys, ids
from webhook_gateway.rules.rights import Quotas
from webhook_gateway.rules.scopes import Scope as Permission
from webhook_gateway.settings import Settings
from webhook_gateway.store import keyring, keys, tenants
from webhook_gateway.store.database import Database, DatabaseUnavailable

from .errors import Problem, forbidden
from .guesses import Guesses
from .oidc import Identity, Issuer, NotAToken, is_token

REMEMBERED = 5.0
"""Seconds for which a key that was found is not looked up again, so a revoked one may live that much longer."""
AGAIN = 60.0
"""Seconds after which keys are looked up again though nothing was changed: their last use is to be written down."""
LOOKING_UP = 4.0
"""Seconds that it takes at most."""
MOST_REMEMBERED = 10_000
"""Pairs of a key and an address it was used from."""
_NOBODY: tuple[float, float, Caller | None] = (0.0, 0.0, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller(Actor):
    """Who asks over HTTP, with a live key or, if ``by_token``, with one from the identity provider."""

    source: str = ""
    by_token: bool = False

    def need(self, needed: Permission) -> None:
        """
        Raises:
            Problem: 403 that names the scope which is missing.
        """
        if not self.may(needed):
            raise forbidden(f"This key lacks the scope {needed.value}.")


class Callers:
    """Finds out who asks, and holds each key to its rates, which are this process's; 0 means no limit."""

    def __init__(
        self, database: Database, vault: Vault, settings: Settings, issuer: Issuer | None, quotas: Quotas
    ) -> None:
        self._database = database
        self._vault = vault
        self._issuer = issuer
        self.quotas = quotas
        self._known: dict[tuple[bytes, str], tuple[float, float, Caller]] = {}
        """Until when, and until when at most."""
        self._version, self._forgot_at = 0, 0.0
        """The configuration's since then."""
        self._finding: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._guesses = Guesses()
        self.requests = Buckets(settings.api_rate, "ask", "times")
        self.events = Buckets(settings.api_event_rate, "post", "events")
        """Of batches."""
        self._tenants: dict[str, tuple[float, UUID]] = {}

    async def authenticate(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Caller:
        """The caller behind a request.

        Raises:
            Problem: 401 without a live key, 429 where the key is used too often, or too many were guessed.
            DatabaseUnavailable: the key can't be looked up.
        """
        key = _key_in(headers)
        if key is None:
            raise unauthorized()
        client = scope.get("client")
        asked = api_keys.digest(key), client[0] if client else ""
        caller = self.recall(*asked)
        if caller is None:
            began = time.monotonic()
            try:
                async with asyncio.timeout(LOOKING_UP):
                    found = await self._find(key, *asked)
            except TimeoutError:
                raise DatabaseUnavailable("the key took too long to look up") from None
            if found is None or not is_within(asked[1], found.networks):
                raise unauthorized()
            caller = replace(found, source=asked[1])
            left = inf if caller.expires_at is None else caller.expires_at - self._database.clock.now()
            if left <= 0:
                raise unauthorized()
            if began > self._forgot_at:  # else it may be of before
                self._remember(asked, caller, began, left)
        self.requests.take(caller, 1)
        return caller

    def recall(self, digest: bytes, source: str) -> Caller | None:
        """Who asks with the key of this digest, if that is known without asking anybody."""
        known_until, _, caller = self._known.get((digest, source), _NOBODY)
        return caller if known_until > time.monotonic() else None

    def forget(self) -> None:
        """Looks every key up again, since one was revoked."""
        self._known.clear()
        self._finding.clear()
        self._forgot_at = time.monotonic()

    def keep(self, version: int, asked_at: float) -> bool:
        """Forgets all, unless the configuration still has this version, as it had when it was asked for: to revoke a
        key is a change of it. Whether they are kept."""
        if version != self._version or asked_at > self._forgot_at + AGAIN:
            self._version = version
            self.forget()
            return False
        # What nothing was heard of for longer is looked up: another server may have come to the same version.
        kept = [(asked, ends, caller) for asked, (until, ends, caller) in self._known.items() if until > asked_at]
        self._known = {asked: (min(asked_at + REMEMBERED, ends), ends, caller) for asked, ends, caller in kept}
        return True

    def _remember(self, asked: tuple[bytes, str], caller: Caller, began: float, seconds: float) -> None:
        """A key that was used from an address may be used from there so long. Tokens are read every time."""
        if not caller.by_token:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            ends = time.monotonic() + seconds
            self._known[asked] = (min(began + REMEMBERED, ends), ends, caller)

    async def _find(self, key: str, digest: bytes, source: str) -> Caller | None:
        if not api_keys.is_key(key):
            return await self._identify(self._issuer, key) if self._issuer is not None and is_token(key) else None
        if self._guesses.is_none(digest):
            return None
        # However many requests come with a key at once, it is looked up once.
        finding = self._finding.get(digest)
        if finding is None:
            finding = self._finding[digest] = asyncio.create_task(self._look_up(digest, source))
            finding.add_done_callback(lambda done: self._found(digest, done))
        return await asyncio.shield(finding)

    def _found(self, digest: bytes, finding: asyncio.Task[Caller | None]) -> None:
        self._finding.pop(digest, None)
        if not finding.cancelled():
            finding.exception()  # whoever waited for it may have gone

    async def _look_up(self, digest: bytes, source: str) -> Caller | None:
        async with self._guesses.look_up(digest, source):
            async with self._database.connection() as connection:
                row = await keys.find(connection, digest)
            self._guesses.learn(digest, is_live=row is not None)
        if row is None:
            return None
        if row["stale"]:
            # By a connection of its own: that it failed may show only when it is closed.
            with suppress(DatabaseUnavailable):
                async with self._database.connection() as connection:
                    await keys.touch(connection, row["id"])
        if not self._vault.knows(row["tenant_id"]):
            await keyring.fill(self._database, self._vault)
        return caller_from(row, ids.render(ids.KEY, row["id"]), self.quotas)

    async def _identify(self, issuer: Issuer, token: str) -> Caller | None:
        try:
            return await self.caller_of(await issuer.identify(token))
        except NotAToken:
            return None

    async def caller_of(self, found: Identity) -> Caller | None:
        """Whoever the identity provider says it is; None where there is no such tenant."""
        name = found.tenant
        known = self._tenants.get(name)
        if known is None or known[0] <= time.monotonic():
            async with self._database.connection() as connection:
                tenant_id = await tenants.find(connection, name)
            if tenant_id is None:
                return None
            if not self._vault.knows(tenant_id):
                await keyring.fill(self._database, self._vault)
            known = self._tenants[name] = (time.monotonic() + REMEMBERED, tenant_id)
        # A token ends and is read anew with each request; what its person may do, and grant, has no end.
        return Caller(
            tenant_id=known[1],
            name=f"oidc:{found.subject}",
            scopes=found.scopes,
            by_token=True,
            means=f"the token oidc:{found.subject}",
        )


class Buckets:
    """One for each key. ``rate`` is in ``things`` a second."""

    def __init__(self, rate: float, verb: str, things: str) -> None:
        self._rate = rate
        self._sentence = f"This key may {verb} {rate:g} {things} a second: wait, or post events in batches."
        self._of: dict[str, Bucket] = {}

    def take(self, caller: Caller, count: int) -> None:
        """Counts them, or gives them back.

        Raises:
            Problem: 429 that names the rate, where the key was used too often before.
        """
        if not self._rate:
            return
        bucket = self._of.get(caller.name)
        if bucket is None:
            bucket = self._of[caller.name] = Bucket(self._rate)
        if not bucket.take(time.monotonic(), count):
            raise Problem(429, "too-many-requests", self._sentence, headers={"Retry-After": "1"})


class Bucket:
    """A token bucket that holds a second's worth. What is taken beyond it has to be waited for before the next."""

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = max(rate, 1.0)
        self._at: float | None = None

    def take(self, now: float, count: int = 1) -> bool:
        """Whether there was a token at ``now``, in seconds of monotonic time; then ``count`` are taken (or given)."""
        if self._at is not None:
            self._tokens = min(max(self._rate, 1.0), self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < min(count, 1):
            return False
        self._tokens -= count
        return True


def unauthorized() -> Problem:
    return Problem(
        401,
        "unauthorized",
        "Send `Authorization: Bearer whk_…` with a key that is live and may be used from this network.",
        headers={"WWW-Authenticate": 'Bearer realm="webhook gateway"'},
    )


def key_in(headers: Mapping[bytes, bytes]) -> bytes:
    """The digest of the key in a request; that of nothing where there is none."""
    return api_keys.digest(_key_in(headers) or "")


def _key_in(headers: Mapping[bytes, bytes]) -> str | None:
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    return key.strip().decode("latin-1") if scheme.lower() == b"bearer" else None


def is_within(source: str, networks: tuple[IPv4Network | IPv6Network, ...] | None) -> bool:
    """Whether an address is in one of the networks, where there are any."""
    if networks is None:
        return True
    try:
        address = ip_address(source)
    except ValueError:
        return False
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def caller_from(row: Mapping[str, Any], name: str, quotas: Quotas, source: str = "") -> Caller:
    return Caller(
        tenant_id=row["tenant_id"],
        name=name,
        source=source,
        means=f"the key `{row['name']}`" if row["name"] else _means(row["person"]),
        scopes=frozenset(row["scopes"]),
        subscriber_id=row["subscriber_id"],
        quotas=quotas if row["subscriber_id"] is not None else None,
        event_types=None if row["event_types"] is None else tuple(row["event_types"]),
        networks=None if row["networks"] is None else tuple(ip_network(text) for text in row["networks"]),
        expires_at=None if row["expires_at"] is None else row["expires_at"].timestamp(),
    )


def _means(person: str | None) -> str:
    return "a link to the console" if person is None else f"the account {person}"
