"""A partner's portal: the console's pages for one partner alone, by a link that works once."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.web.console.people import Person, id_in, pages, person_at, text_of
from tests.web.console.test_actions import CANARY, EVENT, audited
from tests.web.console.test_pages import POLICY
from tests.web.console.test_sign_in import offered, put_back
from tests.web.serving import Api, running
from tests.web.world import World, make_world, post
from webhook_gateway.operations import portal
from webhook_gateway.operations.change import changing, local_actor
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import OF_A_SUBSCRIBER, ROLES, Capability, Scope
from webhook_gateway.store import keyring, tenants
from webhook_gateway.web import guesses
from webhook_gateway.web.console.frame import PER_PAGE, Page
from webhook_gateway.web.guesses import MOST_GUESSES

ANYTHING = {
    "url": "https://lab.example.com/in",
    "slots": "4",
    "deadline": "15",
    "ordering": "relaxed",
    "signing": "hmac",
    "event_types": "staff_shift.*",
    "content": "thin",
    "name": "Somebody",
    "typed": "delete",
    "reason": "as a test",
    "role": "operator",
    "state": "dead",
    "since": "2020-01-01T00:00",
    "filter": "{}",
}
"""What every form takes, each what it knows: what is refused is the id, not the rest."""
UNBOUND = {"/login", "/logout", "/zone", "/search", "/back"}
"""What belongs to no capability: it changes nothing of the partner's."""


@pytest.fixture
async def open_portal(api: Api, arrive: Callable[[], Person]) -> Callable[..., Awaitable[Person]]:
    """Somebody with a link's session: `await open_portal(world, Capability.TEST)`."""

    async def opened(world: World, *capabilities: Capability) -> Person:
        person = arrive()
        await person.open_portal(await link_to(api, world, *capabilities))
        return person

    return opened


@asynccontextmanager
async def stranger(api: Api) -> AsyncIterator[Person]:
    async with person_at(api.url) as person:
        yield person


async def link_to(api: Api, world: World, *capabilities: Capability) -> str:
    async with changing(api.database, local_actor(api.tenant_id)) as change:
        made = await portal.create(change, ids.parse(ids.SUBSCRIBER, world.subscriber_id), capabilities)
    assert isinstance(made, tuple)
    return made[1]


async def visit(person: Person, page: Page, path: str) -> httpx.Response:
    return await (person.get(path) if page.method == "GET" else person.post(path, data=ANYTHING, timeout=30))


def at(page: Page) -> str:
    return "/" + page.path.split("/", 2)[-1] if page.path.count("/") > 1 else ""


def of_the_partner(world: World, page: Page) -> str:
    """The page's path with the world's own ids, those of sessions, too."""
    return page.path.format(**{name: getattr(world, name) for name in world.__slots__})


def names_something(page: Page) -> bool:
    return "{" in page.path and "{name}" not in page.path


async def test_a_link_is_made_at_the_console_shown_once_and_opens_the_portal_once(
    api: Api, somebody: Any, world: World
) -> None:
    boss: Person = await somebody("admin")
    partner = f"/partners/{world.subscriber_id}"
    made = await boss.do(f"{partner}/portal-links", capabilities="test", minutes="60")
    assert made.status_code == 201
    code = re.search(rf"{re.escape(api.url)}/portal/login#(whp_[\w-]{{43}})", made.text)
    assert code is not None
    listed = await boss.see(partner)
    assert code[1] not in listed
    async with api.database.connection() as connection:
        assert code[1] not in str(await connection.fetch("SELECT * FROM sessions"))
    action, noted = (await audited(api))[-1]
    assert (action, noted["capabilities"]) == ("portal_link.created", ["test", "view"])
    async with stranger(api) as first, stranger(api) as second:
        await first.open_portal(code[1])
        assert "Northside" in await first.see("", root="/portal")
        burnt = await second.post("/portal/login", data={"key": code[1]})
        assert burnt.status_code == 401
        assert "used already" in text_of(burnt.text)
        assert "set-cookie" not in burnt.headers


async def test_looking_at_a_link_does_not_use_it_up(api: Api, world: World) -> None:
    code = await link_to(api, world)
    async with stranger(api) as scanner:
        for method in ("HEAD", "GET"):
            for path in ("/portal", "/portal/login", f"/portal/login?key={code}"):
                await scanner.request(method, path)
        elsewhere = {"Sec-Fetch-Site": "cross-site"}
        assert (await scanner.post("/portal/login", data={"key": code}, headers=elsewhere)).status_code == 403
        await scanner.open_portal(f"{api.url}/portal/login#{code}")  # all of it was pasted


