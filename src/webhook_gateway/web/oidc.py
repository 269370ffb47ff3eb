"""Whom a token of the hospital's own identity provider stands for: a caller of the API, or a person at the console.

A token is a JWT (RFC 7519) signed with a key of the provider's JWK set (RFC 7517). What it may do is said by one claim,
whose values the operator has mapped to roles or scopes: a value that is not mapped gives nothing.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, Generic, TypeVar

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from webhook_gateway.outbound.tls import trust_in
from webhook_gateway.rules.scopes import SCOPES_OF, Role, Scope
from webhook_gateway.settings import Settings
from webhook_gateway.store import tenants

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""Signatures with a pair of keys only: with a shared secret, or none, whoever verifies could also have signed."""
LEEWAY = 30
"""Seconds by which the provider's clock may differ from ours."""
FRESH = 600.0
"""Seconds after which what the provider publishes is fetched again."""
STALE = 86_400.0
"""Seconds for which it is used while the provider doesn't answer."""
PATIENCE = 5.0
AGAIN = 10.0
"""Seconds between two fetches at least, whatever key ids tokens name."""
MOST_BYTES = 262_144
JSON = {"Accept": "application/json"}
LONGEST = 16_384

T = TypeVar("T")
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class NotAToken(Exception):
    """The token is none of ours, has ended, or names nobody. Callers learn nothing more."""


class NoKeys(NotAToken):
    """Or it may be one: the provider's keys can't be had."""


class NothingGranted(NotAToken):
    """The token is good, and none of its values is mapped."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a token stands for. ``tenant`` is a tenant's name, ``person`` somebody's own, if it is told."""

    subject: str
    scopes: frozenset[str]
    tenant: str
    person: str | None = None


class Kept(Generic[T]):
    """What the provider publishes, as last fetched; ``fetch`` returns None where it can't be had now."""

    def __init__(self, fetch: Callable[[], Awaitable[T | None]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._value: T | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def get(self, suffices: Callable[[T], bool] = lambda _: True) -> T | None:
        """Fetched again when it is old, or doesn't suffice, but not all the time."""
        if not self._is_current(suffices):
            async with self._fetching:
                if not self._is_current(suffices) and self._clock() - self._tried_at >= AGAIN:
                    self._tried_at = self._clock()
                    fetched = await self._fetch()
                    if fetched is not None:
                        self._value, self._fetched_at = fetched, self._tried_at
        return self._value if self._clock() - self._fetched_at < STALE else None

    def _is_current(self, suffices: Callable[[T], bool]) -> bool:
        return self._value is not None and self._clock() - self._fetched_at < FRESH and suffices(self._value)


class Issuer:
    """The identity provider's tokens for one audience, and the keys that sign them."""

    def __init__(
        self, settings: Settings, audience: str | None, role_claim: str, jwks_url: str, clock: Callable[[], float]
    ) -> None:
        assert None not in (settings.oidc_issuer, audience)
        self._roles = settings.oidc_roles or {}
        self._role_claim = role_claim
        self._tenant_claim = settings.oidc_tenant_claim
        self._expected: dict[str, Any] = {"exp": expected(), "sub": expected()}
        self._expected |= {"iss": expected(settings.oidc_issuer), "aud": expected(audience)}
        self._keys = Kept(partial(_fetch_keys, jwks_url), clock)

    async def identify(self, token: str, **more: Any) -> Identity:
        """Whom the token stands for. ``more`` are claims, and what is expected of them.

        Raises:
            NotAToken: it is not valid (now), or gives nothing.
        """
        key_id = _key_id(token)
        keys = await self._keys.get(lambda known: key_id is None or any(key.kid == key_id for key in known.keys))
        if keys is None:
            raise NoKeys
        try:
            decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
            jwt.JWTClaimsRegistry(leeway=LEEWAY, **self._expected, **more).validate(decoded.claims)
            return self._read(decoded.claims)
        except (JoseError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise NotAToken from None

    def _read(self, claims: Mapping[str, Any]) -> Identity:
        scopes = frozenset(scope for value in _values(claims, self._role_claim) for scope in self._grants(value))
        tenant = tenants.DEFAULT if self._tenant_claim is None else _at(claims, self._tenant_claim)
        subject = str(claims["sub"])
        is_named = (
            isinstance(tenant, str) and tenant.isprintable() and subject.isprintable() and "" not in (tenant, subject)
        )
        if not is_named or not isfinite(claims["exp"]):
            raise NotAToken
        if not scopes:
            raise NothingGranted
        told = (claims.get(name) for name in ("preferred_username", "name", "email"))
        person = next((text[:200] for text in told if isinstance(text, str) and text and text.isprintable()), None)
        return Identity(subject[:200], scopes, tenant, person)

    def _grants(self, value: str) -> frozenset[str]:
        mapped = self._roles.get(value)
        if mapped is None:
            return frozenset()
        if mapped in SCOPES_OF:
            return frozenset(SCOPES_OF[Role(mapped)])
        return frozenset({Scope(mapped).value})


def expected(value: str | None = None) -> dict[str, Any]:
    """Of a claim that has to be there, and be this if that is said."""
    return {"essential": True, "value": value}


def is_token(text: str) -> bool:
    """Whether the text has the form of a signed JWT."""
    return len(text) <= LONGEST and _JWT.fullmatch(text) is not None


def issuer_from(settings: Settings, clock: Callable[[], float] = time.monotonic) -> Issuer | None:
    """The provider whose tokens the API takes, if the settings name one."""
    if settings.oidc_jwks_url is None:
        return None
    return Issuer(settings, settings.oidc_audience, settings.oidc_role_claim, settings.oidc_jwks_url, clock)


async def ask(url: str, form: Mapping[str, str] | None = None, **how: Any) -> tuple[int, Any] | None:
    """What the provider answers, its status and JSON, within bounds; None where it doesn't."""
    try:
        async with (
            asyncio.timeout(PATIENCE),
            httpx.AsyncClient(verify=trust_in(None), trust_env=False, follow_redirects=False, **how) as client,
            client.stream("GET" if form is None else "POST", url, data=form, headers=JSON) as answer,
        ):
            body = b""
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > MOST_BYTES:
                    return None
            return answer.status_code, json.loads(body)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError):
        return None


async def _fetch_keys(url: str) -> KeySet | None:
    answered = await ask(url)
    if answered is None or answered[0] != httpx.codes.OK:
        return None
    try:
        # Symmetric keys have no business in a published set: taken up, they would let everybody sign.
        published = [key for key in answered[1]["keys"] if key.get("kty") in {"RSA", "EC", "OKP"}]
        return KeySet.import_key_set({"keys": [_public(key) for key in published]})
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _public(key: dict[str, Any]) -> Any:
    return {name: value for name, value in key.items() if name not in {"use", "key_ops", "x5c", "x5t", "x5u", "alg"}}


def _key_id(token: str) -> str | None:
    try:
        head = token.partition(".")[0]
        key_id = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))).get("kid")
    except (ValueError, AttributeError, RecursionError):
        raise NotAToken from None
    return key_id if isinstance(key_id, str) else None


def _values(claims: Mapping[str, Any], path: str) -> list[str]:
    """A claim's values: a list of texts, or one text with spaces between them (RFC 8693, section 4.2)."""
    match _at(claims, path):
        case str() as text:
            return text.split()
        case list() as values:
            return [value for value in values if isinstance(value, str)]
        case _:
            return []


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """``realm_access.roles`` is the member of a member, unless there is a claim of that very name."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found
