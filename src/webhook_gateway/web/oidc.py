"""Callers with a token from the hospital's own identity provider, instead of an API key of ours.

A token is a JWT (RFC 7519) signed with a key of the provider's JWK set (RFC 7517). What it may do is said by one claim,
whose values the operator has mapped to roles or scopes: a value that is not mapped gives nothing.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from webhook_gateway.rules.scopes import SCOPES_OF, Role, Scope
from webhook_gateway.settings import Settings
from webhook_gateway.store import tenants

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""Signatures with a pair of keys only: with a shared secret, or none, whoever verifies could also have signed."""
LEEWAY = 30
"""Seconds by which the provider's clock may differ from ours."""
FRESH = 600.0
"""Seconds after which the keys are fetched again."""
STALE = 86_400.0
"""Seconds for which known keys are used while the provider doesn't answer."""
PATIENCE = 5.0
AGAIN = 10.0
"""Seconds between two fetches at least, whatever key ids tokens name."""
MOST_BYTES = 262_144
LONGEST = 16_384

_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class NotAToken(Exception):
    """The token is none of ours, has ended, or names nobody. Callers learn nothing more."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a token stands for. ``tenant`` is a tenant's name."""

    subject: str
    scopes: frozenset[str]
    tenant: str


class Issuer:
    """The identity provider, with its keys as last fetched."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        assert settings.oidc_issuer is not None
        assert settings.oidc_audience is not None
        assert settings.oidc_jwks_url is not None
        self.name = settings.oidc_issuer
        self._url = settings.oidc_jwks_url
        self._roles = settings.oidc_roles or {}
        self._role_claim = settings.oidc_role_claim
        self._tenant_claim = settings.oidc_tenant_claim
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY,
            iss={"essential": True, "value": settings.oidc_issuer},
            aud={"essential": True, "value": settings.oidc_audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        self._clock = clock
        self._keys: KeySet | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def identify(self, token: str) -> Identity:
        """Whom the token stands for.

        Raises:
            NotAToken: it is not valid (now), or gives nothing.
        """
        key_id = _key_id(token)
        keys = await self._current(key_id)
        if keys is None:
            raise NotAToken
        try:
            decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
            self._claims.validate(decoded.claims)
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
        if not scopes or not is_named or not isfinite(claims["exp"]):
            raise NotAToken
        return Identity(subject[:200], scopes, tenant)

    def _grants(self, value: str) -> frozenset[str]:
        mapped = self._roles.get(value)
        if mapped is None:
            return frozenset()
        if mapped in SCOPES_OF:
            return frozenset(SCOPES_OF[Role(mapped)])
        return frozenset({Scope(mapped).value})

    async def _current(self, key_id: str | None) -> KeySet | None:
        """The keys: fetched again when they are old, or lack the one that a token names."""
        if self._is_current(key_id):
            return self._keys
        async with self._fetching:
            if not self._is_current(key_id) and self._clock() - self._tried_at >= AGAIN:
                self._tried_at = self._clock()
                fetched = await _fetch(self._url)
                if fetched is not None:
                    self._keys, self._fetched_at = fetched, self._tried_at
        return self._keys if self._clock() - self._fetched_at < STALE else None

    def _is_current(self, key_id: str | None) -> bool:
        if self._keys is None or self._clock() - self._fetched_at >= FRESH:
            return False
        return key_id is None or any(key.kid == key_id for key in self._keys.keys)


def is_token(text: str) -> bool:
    """Whether the text has the form of a signed JWT."""
    return len(text) <= LONGEST and _JWT.fullmatch(text) is not None


def issuer_from(settings: Settings) -> Issuer | None:
    """The provider that the settings name, if any."""
    return None if settings.oidc_issuer is None else Issuer(settings)


async def _fetch(url: str) -> KeySet | None:
    """The provider's keys, or None where they can't be had now."""
    try:
        async with (
            asyncio.timeout(PATIENCE),
            httpx.AsyncClient(trust_env=False, follow_redirects=False) as client,
            client.stream("GET", url, headers={"Accept": "application/json"}) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                return None
            body = b""
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > MOST_BYTES:
                    return None
        # Symmetric keys have no business in a published set: taken up, they would let everybody sign.
        published = [key for key in json.loads(body)["keys"] if key.get("kty") in {"RSA", "EC", "OKP"}]
        return KeySet.import_key_set({"keys": [_public(key) for key in published]})
    except (httpx.HTTPError, TimeoutError, JoseError, ValueError, TypeError, KeyError, AttributeError):
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