async def test_a_link_is_of_no_use_after_its_time(api: Api, world: World) -> None:
    code = await link_to(api, world)
    await put_back(api, "code_expires_at", 601)
    async with stranger(api) as late:
        assert (await late.post("/portal/login", data={"key": code})).status_code == 401


async def test_links_are_made_listed_and_revoked_over_the_api_by_administrators_alone(
    api: Api, admin: httpx.AsyncClient, world: World
) -> None:
    path = f"/v1/subscribers/{world.subscriber_id}/portal-links"
    made = await post(admin, path, {"capabilities": ["replay"], "expires_in_seconds": 86_400})
    assert made["capabilities"] == ["replay", "view"]
    for wrong in ({"expires_in_seconds": 86_401}, {"expires_in_seconds": 59}, {"capabilities": ["payload"]}):
        assert (await admin.post(path, json=wrong)).status_code == 422
    others = [role for role in ROLES if role not in ("admin", "partner")]
    for role in others:
        async with api.client(await api.make_key(*ROLES[role])) as client:
            assert (await client.post(path, json={})).status_code == 403, role
    bound = await api.make_key("admin", networks=["127.0.0.0/8"])
    async with api.client(bound) as client:
        refused = await client.post(path, json={})
        assert refused.status_code == 403
        assert "networks" in refused.json()["detail"]
    async with stranger(api) as person:
        await person.open_portal(made["url"])
        listed = (await admin.get(path)).json()["items"]
        assert [(one["id"], one["state"]) for one in listed] == [(made["id"], "open"), (world.session_id, "unused")]
        assert not any("whp_" in str(one) for one in listed)
        for _ in range(2):
            revoked = await post(admin, f"{path}/{made['id']}/revoke")
            assert revoked["state"] == "ended"
        assert (await person.get("/portal/deliveries")).status_code == 303
    actions = [action for action, _ in await audited(api)]
    assert actions[-3:] == ["portal_link.created", "session.begun", "portal_link.revoked"]
    other = await make_world(api, admin, api.tenant_id, "Southside")
    theirs = f"/v1/subscribers/{other.subscriber_id}/portal-links/{world.session_id}/revoke"
    assert (await admin.post(theirs)).status_code == 404


async def test_a_link_that_is_live_is_listed_however_many_have_ended_since(
    api: Api, admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    path = f"/v1/subscribers/{world.subscriber_id}/portal-links"
    live = await post(admin, path, {})
    for _ in range(PER_PAGE + 1):
        ended = await post(admin, path, {})
        await post(admin, f"{path}/{ended['id']}/revoke")
    boss: Person = await somebody("admin")
    shown = await boss.see(f"/partners/{world.subscriber_id}")
    assert live["id"] in shown
    assert ended["id"] not in shown


async def test_a_link_that_was_revoked_before_it_was_opened_opens_nothing(
    api: Api, somebody: Any, world: World
) -> None:
    boss: Person = await somebody("admin")
    made = await boss.do(f"/partners/{world.subscriber_id}/portal-links", minutes="10")
    code = re.search(r"whp_[\w-]{43}", made.text)
    assert code is not None
    links = re.findall(r"portal-links/(ses_\w{26})/revoke", await boss.see(f"/partners/{world.subscriber_id}"))
    for link in links:
        done = await boss.do(f"/partners/{world.subscriber_id}/portal-links/{link}/revoke")
        assert done.status_code == 303
    async with stranger(api) as late:
        assert (await late.post("/portal/login", data={"key": code[0]})).status_code == 401


async def test_the_console_and_the_portal_have_sessions_of_their_own(
    api: Api, somebody: Any, open_portal: Any, world: World
) -> None:
    boss: Person = await somebody("admin")
    reader: Person = await open_portal(world, *Capability)
    assert set(reader.cookies) == {"portal"}
    for cookies, path in (
        ({"session": reader.cookies["portal"]}, "/console/deliveries"),
        ({"portal": boss.cookies["session"]}, "/portal/deliveries"),
        ({"session": boss.cookies["session"]}, "/portal/deliveries"),
    ):
        async with Person(base_url=api.url, trust_env=False, cookies=cookies) as thief:
            assert (await thief.get(path)).status_code == 303, path
    async with stranger(api) as person:
        for root, key in (
            ("/portal", await offered(api, Scope.ADMIN)),
            ("/portal", await api.make_key("admin")),
            ("/console", await link_to(api, world)),
        ):
            assert (await person.post(f"{root}/login", data={"key": key})).status_code == 401, root
    assert (await reader.post("/portal/logout")).status_code == 303
    assert (await reader.get("/portal/deliveries")).status_code == 303
    await boss.see("/deliveries")


async def test_the_cookie_is_bound_to_the_host_and_to_https(database_url: str) -> None:
    async with running(database_url) as api:
        async with api.client(await api.make_key("admin")) as admin:
            partner = await post(admin, "/v1/subscribers", {"name": "Northside"})
            made = await post(admin, f"/v1/subscribers/{partner['id']}/portal-links", {})
        async with stranger(api) as person:
            answer = await person.post("/portal/login", data={"key": made["url"]})
    name, *parts = answer.headers["set-cookie"].split("; ")
    assert name.startswith("__Host-portal=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=lax"} <= set(parts)


async def test_guessing_codes_is_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "WINDOW", 3_600.0)
    async with stranger(api) as person:
        answers = [await person.post("/portal/login", data={"key": f"whp_{n}"}) for n in range(MOST_GUESSES + 5)]
    assert {answer.status_code for answer in answers} == {401, 429}


