"""What a page says agrees with what has happened: after a test, of what failed, of what was never sent."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.support.hospital import Hospital
from tests.support.partner import partner, status
from tests.support.rows import EVERYTHING, store_attempts, store_finished
from tests.web.console.people import Person, form_of, id_in, pages, text_of
from tests.web.console.test_pages import path_of
from tests.web.serving import Api
from tests.web.world import World, make_world, post
from webhook_gateway.rules import ids
from webhook_gateway.store.reports import COUNTED
from webhook_gateway.web.console.pages import endpoints as page_of_endpoints

REPLAY = "/replays/new"
MANY_OPEN = """
INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, due_at)
SELECT gen_random_uuid(), tenant_id, endpoint_id, event_id, type, n, due_at
FROM deliveries, generate_series(1, $1::int) AS n
"""


async def main_of(person: Person, path: str) -> str:
    return (await person.see(path)).partition("<main")[2].partition("</main>")[0]


def link(html: str, beginning: str) -> str:
    """Where the page's first link that begins so leads, below the console."""
    found = re.search(rf'href="/console({re.escape(beginning)}[^"]*)"', html)
    assert found is not None, html
    return found[1].replace("&amp;", "&")


async def test_a_test_that_failed_is_told_as_one_with_what_helps_and_counts_nowhere(
    hospital: Hospital, api: Api, admin: httpx.AsyncClient, somebody: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_of_endpoints, "TESTED_WITHIN", 20)
    person: Person = await somebody("admin")
    async with partner(status(401)) as there, hospital.worker():
        northside = await post(admin, "/v1/subscribers", {"name": "Northside", **EVERYTHING})
        new = {"subscriber_id": northside["id"], "url": there.url(), "event_types": ["staff_shift.*"]}
        endpoint = (await post(admin, "/v1/endpoints", new))["id"]
        shown = text_of(await person.see(f"/endpoints/{endpoint}"))
        assert "Nothing was sent to it yet." in shown
        assert "nothing was sent yet" in shown
        for wrong in ("It takes what", "0 attempts", "90 days"):
            assert wrong not in shown

        tested = await person.do(f"/endpoints/{endpoint}/test")
        assert "said" not in tested.headers["location"]
        shown = text_of(await person.see(tested.headers["location"].removeprefix("/console")))
        assert re.search(r"The test failed [\d:]+ UTC: it met 401\. A test is attempted once\.", shown)
        assert re.search(r"give it the secret made at [\d:]+ UTC, if it does not hold that one yet, then send", shown)
        assert "Sent as a test" in shown
        for wrong in ("has arrived", "on its way", "no attempts left", "Why again"):
            assert wrong not in shown

        assert "Nothing but tests was sent to it yet." in text_of(await person.see(f"/endpoints/{endpoint}"))
        shown = text_of(await person.see(f"/deliveries?endpoint_id={endpoint}"))
        assert "its one attempt failed" in shown
        assert "attempts exhausted" not in shown
        assert "Died in 24 hours 0" in text_of(await person.see(""))
        assert (await admin.get("/v1/stats")).json()["dead_24h"] == 0
        counted = text_of((await person.do(REPLAY, endpoint_id=endpoint, do="count")).text)
        assert "0 deliveries would be sent again. Left out are tests" in counted

        tested = await person.do(f"/endpoints/{endpoint}/test")
        shown = text_of(await person.see(tested.headers["location"].removeprefix("/console")))
        assert "The test has arrived." in shown
        assert "at the first attempt" in shown
        again = await person.do(f"/deliveries/{id_in(tested, ids.DELIVERY)}/replay")
        shown = text_of(await person.see(f"/deliveries/{id_in(again, ids.DELIVERY)}"))
        assert "Sent as a test" in shown
        assert "Why again" not in shown


async def test_of_a_test_that_nobody_has_sent_yet_no_result_is_told(
    somebody: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_of_endpoints, "TESTED_WITHIN", 0)
    person: Person = await somebody("admin")
    tested = await person.do(f"/endpoints/{world.endpoint_id}/test")
    shown = text_of(await person.see(tested.headers["location"].removeprefix("/console")))
    assert "The test was queued: what becomes of it stands below." in shown
    assert "arrived" not in shown


async def test_an_endpoint_that_has_had_something_is_not_said_to_be_new(api: Api, somebody: Any, world: World) -> None:
    person: Person = await somebody("admin")
    shown = text_of(await person.see(f"/endpoints/{world.endpoint_id}"))
    assert "no success yet" in shown
    async with api.database.connection() as connection:
        about = ids.parse(ids.ENDPOINT, world.endpoint_id), ids.parse(ids.DELIVERY, world.delivery_id)
        await store_attempts(connection, api.tenant_id, *about, outcome="accepted", status=200)
    shown = text_of(await person.see(f"/endpoints/{world.endpoint_id}"))
    assert "It takes what is sent to it." in shown
    assert "last success" in shown


async def test_what_is_dead_says_what_helps_until_it_goes_out_again(somebody: Any, world: World) -> None:
    person: Person = await somebody("admin")
    path = f"/deliveries/{world.delivery_id}"
    assert "The partner's server failed: ask what its log says" in text_of(await person.see(path)).replace("&#39;", "'")
    assert (await person.do(f"{path}/replay")).status_code == 303
    assert "ask what its log says" not in text_of(await person.see(path))


