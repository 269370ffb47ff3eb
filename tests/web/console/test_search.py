"""The box in the head: partners by their names, and what it says where nothing is found."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.web.console.people import Person, text_of
from tests.web.console.test_actions import EVENT
from tests.web.world import World, post
from webhook_gateway.rules import ids

UNKNOWN = "pat-4711"


@pytest.fixture
async def others(admin: httpx.AsyncClient, world: World) -> list[str]:
    return [(await post(admin, "/v1/subscribers", {"name": name}))["id"] for name in ("South", "Southside", "100 %_")]


def box(html: str) -> str:
    return html.partition('class="find"')[2].partition("</form>")[0]


@pytest.mark.parametrize("text", ["Northside", "northside", "orths", " NORTH "])
async def test_a_partners_name_or_a_part_of_it_that_no_other_has_leads_to_its_page(
    somebody: Any, world: World, others: list[str], text: str
) -> None:
    person: Person = await somebody("admin")
    answer = await person.do("/search", q=text)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/console/partners/{world.subscriber_id}"


async def test_a_whole_name_leads_to_its_partner_though_others_have_it_in_theirs(
    somebody: Any, others: list[str]
) -> None:
    person: Person = await somebody("admin")
    assert (await person.do("/search", q="south")).headers["location"] == f"/console/partners/{others[0]}"
    assert (await person.do("/search", q="%_")).headers["location"] == f"/console/partners/{others[2]}"


async def test_a_part_of_several_names_leads_to_these_partners_without_the_text_in_the_url(
    somebody: Any, world: World, others: list[str]
) -> None:
    person: Person = await somebody("admin")
    answer = await person.do("/search", q="th")
    listed = "%2C".join([r"sub_\w{26}"] * 3)
    assert re.fullmatch(rf"/console/partners\?among={listed}", answer.headers["location"])
    page = (await person.get(answer.headers["location"])).text
    for name, seen in (("Northside", True), ("South", True), ("Southside", True), ("100 %_", False)):
        assert (f">{name}</a>" in page) is seen, name
    assert "what you looked for" in text_of(page)
    await person.see("/partners?among=sub_none", 404)


async def test_a_partners_key_finds_no_other_partner_and_the_portal_none(
    somebody: Any, world: World, others: list[str]
) -> None:
    scopes = "endpoints:read", "deliveries:read"
    partner: Person = await somebody(*scopes, subscriber_id=ids.parse(ids.SUBSCRIBER, others[1]))
    assert (await partner.do("/search", q="side")).headers["location"] == f"/console/partners/{others[1]}"
    assert "/search" in (await partner.do("/search", q="Northside")).headers["location"]
    assert (await partner.get(f"/console/partners?among={world.subscriber_id}")).text.count("Northside") == 0
    operator: Person = await somebody(*scopes)
    await operator.do(f"/partners/{others[1]}/view")
    looked = await operator.post("/portal/search", data={"q": "Southside"})
    assert looked.headers["location"].startswith("/portal/search")


async def test_a_name_that_is_also_a_key_is_shown_as_both(
    admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    await admin.patch(f"/v1/endpoints/{world.endpoint_id}", json={"event_types": None})
    event = await post(admin, "/v1/events", EVENT | {"idempotency_key": "Northside"})
    person: Person = await somebody("admin")
    found = await person.do("/search", q="Northside")
    assert found.status_code == 200
    assert event["id"] in found.text
    assert f'href="/console/partners/{world.subscriber_id}"' in found.text


async def test_a_search_that_finds_nothing_leads_to_a_page_that_does_not_name_what_was_looked_for(
    somebody: Any, world: World
) -> None:
    for scopes, told in (
        (("deliveries:read",), "It was not looked for as ordering key, subject, patient"),
        (("deliveries:read", "patients:search"), None),
    ):
        person: Person = await somebody(*scopes)
        answer = await person.do("/search", q=UNKNOWN)
        assert answer.status_code == 303, "going back sends no form again"
        assert UNKNOWN not in answer.headers["location"]
        page = await person.get(answer.headers["location"])
        assert page.status_code == 200
        assert UNKNOWN not in page.text
        assert "Nothing here is called what you looked for" in text_of(page.text)
        assert ("It was not looked for" in text_of(page.text)) is (told is not None)
        assert told is None or told in text_of(page.text)
    narrow = await person.do("/search", q=world.endpoint_id)
    assert "not looked for as endpoint" in text_of((await person.get(narrow.headers["location"])).text)
    assert "nonsense" not in text_of(await person.see("/search?without=nonsense"))


@pytest.mark.parametrize("text", ["", "   ", "x" * 257])
async def test_what_can_not_be_looked_for_leads_back_with_a_plain_sentence(
    somebody: Any, world: World, text: str
) -> None:
    person: Person = await somebody("admin")
    for came_from, to in (
        ("/console/deliveries?state=dead", "/console/deliveries?state=dead&said=blank"),
        ("/console/keys", "/console/keys?said=blank"),
        ("https://evil.example/", "/console?said=blank"),
    ):
        answer = await person.do("/search", q=text, to=came_from)
        assert (answer.status_code, answer.headers["location"]) == (303, to)
        assert "Nothing was looked for. Give an id" in text_of((await person.get(to)).text)
    shown = await person.see("/deliveries?state=dead&said=blank")
    assert 'name="to" value="/console/deliveries?state=dead"' in box(shown), "it is not said forever"


async def test_the_box_offers_only_what_one_may_look_for(somebody: Any, world: World) -> None:
    for scopes, offered in (
        (["deliveries:read"], set()),
        (["deliveries:read", "endpoints:read"], {"endpoint", "partner", "name"}),
        (["deliveries:read", "patients:search"], {"patient"}),
        (["admin"], {"endpoint", "partner", "name"}),
        (["admin", "patients:search"], {"endpoint", "partner", "name", "patient"}),
    ):
        person: Person = await somebody(*scopes)
        html = box(await person.see("/deliveries"))
        for text in re.findall(r"<label[^>]*>([^<]*)<", html) + re.findall(r'placeholder="([^"]*)"', html):
            assert set(re.findall(r"\w+", text)) & {"endpoint", "partner", "name", "patient"} == offered, (scopes, text)