async def test_a_session_ends_with_its_partner(
    api: Api, admin: httpx.AsyncClient, open_portal: Any, world: World
) -> None:
    reader: Person = await open_portal(world)
    await reader.see("/deliveries", root="/portal")
    assert (await admin.delete(f"/v1/subscribers/{world.subscriber_id}?force=true")).is_success
    assert (await reader.get("/portal/deliveries")).status_code == 303


@pytest.mark.parametrize("capability", Capability)
async def test_each_capability_opens_its_pages_and_refuses_the_others_in_words(
    open_portal: Any, world: World, capability: Capability
) -> None:
    reader: Person = await open_portal(world, capability)
    # What deletes or signs out comes last, so that the others still have something to work on.
    for page in sorted(pages(root="/portal"), key=lambda page: page.path.endswith(("/delete", "/logout"))):
        answer = await visit(reader, page, of_the_partner(world, page))
        about = (page.method, page.path, answer.status_code, text_of(answer.text))
        if page.by not in {Capability.VIEW, capability}:
            assert answer.status_code == 403, about
            assert f"“{page.by}”" in answer.text
        elif "{job_id}" in page.path:
            assert answer.status_code == 404, about  # the job is the hospital's
        elif page.method == "GET":
            assert answer.status_code in {200, 303}, about
        elif at(page) not in {"/back", "/search"}:
            assert answer.status_code in {200, 201, 303, 401, 409}, about


async def test_no_page_of_the_portal_offers_what_it_would_refuse(open_portal: Any, world: World) -> None:
    every = list(pages(root="/portal"))
    for capability in Capability:
        reader: Person = await open_portal(world, capability)
        followed: set[str] = set()
        for page in pages("GET", "/portal"):
            if page.by not in {Capability.VIEW, capability} or "{job_id}" in page.path:
                continue
            answer = await reader.get(of_the_partner(world, page), follow_redirects=True)
            assert "/console/" not in answer.text, page.path
            assert len(answer.text.split("<title>")) == 2
            # One type of the catalogue stands for all of them.
            hrefs = {href for href in re.findall(r'href="(/[^"#]*)"', answer.text) if "/catalogue/" not in href}
            for href in hrefs - followed:
                followed.add(href)
                found = await reader.get(href.replace("&amp;", "&"), follow_redirects=True)
                assert found.status_code == 200, (capability, page.path, href)
            for target in set(re.findall(r'<form[^>]* action="(/[^"]*)"', answer.text)):
                leads_to = [one for one in every if re.fullmatch(re.sub(r"{\w+}", "[^/]+", one.path), target)]
                assert any(one.by in {Capability.VIEW, capability} for one in leads_to), (capability, page.path, target)