async def test_what_a_page_said_is_not_said_again_where_its_form_leads(somebody: Any, world: World) -> None:
    person: Person = await somebody("admin")
    path = f"/partners/{world.subscriber_id}/endpoints/new?said=partner"
    assert "The partner is made." in text_of(await person.see(path))
    made = await person.do(path, url="https://lab.example.com/other", slots="4", deadline="15")
    assert made.status_code == 201
    assert "whsec_" in made.text
    assert "The partner is made." not in text_of(made.text)


async def test_a_replay_names_its_partner_and_leads_to_what_it_made(
    api: Api, admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    other = await make_world(api, admin, api.tenant_id, "Southside")
    person: Person = await somebody("admin")
    form = form_of(await person.see(f"{REPLAY}?subscriber_id={world.subscriber_id}"), REPLAY)
    counted = await person.do(REPLAY, **form, do="count")
    assert re.search(r'<ol class="crumbs"><li><a href="/console/replays">Replays</a>', counted.text)
    made = await person.do(REPLAY, **form_of(counted.text, REPLAY), do="confirm")
    shown = await main_of(person, f"/replays/{id_in(made, ids.JOB)}")
    assert f'<a href="/console/partners/{world.subscriber_id}">Northside</a>' in shown
    assert "all endpoints" not in shown
    listed = link(shown, "/deliveries?")
    asked = parse_qs(urlsplit(listed).query)
    assert asked["subscriber_id"] == [world.subscriber_id]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d", asked["since"][0])
    rows = await main_of(person, listed)
    assert world.open_delivery_id in rows, "made in the same minute, or the one before"
    assert other.open_delivery_id not in rows


@pytest.mark.parametrize("kind", ["partners", "endpoints"])
async def test_what_a_partner_missed_is_a_click_away_from_its_page(somebody: Any, world: World, kind: str) -> None:
    person: Person = await somebody("admin")
    name = "subscriber_id" if kind == "partners" else "endpoint_id"
    shown = await main_of(person, f"/{kind}/{getattr(world, name)}")
    assert "Send again what it missed" in shown
    form = form_of(await person.see(link(shown, f"{REPLAY}?")), REPLAY)
    assert form[name] == getattr(world, name)
    assert form["state"] == "dead"


async def test_why_a_delivery_waits_is_said_once_with_one_time(somebody: Any, world: World) -> None:
    person: Person = await somebody("admin")
    shown = await main_of(person, f"/deliveries/{world.open_delivery_id}")
    about = text_of("<main" + shown.partition('class="note')[2].partition("What it is")[0])
    assert about.count("attempt 2 of 10") == 1
    assert len(re.findall(r"\bin [\d,]+ (?:day|hour|minute|second)s?\b", about)) == 1
    assert "That is at 01 Jan 2100 00:00:00 UTC" in about


async def test_pages_speak_of_partners(api: Api, admin: httpx.AsyncClient, somebody: Any, world: World) -> None:
    southside = await post(admin, "/v1/subscribers", {"name": "Southside"})
    await post(admin, "/v1/endpoints", {"subscriber_id": southside["id"], "url": "https://south.example.com/in"})
    person: Person = await somebody("admin", "payload:read", "patients:search")
    for page in pages("GET"):
        if "/audit" not in page.path and not page.path.endswith(("/contract", "/preview")):  # the API's own words
            shown = await person.get(path_of(page, world))
            assert "subscriber" not in text_of(shown.text).lower(), page.path
    assert "Its partner may not have events of this type." in await person.see(f"/events/{world.event_id}")
    missing = await person.see(f"/partners/{world.subscriber_id[:-4]}0000", 404)
    assert "There is no such partner" in missing
    taken = await person.do("/partners/new", name="Southside", content="thin")
    assert "Another partner has this name" in taken.text
    assert f'<a href="/console/partners/{southside["id"]}">Southside</a>' in taken.text
    refused = await admin.post("/v1/subscribers", json={"name": "Southside"})
    assert refused.json()["detail"].startswith("Another subscriber has this name")


async def test_every_page_that_is_kept_current_can_be_held_still(somebody: Any, world: World) -> None:
    person: Person = await somebody("admin", "payload:read")
    for page in pages("GET"):
        shown = await person.get(path_of(page, world))
        assert ("data-pauses" in shown.text) is ('id="live"' in shown.text), page.path


async def test_a_sum_of_what_was_counted_no_further_is_said_to_be_at_least_that(
    api: Api, somebody: Any, world: World
) -> None:
    person: Person = await somebody("admin")
    assert "at least" not in text_of(await person.see(""))
    async with api.database.connection() as connection:
        await connection.execute(MANY_OPEN, COUNTED)
    assert f"On their way at least {COUNTED:,}" in text_of(await person.see(""))


async def test_of_what_died_tests_are_left_out(api: Api, admin: httpx.AsyncClient, somebody: Any, world: World) -> None:
    async with api.database.connection() as connection:
        about = ids.parse(ids.ENDPOINT, world.endpoint_id), ids.parse(ids.EVENT, world.event_id)
        tested = await store_finished(connection, api.tenant_id, *about, "dead")
        await connection.execute("UPDATE finished_deliveries SET reason = 'test' WHERE id = $1", tested)
    assert (await admin.get("/v1/stats")).json()["dead_24h"] == 1
    person: Person = await somebody("admin")
    assert "Died in 24 hours 1 Which ones ; tests and what was sent again don't count" in text_of(await person.see(""))
