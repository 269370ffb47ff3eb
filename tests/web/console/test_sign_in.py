"""Signing in and out: who gets a session, what its cookie is, and when it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.web.console.people import OURS, Person, person_at, text_of
from tests.web.serving import Api, running
from webhook_gateway.operations import sessions
from webhook_gateway.operations.change import changing, local_actor
from webhook_gateway.rules import api_keys, ids
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.web import guesses
from webhook_gateway.web.guesses import MOST_GUESSES


@pytest.fixture
async def stranger(api: Api) -> Any:
    async with person_at(api.url) as client:
        yield client


async def offered(api: Api, *scopes: Scope) -> str:
    async with changing(api.database, local_actor(api.tenant_id)) as change:
        return await sessions.offer(change, scopes)


async def put_back(api: Api, column: str, seconds: int) -> None:
    async with api.database.connection() as connection:
        await connection.execute(f"UPDATE sessions SET {column} = {column} - make_interval(secs => {seconds})")


async def test_who_is_not_signed_in_is_sent_to_sign_in_and_back(api: Api, stranger: Person) -> None:
    answer = await stranger.get("/console/deliveries?state=dead")
    assert answer.status_code == 303
    page = await stranger.get(answer.headers["location"])
    assert 'name="to" value="/console/deliveries?state=dead"' in page.text
    form = {"key": await api.make_key("admin"), "to": "/console/deliveries?state=dead"}
    back = await stranger.post("/console/login", data=form)
    assert back.headers["location"] == "/console/deliveries?state=dead"


@pytest.mark.parametrize("to", ["https://evil.example/", "//evil.example/", "/console//evil.example", "javascript:1"])
async def test_signing_in_leads_nowhere_else(api: Api, stranger: Person, to: str) -> None:
    answer = await stranger.post("/console/login", data={"key": await api.make_key("admin"), "to": to})
    assert answer.headers["location"].startswith("/console")
    assert httpx.URL(api.url).join(answer.headers["location"]).host == httpx.URL(api.url).host


async def test_a_key_that_is_none_gets_no_session(api: Api, stranger: Person) -> None:
    for key in ("", "whk_", "ünknown", await api.make_key("admin", networks=["10.20.0.0/16"])):
        answer = await stranger.post("/console/login", data={"key": key})
        assert answer.status_code == 401
        assert "not valid" in text_of(answer.text)
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("make", [lambda n: api_keys.new_key(n.to_bytes(api_keys.ENTROPY_BYTES)), lambda n: f"whc_{n}"])
async def test_guessing_keys_and_codes_is_bounded(
    stranger: Person, make: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guesses, "WINDOW", 3_600.0)
    statuses = [
        (await stranger.post("/console/login", data={"key": make(n)})).status_code for n in range(MOST_GUESSES + 5)
    ]
    assert set(statuses) == {401, 429}


async def test_guessing_cookies_is_bounded(stranger: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "WINDOW", 3_600.0)
    statuses = []
    for n in range(MOST_GUESSES + 5):
        stranger.cookies.set("session", f"guess-{n}")
        statuses.append((await stranger.get("/console")).status_code)
    assert set(statuses) == {303, 429}


async def test_the_cookie_is_bound_to_the_host_and_to_https_but_in_development(database_url: str) -> None:
    async with running(database_url) as api, Person(base_url=api.url, trust_env=False, headers=OURS) as client:
        answer = await client.post("/console/login", data={"key": await api.make_key("admin")})
        name, *parts = answer.headers["set-cookie"].split("; ")
        assert name.startswith("__Host-session=")
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=lax"} <= set(parts)
        assert not any(part.startswith("Domain") for part in parts)


async def test_the_database_has_no_cookie_and_no_code(api: Api, stranger: Person) -> None:
    code = await offered(api, Scope.ADMIN)
    await stranger.sign_in(await api.make_key("admin"))
    async with api.database.connection() as connection:
        rows = str(await connection.fetch("SELECT * FROM sessions"))
    assert code not in rows
    assert stranger.cookies["session"] not in rows


async def test_a_code_signs_in_once(api: Api, stranger: Person) -> None:
    code = await offered(api, Scope.ADMIN)
    await stranger.sign_in(code)
    assert "Overview" in await stranger.see("")
    for given in (code, f"{api.url}/console/login#{code}"):
        again = await stranger.post("/console/login", data={"key": given})
        assert again.status_code == 401
        assert "used already, or is too old" in text_of(again.text)
        assert "webhook-gateway console prints another" in text_of(again.text)


async def test_a_code_gives_only_the_scopes_that_it_was_made_with(api: Api, stranger: Person) -> None:
    await stranger.sign_in(await offered(api, Scope.AUDIT_READ))
    await stranger.see("/audit")
    await stranger.see("/deliveries", 403)


async def test_a_code_is_of_no_use_after_ten_minutes(api: Api, stranger: Person) -> None:
    code = await offered(api, Scope.ADMIN)
    await put_back(api, "code_expires_at", sessions.CODE_LASTS + 1)
    assert (await stranger.post("/console/login", data={"key": code})).status_code == 401


@pytest.mark.parametrize(("column", "seconds"), [("seen_at", 1_801), ("expires_at", 43_201)])
async def test_a_session_ends_when_it_is_idle_and_at_last(api: Api, somebody: Any, column: str, seconds: int) -> None:
    person = await somebody("admin")
    await person.see("/deliveries")
    await put_back(api, column, seconds)
    assert (await person.get("/console/deliveries")).status_code == 303


async def test_what_a_page_asks_for_by_itself_keeps_nobody_signed_in(api: Api, somebody: Any) -> None:
    person = await somebody("admin")
    await put_back(api, "seen_at", 600)
    seen = "SELECT now() - seen_at > interval '5 minutes' FROM sessions"
    async with api.database.connection() as connection:
        await person.get("/console", headers={"HX-Request": "true"})
        assert await connection.fetchval(seen)
        await person.get("/console")
        assert not await connection.fetchval(seen)


async def test_a_revoked_key_ends_its_sessions(api: Api, somebody: Any, admin: httpx.AsyncClient) -> None:
    person = await somebody("audit:read")
    await person.see("/audit")
    keys = (await admin.get("/v1/keys")).json()["items"]
    theirs = next(key for key in keys if key["scopes"] == ["audit:read"])
    assert (await admin.post(f"/v1/keys/{theirs['id']}/revoke")).is_success
    assert (await person.get("/console/audit")).status_code == 303


async def test_a_key_that_belongs_to_a_network_makes_sessions_of_that_network(api: Api, somebody: Any) -> None:
    person = await somebody("admin", networks=["127.0.0.0/8"])
    await person.see("/deliveries")
    async with api.database.connection() as connection:
        await connection.execute("UPDATE api_keys SET networks = '{10.20.0.0/16}'")
    assert (await person.get("/console/deliveries")).status_code == 303


async def test_signing_out_ends_the_session_for_whoever_has_the_cookie(api: Api, somebody: Any) -> None:
    person = await somebody("admin")
    cookie = person.cookies["session"]
    assert (await person.do("/logout")).status_code == 303
    async with Person(base_url=api.url, trust_env=False, cookies={"session": cookie}) as thief:
        assert (await thief.get("/console/deliveries")).status_code == 303


async def test_an_administrator_ends_anybodys_session_and_others_only_their_own(api: Api, somebody: Any) -> None:
    boss, clerk, other = await somebody("admin"), await somebody("audit:read"), await somebody("audit:read")
    async with api.database.connection() as connection:
        rows = await connection.fetch("SELECT id, scopes FROM sessions ORDER BY id")
    bosses, clerks, others = (ids.render(ids.SESSION, row["id"]) for row in rows)
    assert bosses not in await clerk.see("/sessions")
    assert (await clerk.do(f"/sessions/{bosses}/end")).status_code == 404
    assert (await clerk.do(f"/sessions/{others}/end")).status_code == 404
    assert clerks in await boss.see("/sessions")
    assert (await boss.do(f"/sessions/{clerks}/end")).status_code == 303
    assert (await clerk.get("/console/audit")).status_code == 303
    assert (await other.do("/sessions/end")).status_code == 303
    assert (await other.get("/console/audit")).status_code == 303
    await boss.see("/sessions")


async def test_signing_in_and_out_stands_in_the_audit_log(api: Api, somebody: Any) -> None:
    person = await somebody("admin")
    await person.do("/logout")
    async with api.database.connection() as connection:
        rows = await connection.fetch("SELECT action, actor, source FROM audit_log ORDER BY sequence")
    assert [row["action"] for row in rows] == ["session.begun", "session.ended"]
    assert {row["source"] for row in rows} == {"127.0.0.1"}
    assert all(row["actor"].startswith("key_") for row in rows)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "ours"}, 303),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "ours"}, 403),
        ({}, 403),
    ],
)
async def test_a_form_is_taken_from_our_own_pages_only(
    api: Api, somebody: Any, headers: dict[str, str], status: int
) -> None:
    person = await somebody("admin")
    del person.headers["Sec-Fetch-Site"]
    given = {name: api.url if value == "ours" else value for name, value in headers.items()}
    for path in ("/console/logout", "/console/login"):
        answer = await person.post(path, headers=given, data={"key": await api.make_key("admin")})
        assert answer.status_code == status, path
    if status == 403:
        await person.see("/deliveries")