async def test_a_partner_gets_404_for_another_partners_ids_and_another_hospitals_on_every_route(
    api: Api, admin: httpx.AsyncClient, somebody: Any, open_portal: Any, world: World
) -> None:
    """Every page and action that names something, of the console by a partner's key and of the portal by a link."""
    own = await make_world(api, admin, api.tenant_id, "Southside")
    foreign = await elsewhere(api)
    scopes = [scope.value for scope in OF_A_SUBSCRIBER]
    by_key = await somebody(*scopes, subscriber_id=ids.parse(ids.SUBSCRIBER, own.subscriber_id))
    by_link = await open_portal(own, *Capability)
    walked = 0
    for person, root in ((by_key, "/console"), (by_link, "/portal")):
        for page in filter(names_something, pages(root=root)):
            is_refused = page.whole_tenant or (page.scope is not None and page.scope not in OF_A_SUBSCRIBER)
            for world_of in (world, foreign):
                answer = await visit(person, page, of_the_partner(world_of, page))
                assert answer.status_code == (403 if is_refused else 404), (page.method, page.path, answer.text)
                walked += 1
        for page in pages("GET", root):
            answer = await person.get(of_the_partner(own, page), follow_redirects=True)
            known = (
                world.subscriber_id,
                world.endpoint_id,
                world.event_id,
                world.delivery_id,
                world.job_id,
                "Northside",
            )
            assert not any(one in answer.text for one in known), page.path
    assert walked > 80
    for path in ("/deliveries?subscriber_id=", "/deliveries?endpoint_id="):
        asked = f"/portal{path}{world.subscriber_id if 'sub' in path else world.endpoint_id}"
        assert world.delivery_id not in (await by_link.get(asked)).text
    for text in (world.delivery_id, world.event_id, world.endpoint_id, world.subscriber_id, world.job_id, world.key_id):
        found = await by_link.post("/portal/search", data={"q": text})
        assert found.headers["location"].startswith("/portal/search"), text
    replay = await by_link.post("/portal/replays/new", data={"endpoint_id": world.endpoint_id, "do": "replay"})
    assert replay.status_code == 404


async def test_another_hospitals_administrator_gets_404_on_every_route(api: Api, somebody: Any, world: World) -> None:
    async with api.database.connection() as connection:
        other = await tenants.make(connection, api.vault, "another hospital")
    person = await somebody("admin", "payload:read", tenant_id=other)
    for page in filter(names_something, pages()):
        answer = await visit(person, page, of_the_partner(world, page))
        assert answer.status_code == 404, (page.method, page.path, text_of(answer.text))


async def elsewhere(api: Api) -> World:
    """A world of another hospital."""
    async with api.database.connection() as connection:
        tenant_id = await tenants.make(connection, api.vault, "yet another hospital")
    await keyring.fill(api.database, api.vault)
    async with api.client(await api.make_key("admin", tenant_id=tenant_id)) as client:
        return await make_world(api, client, tenant_id, "Eastside")


async def test_what_a_link_lets_its_reader_do_is_done_as_by_a_partners_key_and_audited_by_the_link(
    api: Api, open_portal: Any, world: World
) -> None:
    reader: Person = await open_portal(world, *Capability)
    endpoint = f"/portal/endpoints/{world.endpoint_id}"
    tested = await reader.post(f"{endpoint}/test", timeout=30)
    assert tested.status_code == 303
    rotated = await reader.post(f"{endpoint}/rotate", data={"overlap_hours": "1"})
    assert "whsec_" in rotated.text
    again = await reader.post(f"/portal/deliveries/{world.delivery_id}/replay")
    assert again.headers["location"].startswith(f"/portal/deliveries/{id_in(again, ids.DELIVERY)}")
    paused = await reader.post(f"{endpoint}/pause", data={"reason": "certificate change"})
    assert paused.headers["location"] == f"{endpoint}?said=paused"
    theirs = {"url": "https://lab.example.com/more", "slots": "4", "deadline": "15", "event_types": "gateway.*"}
    of_the_gateway = await reader.post(f"/portal/partners/{world.subscriber_id}/endpoints/new", data=theirs)
    assert of_the_gateway.status_code == 422, "the API's rule for partners"
    async with api.database.connection() as connection:
        rows = await connection.fetch("SELECT action FROM audit_log WHERE actor LIKE 'portal:ses_%' ORDER BY sequence")
    assert [row["action"] for row in rows] == [
        "session.begun",
        "endpoint.tested",
        "endpoint.secret_rotated",
        "delivery.replayed",
        "endpoint.paused",
    ]


async def test_no_payload_is_shown_by_a_link(
    api: Api, admin: httpx.AsyncClient, open_portal: Any, world: World
) -> None:
    await admin.patch(f"/v1/endpoints/{world.endpoint_id}", json={"event_types": None})
    async with api.client(await api.make_key("events:write")) as producer:
        await post(producer, "/v1/events", EVENT)
    reader: Person = await open_portal(world, *Capability)
    for page in pages("GET", "/portal"):
        answer = await reader.get(of_the_partner(world, page), follow_redirects=True)
        assert CANARY not in answer.text
        assert "shf_81" not in answer.text
    for path in (f"/events/{world.event_id}/payload", f"/deliveries/{world.delivery_id}/responses"):
        assert (await reader.post(f"/portal{path}", data={"reason": "curious"})).status_code == 404
    found = await reader.post("/portal/search", data={"q": CANARY}, follow_redirects=True)
    assert "patient" in text_of(found.text), "it says that it did not look for patients"


