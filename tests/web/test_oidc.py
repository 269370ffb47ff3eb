"""Tokens of the hospital's identity provider: a real provider's keys over HTTP, and what must not get in."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey
from pydantic import ValidationError

from tests.support.partner import Partner, Received, partner
from tests.web.serving import Api, running
from webhook_gateway.settings import Settings
from webhook_gateway.store import tenants
from webhook_gateway.web import oidc
from webhook_gateway.web.oidc import Issuer, NotAToken, issuer_from

ISSUER, AUDIENCE = "https://id.hospital.example", "webhook-gateway"
ROLES = "hms-operators=operator,hms-admins=admin,bodies=payload:read"
Key = RSAKey | ECKey | OKPKey


class Provider:
    """Publishes the public halves of its keys, and counts who asks."""

    def __init__(self, *keys: Key) -> None:
        self.keys = list(keys)
        self.asked = 0
        self.is_up = True

    def __call__(self, _: Received) -> tuple[int, bytes]:
        self.asked += 1
        return (200, json.dumps(KeySet([*self.keys]).as_dict(private=False)).encode()) if self.is_up else (503, b"")


def rsa(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


FIRST, SECOND, STRANGER = rsa("first"), rsa("second"), rsa("first")


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "u-4711",
        "iat": now,
        "exp": now + 300,
        "scope": "openid hms-operators",
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


def token(key: Key = FIRST, algorithm: str = "RS256", **changes: Any) -> str:
    payload = json.dumps(claims(**changes)).encode()  # with escapes, so that half a character can be in it
    return jws.serialize_compact({"alg": algorithm, "kid": key.kid}, payload, key, algorithms=[algorithm])


def settings(there: Partner, **changes: Any) -> dict[str, Any]:
    return {
        "development": True,
        "oidc_issuer": ISSUER,
        "oidc_audience": AUDIENCE,
        "oidc_jwks_url": there.url("/keys"),
        "oidc_roles": ROLES,
        **changes,
    }


@asynccontextmanager
async def hospital(database_url: str, provider: Provider, **changes: Any) -> AsyncIterator[Api]:
    async with partner(otherwise=provider) as there, running(database_url, **settings(there, **changes)) as api:
        yield api


async def status(api: Api, credential: str, path: str = "/v1/deliveries") -> int:
    async with api.client(credential) as client:
        return (await client.get(path)).status_code


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (FIRST, "RS256"),
        (FIRST, "PS512"),
        (ECKey.generate_key("P-256", {"kid": "ec"}), "ES256"),
        (OKPKey.generate_key("Ed25519", {"kid": "ed"}), "Ed25519"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
async def test_a_token_may_do_what_its_roles_say_and_no_more(database_url: str, key: Key, algorithm: str) -> None:
    async with hospital(database_url, Provider(key)) as api:
        good = token(key, algorithm)
        assert await status(api, good) == 200
        assert await status(api, good, "/v1/audit") == 403
        assert await status(api, token(key, algorithm, scope=["hms-admins"]), "/v1/audit") == 200
        assert await status(api, token(key, algorithm, scope="openid")) == 401


async def test_keys_of_ours_still_work_and_changes_name_the_person(database_url: str) -> None:
    async with hospital(database_url, Provider(FIRST)) as api:
        assert await status(api, await api.make_key("admin")) == 200
        async with api.client(token(scope="hms-admins")) as client:
            assert (await client.post("/v1/subscribers", json={"name": "Northside"})).status_code == 201
            (entry,) = (await client.get("/v1/audit")).json()["items"]
        assert entry["actor"] == "oidc:u-4711"


def unsigned(**changes: Any) -> str:
    return f"{_part({'alg': 'none', 'kid': 'first'})}.{_part(claims(**changes))}."


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def with_public_key_as_secret() -> str:
    """The classic: the public key, which everybody knows, taken for a shared secret."""
    head, body = (_part(value) for value in ({"alg": "HS256", "kid": "first"}, claims()))
    mac = hmac.digest(FIRST.as_pem(private=False), f"{head}.{body}".encode(), "sha256")
    return f"{head}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def nested() -> str:
    body = b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    return jws.serialize_compact({"alg": "RS256", "kid": "first"}, body, FIRST)


BAD: dict[str, Callable[[], str]] = {
    "of another issuer": lambda: token(iss="https://elsewhere.example"),
    "for another audience": lambda: token(aud="something-else"),
    "without an audience": lambda: token(aud=None),
    "without an end": lambda: token(exp=None),
    "ended": lambda: token(exp=int(time.time()) - 60),
    "not yet valid": lambda: token(nbf=int(time.time()) + 120),
    "of nobody": lambda: token(sub=None),
    "with an odd subject": lambda: token(sub="a\nb"),
    "signed by a stranger with a known key id": lambda: token(STRANGER),
    "of an unknown key": lambda: token(rsa("third")),
    "unsigned": unsigned,
    "unsigned, with something for a signature": lambda: unsigned() + "AAAA",
    "signed with the public key": with_public_key_as_secret,
    "changed": lambda: token()[:-6] + "AAAAAA",
    "no JSON": lambda: "AAAA.AAAA.AAAA",
    "too long": lambda: token(filler="a" * 20_000),
    "a list as subject": lambda: token(sub=["u"]),
    "no subject": lambda: token(sub=""),
    "a subject with NUL": lambda: token(sub="a\0b"),
    "half a character as subject": lambda: token(sub="a\ud800"),
    "an end beyond any number": lambda: token(exp=10**400),
    "an end that never comes": lambda: token(exp=float("inf")),
    "an end that is no number": lambda: token(exp=float("nan")),
    "nested without end": nested,
    "an end that is text": lambda: token(exp="tomorrow"),
}


async def test_no_other_token_gets_in_and_all_get_the_same_answer(database_url: str) -> None:
    async with hospital(database_url, Provider(FIRST)) as api, api.client(None) as client:
        expected = (await client.get("/v1/deliveries")).json()["detail"]
        for name, made in BAD.items():
            answer = await client.get("/v1/deliveries", headers={"Authorization": f"Bearer {made()}"})
            assert answer.status_code == 401, name
            assert answer.json()["detail"] == expected, name


async def test_a_shared_secret_in_the_published_set_is_not_taken(database_url: str) -> None:
    shared = OctKey.generate_key(256, {"kid": "shared"})

    def publish(_: Received) -> tuple[int, bytes]:
        return 200, json.dumps({"keys": [shared.as_dict(private=True)]}).encode()

    async with partner(otherwise=publish) as there, running(database_url, **settings(there)) as api:
        forged = jwt.encode({"alg": "HS256", "kid": "shared"}, claims(), shared, algorithms=["HS256"])
        assert await status(api, forged) == 401


async def test_a_tenant_claim_decides_whose_things_are_seen(database_url: str) -> None:
    async with hospital(database_url, Provider(FIRST), oidc_tenant_claim="org.name") as api:
        async with api.database.connection() as connection:
            await tenants.make(connection, api.vault, "southside")
        async with api.client(token(scope="hms-admins", org={"name": "southside"})) as client:
            assert (await client.post("/v1/subscribers", json={"name": "Only theirs"})).status_code == 201
        async with api.client(token(scope="hms-admins", org={"name": "default"})) as client:
            assert (await client.get("/v1/subscribers")).json()["items"] == []
        for claim in ({"name": "nowhere"}, {"name": ""}, {"name": None}, {"name": "a\0"}, {"name": "\ud800"}, {}, ""):
            assert await status(api, token(org=claim)) == 401, claim
        assert await status(api, token()) == 401


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def made(there: Partner, clock: Clock) -> Issuer:
    found = issuer_from(Settings.model_validate(settings(there)), clock)
    assert found is not None
    return found


async def test_keys_are_fetched_once_again_when_they_change_and_not_for_every_stranger() -> None:
    provider, clock = Provider(FIRST), Clock()
    async with partner(otherwise=provider) as there:
        issuer = made(there, clock)
        for _ in range(5):
            await issuer.identify(token())
        assert provider.asked == 1
        provider.keys.append(SECOND)
        clock.now += oidc.AGAIN
        assert (await issuer.identify(token(SECOND))).subject == "u-4711"
        assert provider.asked == 2
        for number in range(20):
            with pytest.raises(NotAToken):
                await issuer.identify(token(ECKey.generate_key("P-256", {"kid": f"x{number}"}), "ES256"))
        assert provider.asked == 2, "no stranger makes us ask again and again"
        provider.keys.remove(FIRST)
        clock.now += oidc.FRESH
        with pytest.raises(NotAToken):
            await issuer.identify(token())


async def test_while_the_provider_is_away_its_known_keys_are_used_for_a_day() -> None:
    provider, clock = Provider(FIRST), Clock()
    async with partner(otherwise=provider) as there:
        issuer = made(there, clock)
        await issuer.identify(token())
        provider.is_up = False
        clock.now += oidc.FRESH
        await issuer.identify(token())
        clock.now += oidc.STALE
        with pytest.raises(NotAToken):
            await issuer.identify(token())


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"keys": [1]}', b'{"keys": [{"kty": "RSA"}]}', b"x" * 300_000])
async def test_an_answer_that_is_no_key_set_is_none(answer: bytes) -> None:
    async with partner(otherwise=lambda _: (200, answer)) as there:
        issuer = made(there, Clock())
        with pytest.raises(NotAToken):
            await issuer.identify(token())


@pytest.mark.parametrize(
    "wrong",
    [
        {"oidc_audience": None},
        {"oidc_roles": ""},
        {"oidc_roles": "a=king"},
        {"oidc_roles": "partners=partner"},
        {"development": False, "oidc_jwks_url": "http://id.hospital.example/keys"},
    ],
)
def test_settings_that_would_let_in_too_many_or_nobody_are_refused(wrong: dict[str, Any]) -> None:
    given = settings(Partner()) | {"oidc_jwks_url": "https://id.hospital.example/keys"} | wrong
    with pytest.raises(ValidationError):
        Settings.model_validate(given)


async def test_without_a_provider_no_token_is_looked_at(api: Api) -> None:
    async with api.client(token()) as client:
        assert (await client.get("/v1/deliveries")).status_code == httpx.codes.UNAUTHORIZED
