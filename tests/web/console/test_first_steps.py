"""Where there is nothing yet: from an empty gateway to the first event, each step a click from the overview."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from typing import Any

import httpx

from tests.support.hospital import Hospital
from tests.support.partner import partner
from tests.web.console.people import Person, pages, text_of
from tests.web.serving import Api
from webhook_gateway.rules.scopes import ROLES


async def first(person: Person, label: str) -> str:
    """Where the overview's step of that label leads."""
    steps = (await person.see("")).partition('class="steps"')[2].partition("</ol>")[0]
    found = re.search(r'(?:href|action)="/console([^"]*)"', steps.partition(label)[2])
    assert found is not None, text_of(f"<main{steps}")
    return unescape(found[1])


def done(page: str) -> int:
    return page.partition('class="steps"')[2].partition("</ol>")[0].count('class="state done"')


async def test_an_empty_gateway_leads_from_step_to_step_until_the_first_event_went_out(
    hospital: Hospital, api: Api, somebody: Any
) -> None:
    async with api.database.connection() as connection:
        await connection.execute("DELETE FROM subscribers")
    person: Person = await somebody("admin")
    assert done(await person.see("")) == 0
    types = {"event_types": "lab_order.*", "content": "thin"}
    made = await person.do(await first(person, "Make a partner"), name="Central laboratory", **types)
    form = made.headers["location"].removeprefix("/console").partition("?")[0]
    assert done(await person.see("")) == 1
    assert await first(person, "Give it an endpoint") == form
    async with partner() as there:
        shown = await person.do(form, url=there.url(), slots="4", deadline="15")
        assert shown.status_code == 201
        assert done(await person.see("")) == 2
        async with hospital.worker():
            tested = await person.do(await first(person, "Send a test"))
            page = await person.see(tested.headers["location"].removeprefix("/console"))
            assert "Delivered" in text_of(page)
            assert done(await person.see("")) == 3
            form = await first(person, "Post an event")
            assert re.search(r'value="producer" required checked', await person.see(form))
            key = await person.do(form.partition("?")[0], name="laboratory system", role="producer")
            assert "/console/catalogue" in key.text
            secret = re.search(r"whk_\w+", key.text)
            assert secret is not None
            page = await person.see("/catalogue/lab_order.placed")
            command = shlex.split(unescape(page.partition('data-copy="curl')[2].partition('"')[0]))
            headers = {"Authorization": f"Bearer {secret[0]}", "Content-Type": "application/json"}
            async with httpx.AsyncClient(trust_env=False, verify=False) as producer:
                body = command[command.index("-d") + 1]
                assert (await producer.post(command[0], content=body, headers=headers)).status_code == 202
            await hospital.until("SELECT FROM finished_deliveries WHERE type = 'lab_order.placed' AND reason IS NULL")
        assert {json.loads(one.body)["type"] for one in there.received} >= {"lab_order.placed"}
    assert "Begin here" not in await person.see("")


async def test_every_page_says_what_to_do_where_there_is_nothing_yet(somebody: Any) -> None:
    person: Person = await somebody("admin", "payload:read", "patients:search")
    for page in pages("GET"):
        if "{" in page.path or page.path.endswith("/new"):
            continue
        shown = text_of((await person.get(page.path)).text)
        assert "Traceback" not in shown
        assert len(shown) > 100, (page.path, shown)
    for path, told in {
        "/partners": "No partners yet",
        "/deliveries": "No deliveries here",
        "/events": "No event",
        "/problems": "Nothing fails",
        "/held-keys": "Nothing is held",
        "/replays": "No replay yet",
    }.items():
        assert told in text_of(await person.see(path))


async def test_whoever_may_see_next_to_nothing_is_told_what_that_takes(somebody: Any) -> None:
    for role in ("producer", "operator", "auditor", "privacy_officer", "endpoint_admin"):
        person: Person = await somebody(*ROLES[role])
        shown = text_of(await person.see(""))
        blank = not {"deliveries:read", "endpoints:read"} & ROLES[role]
        assert ("Nothing to look at with this key" in shown) is blank, role
        if role == "producer":
            assert "deliveries:read" in shown
        refused = await person.get("/console/keys")
        assert refused.status_code == 403
        assert "It needs the scope admin" in text_of(refused.text)
        assert 'href="/console"' in refused.text, "and there is a way on"