async def test_the_portals_menu_is_narrow_and_each_page_has_a_title_and_the_policy(
    open_portal: Any, world: World
) -> None:
    reader: Person = await open_portal(world, *Capability)
    titles = []
    for page in pages("GET", "/portal"):
        if "{job_id}" in page.path or at(page) == "/partners":
            continue
        answer = await reader.get(of_the_partner(world, page))
        titles += re.findall(r"<title>(.*?)</title>", answer.text)
        assert POLICY.fullmatch(answer.headers["content-security-policy"])
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
    assert len(set(titles)) == len(titles)
    menu = (await reader.see("", root="/portal")).partition('id="menu"')[2].partition("</nav>")[0]
    shown = ["", "/deliveries", "/problems", "/held-keys", "/replays", "/partners", "/catalogue"]
    assert re.findall(r'<a href="/portal([^"]*)"', menu) == shown
    for url in set(re.findall(r'(?:href|src)="(/portal/static/[^"#]*)', await reader.see("", root="/portal"))):
        assert "immutable" in (await reader.get(url)).headers["cache-control"]


async def test_an_operator_sees_what_the_partner_sees_changes_nothing_and_finds_back(
    api: Api, somebody: Any, world: World
) -> None:
    operator: Person = await somebody(*ROLES["operator"])
    assert (await operator.get("/portal/deliveries")).status_code == 303
    begun = await operator.do(f"/partners/{world.subscriber_id}/view")
    assert begun.headers["location"] == "/portal"
    for page in pages(root="/portal"):
        if at(page) in UNBOUND or "{job_id}" in page.path:
            continue
        answer = await visit(operator, page, of_the_partner(world, page))
        if page.by is Capability.VIEW:
            assert answer.status_code in {200, 303}, (page.path, text_of(answer.text))
            assert answer.status_code == 303 or "You see the portal as Northside does" in answer.text
        else:
            assert answer.status_code == 403, page.path
            assert "go back to the console" in answer.text
    await operator.see(f"/deliveries/{world.delivery_id}")  # the console is there meanwhile
    back = await operator.post("/portal/back")
    assert back.headers["location"] == f"/console/partners/{world.subscriber_id}"
    assert (await operator.get("/portal/deliveries")).status_code == 303
    assert (await operator.post("/console/back")).status_code == 404
    actions = [action for action, _ in await audited(api)]
    assert actions[-3:] == ["session.begun", "portal.viewed", "portal.left"]


async def test_a_look_at_the_portal_ends_with_the_viewers_session_and_is_for_those_who_may_see_the_partner(
    somebody: Any, world: World
) -> None:
    operator: Person = await somebody(*ROLES["operator"])
    await operator.do(f"/partners/{world.subscriber_id}/view")
    await operator.see("/deliveries", root="/portal")
    await operator.do("/logout")
    assert (await operator.get("/portal/deliveries")).status_code == 303
    partner = ids.parse(ids.SUBSCRIBER, world.subscriber_id)
    for scopes, bound in ((ROLES["privacy_officer"], {}), (ROLES["partner"], {"subscriber_id": partner})):
        person: Person = await somebody(*scopes, **bound)
        assert (await person.do(f"/partners/{world.subscriber_id}/view")).status_code == 403
    narrow: Person = await somebody("endpoints:read")
    await narrow.do(f"/partners/{world.subscriber_id}/view")
    await narrow.see(f"/endpoints/{world.endpoint_id}", root="/portal")
    await narrow.see("/deliveries", 403, root="/portal")  # no more than they have themselves


async def test_links_with_the_same_scopes_and_other_capabilities_are_not_shown_one_anothers_pages(
    open_portal: Any, world: World
) -> None:
    """What pages ask for by themselves is made once for all who may see the same."""
    shown = []
    for capability in (Capability.REPLAY, Capability.TEST):
        reader: Person = await open_portal(world, capability)
        shown.append((await reader.get("/portal/held-keys", headers={"HX-Request": "true"})).text)
    assert [f"/portal/deliveries/{world.delivery_id}/replay" in text for text in shown] == [True, False]
