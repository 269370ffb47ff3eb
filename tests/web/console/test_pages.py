"""Every page and action: for whom it is there, what stands around it, and what never does."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.web.console.people import SESSION, Person, pages, person_at, text_of
from tests.web.serving import Api, running
from tests.web.world import World, make_world
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import OF_A_SUBSCRIBER, ROLES
from webhook_gateway.store import tenants
from webhook_gateway.web.console.frame import Page

CONSOLE = Path(__file__).parents[3] / "src" / "webhook_gateway" / "web" / "console"
POLICY = re.compile(
    r"default-src 'none'; script-src 'nonce-([A-Za-z0-9+/=]{24})'; style-src 'self'; img-src 'self'; "
    r"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    r"require-trusted-types-for 'script'"
)


def path_of(page: Page, world: World) -> str:
    places = {name: getattr(world, name) for name in world.__slots__} | {"session_id": SESSION}
    return page.path.format(**places)


def names_something(page: Page) -> bool:
    return "{" in page.path and "{name}" not in page.path and "{session_id}" not in page.path


async def visit(person: Person, page: Page, world: World) -> httpx.Response:
    path = path_of(page, world)
    return await (person.get(path) if page.method == "GET" else person.post(path, data={}, timeout=30))


@pytest.mark.parametrize("role", ROLES)
async def test_a_page_is_there_for_the_roles_whose_scopes_the_api_would_ask_for(
    somebody: Any, world: World, role: str
) -> None:
    restrictions = {"subscriber_id": ids.parse(ids.SUBSCRIBER, world.subscriber_id)} if role == "partner" else {}
    person, scopes = await somebody(*ROLES[role], **restrictions), ROLES[role]
    for page in pages("GET"):
        may = page.scope is None or page.scope in scopes or ("admin" in scopes and page.scope != "payload:read")
        may = may and not (page.whole_tenant and role == "partner")
        expected = 200 if may else 403
        if role == "partner" and "{job_id}" in page.path:
            expected = 404  # the job is the hospital's
        answer = await visit(person, page, world)
        assert answer.status_code == expected, (page.path, text_of(answer.text))
        if not may and page.scope is not None:
            assert page.scope in answer.text or "one partner" in answer.text


@pytest.mark.parametrize("role", ROLES)
async def test_an_action_is_refused_to_whoever_lacks_its_scope_whatever_the_page_shows(
    somebody: Any, world: World, role: str
) -> None:
    restrictions = {"subscriber_id": ids.parse(ids.SUBSCRIBER, world.subscriber_id)} if role == "partner" else {}
    person, scopes = await somebody(*ROLES[role], **restrictions), ROLES[role]
    for page in pages("POST"):
        may = page.scope is None or page.scope in scopes or ("admin" in scopes and page.scope != "payload:read")
        if not may or (page.whole_tenant and role == "partner"):
            assert (await visit(person, page, world)).status_code == 403, page.path


async def test_the_menu_and_the_buttons_lead_only_where_one_may_go(somebody: Any, world: World) -> None:
    for role in ("auditor", "operator", "privacy_officer", "producer"):
        person = await somebody(*ROLES[role])
        for page in pages("GET"):
            answer = await visit(person, page, world)
            if answer.status_code != 200:
                continue
            for href in re.findall(r'href="(/console[^"#]*)"', answer.text):
                found = await person.get(href.replace("&amp;", "&"))
                assert found.status_code == 200, (role, page.path, href)


async def test_another_hospitals_ids_are_unknown(api: Api, somebody: Any, world: World) -> None:
    async with api.database.connection() as connection:
        other = await tenants.make(connection, api.vault, "another hospital")
    stranger = await somebody("admin", "payload:read", tenant_id=other)
    known = [world.subscriber_id, world.endpoint_id, world.event_id, world.delivery_id, world.key_id, world.job_id]
    for page in pages():
        answer = await visit(stranger, page, world)
        if names_something(page):
            assert answer.status_code in {404, 422}, (page.path, answer.status_code)
        if page.method == "GET":
            main = answer.text.partition("<main")[2].partition("</main>")[0]
            assert not any(one in main for one in known), page.path


async def test_a_partner_sees_nothing_of_another_one(
    api: Api, admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    other = await make_world(api, admin, api.tenant_id, "Southside")
    scopes = [scope.value for scope in OF_A_SUBSCRIBER]
    partner = await somebody(*scopes, subscriber_id=ids.parse(ids.SUBSCRIBER, other.subscriber_id))
    known = [world.subscriber_id, world.endpoint_id, world.event_id, world.delivery_id, "Northside"]
    for page in pages():
        if page.method == "POST" and not names_something(page):
            continue
        answer = await visit(partner, page, world)
        if names_something(page):
            assert answer.status_code in {403, 404, 422}, (page.path, answer.status_code)
        if page.method == "GET" and answer.status_code == 200:
            assert not any(one in answer.text for one in known), page.path
    assert "Southside" in await partner.see(f"/endpoints/{other.endpoint_id}")


async def test_nothing_is_done_for_who_is_not_signed_in(api: Api, world: World) -> None:
    async with Person(base_url=api.url, headers={"Sec-Fetch-Site": "same-origin"}, trust_env=False) as stranger:
        for page in pages():
            answer = await visit(stranger, page, world)
            if page.public:
                continue
            assert answer.status_code == (303 if page.method == "GET" else 401), page.path
            assert "Northside" not in answer.text


async def test_every_answer_has_the_policy_and_is_kept_by_nobody(somebody: Any, world: World) -> None:
    person, nonces = await somebody("admin"), set()
    answers = [await visit(person, page, world) for page in pages("GET")]
    answers += [await person.get("/console/nowhere"), await person.get("/console/deliveries/none")]
    answers += [await person.get("/console", headers={"HX-Request": "true"}), await person.do("/keys/new")]
    answers.append(await person.post("/console/keys/new", content=b"{}"))
    answers.append(await person.delete("/console/keys"))
    for answer in answers:
        policy = POLICY.fullmatch(answer.headers["content-security-policy"])
        assert policy is not None, answer.url
        nonces.add(policy[1])
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:", answer.text), answer.url
        assert set(re.findall(r'<script[^>]* nonce="([^"]*)"', answer.text)) <= {
            policy[1].replace("+", "&#43;"),
            policy[1],
        }
    assert len(nonces) == len(answers)
    assert {answer.status_code for answer in answers[-6:]} == {404, 200, 422, 415, 405}


async def test_no_two_pages_have_the_same_title(somebody: Any, world: World) -> None:
    person, titles = await somebody("admin", "payload:read"), []
    for page in pages("GET"):
        titles += re.findall(r"<title>(.*?)</title>", (await visit(person, page, world)).text)
    assert len(set(titles)) == len(titles) == len(list(pages("GET")))


async def test_a_file_is_kept_by_browsers_since_its_url_has_its_digest(somebody: Any) -> None:
    person = await somebody("admin")
    for url in set(re.findall(r'(?:href|src)="(/console/static/[^"#]*)', await person.see(""))):
        answer = await person.get(url)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert hashlib.sha256(answer.content).hexdigest().startswith(url.split("/")[3])


def test_what_is_vendored_is_what_was_published() -> None:
    vendored = tomllib.loads((CONSOLE / "vendored.toml").read_text())
    told = (CONSOLE / "LICENSES.txt").read_text()
    for name, about in vendored.items():
        assert about["package"] in told
        if "sha256" in about:
            assert hashlib.sha256((CONSOLE / "static" / name).read_bytes()).hexdigest() == about["sha256"]
    assert {"htmx.js", "icons.svg"} == set(vendored)


def test_every_template_is_escaped_and_every_icon_is_there() -> None:
    icons = set(re.findall(r'<symbol id="(\w+)"', (CONSOLE / "static" / "icons.svg").read_text()))
    for template in (CONSOLE / "templates").glob("*.html"):
        text = template.read_text()
        assert "|safe" not in text
        assert "autoescape" not in text
        assert set(re.findall(r'icon\("(\w+)"\)', text)) <= icons, template.name


async def test_the_hospitals_zone_is_that_of_whoever_has_chosen_none(database_url: str) -> None:
    async with running(database_url, development=True, time_zone="Europe/Berlin") as api:
        async with api.client(await api.make_key("admin")) as admin:
            world = await make_world(api, admin, api.tenant_id)
        async with person_at(api.url) as person:
            await person.sign_in(await api.make_key("admin"))
            page = await person.see(f"/deliveries/{world.delivery_id}")
            assert re.search(r"CES?T</time>", page)
            assert re.search(r">Given up [0-9: -]+ CES?T after", page)
            assert '<option value="Europe/Berlin" selected>Hospital (Europe/Berlin)</option>' in page
            await person.do("/zone", zone="UTC")
            assert "UTC</time>" in await person.see(f"/deliveries/{world.delivery_id}")


async def test_times_are_shown_in_the_zone_that_one_has_chosen(somebody: Any, world: World) -> None:
    person = await somebody("admin")
    page = f"/deliveries/{world.delivery_id}"
    assert "UTC</time>" in await person.see(page)
    assert re.search(r'class="why">Given up [0-9: -]+ UTC after', await person.see(page))
    answer = await person.do("/zone", zone="Asia/Kolkata", to="/console/deliveries")
    assert answer.headers["location"] == "/console/deliveries"
    for path in (page, f"/events/{world.event_id}"):
        shown = (await person.see(path)).partition("<main")[2].partition("</main>")[0]
        assert "IST</time>" in shown
        assert "UTC" not in text_of(f"<main{shown}")
    assert re.search(r'class="why">Given up [0-9: -]+ IST after', await person.see(page)), "sentences, too"
    await person.do("/zone", zone="../../etc/passwd")
    assert "UTC</time>" in await person.see(page)
