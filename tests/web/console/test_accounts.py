"""Signing in with the hospital's accounts: a real provider that checks us, and every way in which it may lie."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jws
from pydantic import ValidationError

from tests.support.identity_provider import CLIENT_ID, FIRST, SECOND, SECRET, IdentityProvider, identity_provider, part
from tests.support.partner import status
from tests.web.console.people import OURS, Person, text_of
from tests.web.serving import Api, running
from webhook_gateway.settings import Settings
from webhook_gateway.store import tenants
from webhook_gateway.store.partitions import make_all
from webhook_gateway.web import guesses, oidc
from webhook_gateway.web.guesses import MOST_GUESSES

ROLES = "hms-operators=operator,hms-admins=admin"


@pytest.fixture
async def provider() -> AsyncIterator[IdentityProvider]:
    async with identity_provider() as made:
        yield made


@asynccontextmanager
async def hospital(database_url: str, tmp_path: Path, provider: IdentityProvider, **changes: Any) -> AsyncIterator[Api]:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    settings = {
        "development": True,
        "oidc_issuer": provider.url,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret_file": tmp_path / "secret",
        "oidc_roles": ROLES,
        **changes,
    }
    async with running(database_url, **settings) as api:
        async with api.database.connection() as connection:
            await make_all(connection)
        yield api


@pytest.fixture
async def api(database_url: str, tmp_path: Path, provider: IdentityProvider) -> AsyncIterator[Api]:
    async with hospital(database_url, tmp_path, provider) as found:
        yield found


def browser(api: Api, **how: Any) -> Person:
    return Person(base_url=api.url, trust_env=False, verify=False, headers=OURS, timeout=30, **how)


@pytest.fixture
async def person(api: Api) -> AsyncIterator[Person]:
    async with browser(api) as client:
        yield client


async def at_provider(person: Person, to: str = "") -> str:
    """Begins to sign in; the URL to which the provider sends the browser back."""
    begun = await person.get("/console/login/account", params={"to": to})
    assert begun.status_code == 303, begun.text
    return (await person.get(begun.headers["location"])).headers["location"]


async def sign_in(person: Person, to: str = "") -> httpx.Response:
    return await person.get(await at_provider(person, to))


async def sessions_of(api: Api) -> list[Any]:
    async with api.database.connection() as connection:
        return list(await connection.fetch("SELECT * FROM sessions ORDER BY id"))


async def expect_refusal(api: Api, answer: httpx.Response, status: int, words: str) -> None:
    assert answer.status_code == status, text_of(answer.text)
    assert words in text_of(answer.text).replace("&#39;", "'")
    assert "Begin again" in answer.text
    assert not any(cookie.startswith("session=") for cookie in answer.headers.get_list("set-cookie"))
    assert await sessions_of(api) == []


async def test_a_person_may_do_what_the_roles_of_their_groups_say_and_the_audit_log_names_them(
    api: Api, person: Person
) -> None:
    assert 'href="/console/login/account?to=/console' in (await person.get("/console/login")).text
    answer = await sign_in(person, "/console/deliveries?state=dead")
    assert answer.headers["location"] == "/console/deliveries?state=dead"
    assert "Anna Meier" in await person.see("/deliveries")
    await person.see("/audit", 403)
    (session,) = await sessions_of(api)
    assert session["actor"] == "oidc:u-4711"
    async with api.database.connection() as connection:
        (entry,) = await connection.fetch("SELECT actor, source, action, after FROM audit_log")
    assert (entry["actor"], entry["source"], entry["action"]) == ("oidc:u-4711", "127.0.0.1", "session.begun")
    assert json.loads(entry["after"]) == {"person": "Anna Meier"}


async def test_whoever_is_in_no_group_that_is_mapped_gets_no_role_but_the_way_to_one(
    api: Api, provider: IdentityProvider, person: Person
) -> None:
    for groups in (["staff"], [], "", None, {"hms-operators": True}, "HMS-Operators", [["hms-operators"]]):
        provider.person["groups"] = groups
        await expect_refusal(api, await sign_in(person), 403, "Ask whoever looks after the hospital's groups")


async def test_the_tenant_is_the_one_that_the_claim_names_and_no_other(
    database_url: str, tmp_path: Path, provider: IdentityProvider
) -> None:
    async with hospital(database_url, tmp_path, provider, oidc_tenant_claim="site") as api, browser(api) as person:
        await expect_refusal(api, await sign_in(person), 403, "can't be trusted")
        provider.person["site"] = "nowhere"
        await expect_refusal(api, await sign_in(person), 403, "You have no access yet")
        async with api.database.connection() as connection:
            southside = await tenants.make(connection, api.vault, "southside")
        provider.person["site"] = "southside"
        assert (await sign_in(person)).status_code == 303
        assert [row["tenant_id"] for row in await sessions_of(api)] == [southside]


def unsigned(claims: dict[str, Any]) -> str:
    return f"{part({'alg': 'none'})}.{part(claims)}."


def with_secret(secret: bytes) -> Callable[[dict[str, Any]], str]:
    def sign(claims: dict[str, Any]) -> str:
        head, body = part({"alg": "HS256", "kid": "first"}), part(claims)
        mac = hmac.digest(secret, f"{head}.{body}".encode(), "sha256")
        return f"{head}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    return sign


def of_a_stranger(claims: dict[str, Any]) -> str:
    return jws.serialize_compact({"alg": "RS256", "kid": "first"}, json.dumps(claims).encode(), SECOND)


NOW = time.time()
BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "another nonce": {"nonce": "of-another-browser"},
    "no nonce": {"nonce": None},
    "another audience": {"aud": "another-client"},
    "no audience": {"aud": None},
    "made for another client of ours": {"aud": [CLIENT_ID, "another-client"], "azp": "another-client"},
    "another issuer": {"iss": "https://elsewhere.example"},
    "ended": {"exp": NOW - 60},
    "without an end": {"exp": None},
    "never issued": {"iat": None},
    "not issued yet": {"iat": NOW + 3_600},
    "not valid yet": {"nbf": NOW + 3_600},
    "of nobody": {"sub": None},
    "of somebody odd": {"sub": "a\nb"},
}
BAD_SIGNATURES: dict[str, Callable[[dict[str, Any]], str]] = {
    "unsigned": unsigned,
    "unsigned, with something for a signature": lambda claims: unsigned(claims) + "AAAA",
    "signed with our secret": with_secret(SECRET.encode()),
    "signed with the public key": with_secret(FIRST.as_pem(private=False)),
    "signed by a stranger": of_a_stranger,
}


async def test_no_other_token_signs_anybody_in(api: Api, provider: IdentityProvider, person: Person) -> None:
    for changes in BAD_CLAIMS.values():
        provider.changes = changes
        await expect_refusal(api, await sign_in(person), 403, "can't be trusted")
    provider.changes, right = {}, provider.sign
    for sign in BAD_SIGNATURES.values():
        provider.sign = sign
        answer = await sign_in(person)
        assert answer.status_code in {400, 403}  # what is no signed token at all is no answer
        assert await sessions_of(api) == []
    provider.sign = right
    assert (await sign_in(person)).status_code == 303


async def test_the_provider_may_change_its_keys(
    api: Api, provider: IdentityProvider, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "AGAIN", 0.0)
    assert (await sign_in(person)).status_code == 303
    provider.keys = [SECOND]
    assert (await sign_in(person)).status_code == 303
    provider.sign = lambda claims: jws.serialize_compact(
        {"alg": "RS256", "kid": "first"}, json.dumps(claims).encode(), FIRST
    )
    assert (await sign_in(person)).status_code == 403


async def test_what_came_back_once_is_of_no_use_again(
    api: Api, provider: IdentityProvider, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guesses, "WINDOW", 3_600.0)
    back = await at_provider(person)
    pending = dict(person.cookies)
    assert (await person.get(back)).status_code == 303
    assert "asked" not in person.cookies
    async with api.database.connection() as connection:
        await connection.execute("DELETE FROM sessions")
    async with browser(api) as other:
        await expect_refusal(api, await other.get(back), 400, "This sign-in is over")
    async with browser(api, cookies=pending) as thief:
        await expect_refusal(api, await thief.get(back), 400, "This sign-in is over")
    assert provider.asked.count("/token") == 1


async def test_nobody_is_signed_in_as_somebody_else_by_a_link(api: Api, person: Person) -> None:
    async with browser(api) as attacker:
        theirs = await at_provider(attacker)
        await expect_refusal(api, await person.get(theirs), 400, "This sign-in is over")
        mine = httpx.URL(await at_provider(person))
        await expect_refusal(api, await person.get(theirs), 400, "This sign-in is over")
        code = httpx.URL(theirs).params["code"]
        await expect_refusal(api, await person.get(mine.copy_set_param("code", code)), 400, "did not take")
        state = await person.get(httpx.URL(theirs).copy_set_param("iss", "https://elsewhere.example"))
        await expect_refusal(api, state, 400, "This sign-in is over")


async def test_a_cookie_that_was_planted_before_is_not_the_sessions(api: Api, person: Person) -> None:
    person.cookies.set("session", "planted", domain="127.0.0.1")
    answer = await sign_in(person)
    given = [cookie for cookie in answer.headers.get_list("set-cookie") if cookie.startswith("session=")]
    assert len(given) == 1
    assert "planted" not in given[0]
    async with browser(api, cookies={"session": "planted"}) as attacker:
        assert (await attacker.get("/console/deliveries")).status_code == 303


async def test_both_cookies_are_bound_to_the_host_and_to_https_but_in_development(
    database_url: str, tmp_path: Path, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "is_trusted", lambda *_: True)  # what has to be https is told below
    how = {"development": False, "public_url": "https://gateway.example.org"}
    async with hospital(database_url, tmp_path, provider, **how) as api, browser(api) as person:
        begun = await person.get("/console/login/account")
        back = (await person.get(begun.headers["location"])).headers["location"]
        assert back.startswith("https://gateway.example.org/console/login/callback?")
        name, *parts = begun.headers["set-cookie"].split("; ")
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=lax", "Max-Age=900"} <= set(parts)
        ended = await person.get(back.replace("https://gateway.example.org", api.url), headers={"Cookie": name})
        cookies = ended.headers.get_list("set-cookie")
        assert [cookie.partition("=")[0] for cookie in cookies] == ["__Host-session", "__Host-asked"]
        assert all({"Secure", "HttpOnly", "Path=/", "SameSite=lax"} <= set(cookie.split("; ")) for cookie in cookies)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ("access_denied", 403, "let nobody in"),
        ("temporarily_unavailable", 503, "is away"),
        ("invalid_scope", 400, "may be registered there otherwise"),
    ],
)
async def test_what_the_provider_sends_instead_of_a_code_is_told_with_the_way_on(
    api: Api, provider: IdentityProvider, person: Person, error: str, code: int, words: str
) -> None:
    provider.error = error
    answer = await sign_in(person)
    await expect_refusal(api, answer, code, words)
    assert "its own words" not in answer.text
    provider.error = None
    assert (await sign_in(person)).status_code == 303


@pytest.mark.parametrize(
    ("path", "answer", "code", "words"),
    [
        ("/token", (503, b""), 503, "is away"),
        ("/token", (503, b"{}"), 503, "is away"),
        ("/token", (200, b"x" * 300_000), 503, "is away"),
        ("/token", (200, b"{}"), 400, "did not take"),
        ("/token", (200, b'{"id_token": "no.token"}'), 400, "did not take"),
        ("/token", (401, b'{"error": "invalid_client"}'), 400, "did not take"),
        ("/token", status(302, "Location: https://elsewhere.example/", body=b"{}"), 400, "did not take"),
        ("/keys", (503, b""), 503, "is away"),
    ],
)
async def test_a_provider_that_fails_halfway_lets_nobody_in(
    api: Api, provider: IdentityProvider, person: Person, path: str, answer: Any, code: int, words: str
) -> None:
    provider.instead[path] = answer
    await expect_refusal(api, await sign_in(person), code, words)


@pytest.mark.parametrize(
    "lie",
    [
        {"issuer": "https://elsewhere.example"},
        {"token_endpoint": "ftp://elsewhere.example/"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": None},
    ],
)
async def test_a_provider_that_is_away_or_another_one_is_not_asked(
    api: Api, provider: IdentityProvider, person: Person, lie: dict[str, Any]
) -> None:
    provider.instead["/.well-known/openid-configuration"] = (200, json.dumps(provider.configuration() | lie).encode())
    await expect_refusal(api, await person.get("/console/login/account"), 503, "is away")
    assert provider.asked == ["/.well-known/openid-configuration"]
    await person.sign_in(await api.make_key("admin"))  # the other ways stay


async def test_made_up_codes_are_bounded(api: Api, person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "WINDOW", 3_600.0)
    back = httpx.URL(await at_provider(person))
    pending = dict(person.cookies)
    statuses = []
    for number in range(MOST_GUESSES + 5):
        async with browser(api, cookies=pending) as guesser:
            statuses.append((await guesser.get(back.copy_set_param("code", f"guess-{number}"))).status_code)
    assert set(statuses) == {400, 429}


async def test_no_code_token_or_secret_is_written_to_a_log(
    api: Api, provider: IdentityProvider, person: Person, capfd: pytest.CaptureFixture[str]
) -> None:
    back = await at_provider(person)
    hidden = [SECRET, "Anna Meier", *dict(person.cookies).values()]
    assert (await person.get(back)).status_code == 303
    hidden += dict(person.cookies).values()
    provider.changes = {"aud": "another-client"}
    assert (await sign_in(person)).status_code == 403
    said = "".join(capfd.readouterr())
    assert "untrusted" in said
    assert [one for one in (*hidden, *provider.issued) if one in said] == []


async def test_a_persons_token_opens_no_api(api: Api, provider: IdentityProvider, person: Person) -> None:
    await sign_in(person)
    async with api.client(provider.issued[-1]) as client:
        assert (await client.get("/v1/deliveries")).status_code == 401


async def test_signing_out_ends_the_session_and_leads_to_the_providers_own_sign_out(api: Api, person: Person) -> None:
    await sign_in(person)
    left = await person.do("/logout")
    page = await person.get(left.headers["location"])
    assert f"/leave?client_id={CLIENT_ID}" in page.text
    assert (await person.get("/console/deliveries")).status_code == 303


async def test_without_a_provider_there_is_no_such_way(database_url: str) -> None:
    async with running(database_url, development=True) as api, browser(api) as person:
        assert "/login/account" not in (await person.get("/console/login")).text
        for path in ("account", "callback"):
            assert (await person.get(f"/console/login/{path}")).status_code == 404


GOOD = {
    "oidc_issuer": "https://id.hospital.example",
    "oidc_client_id": CLIENT_ID,
    "oidc_client_secret_file": "/run/secrets/oidc",
    "oidc_roles": ROLES,
    "public_url": "https://gateway.example.org",
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"oidc_roles": None},
        {"oidc_issuer": None},
        {"oidc_client_id": None},
        {"oidc_client_secret_file": None},
        {"oidc_client_id": None, "oidc_client_secret_file": None},
        {"public_url": None},
        {"public_url": "http://gateway.example.org"},
        {"oidc_issuer": "http://id.hospital.example"},
        {"oidc_audience": CLIENT_ID, "oidc_jwks_url": "https://id.hospital.example/keys"},
    ],
)
def test_settings_that_others_could_listen_to_or_that_let_nobody_in_are_refused(wrong: dict[str, Any]) -> None:
    Settings.model_validate(GOOD)
    with pytest.raises(ValidationError):
        Settings.model_validate(GOOD | wrong)
