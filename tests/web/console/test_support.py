"""What people who support partners look for: the answer to "we did not get it", and what lies behind it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import httpx
import pytest

from tests.support.rows import store_open
from tests.web.console.people import Person, text_of
from tests.web.console.test_actions import EVENT, audited
from tests.web.serving import Api
from tests.web.world import HELD, World, post
from webhook_gateway.operations import pause
from webhook_gateway.rules import ids

KEY = {
    "idempotency_key": "key-0815",
    "ordering_key": "order-0815",
    "subject": "subject-0815",
    "patient": "patient-0815",
}


async def two_requests(person: Person, text: str) -> str:
    """From the box in the head to the page that the text leads to: the answer, and the first thing that it names."""
    found = await person.do("/search", q=text)
    if found.status_code == 303:
        leads_to = found.headers["location"]
    else:
        leads_to = re.findall(r'<th scope="row"><a class="mono" href="([^"]*)"', found.text)[0]
    answer = await person.get(leads_to)
    assert answer.status_code == 200, (text, leads_to)
    return answer.text


async def test_any_id_and_any_key_leads_to_the_answer_in_two_requests(
    api: Api, admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    await admin.patch(f"/v1/endpoints/{world.endpoint_id}", json={"event_types": None})
    event = (await post(admin, "/v1/events", EVENT | KEY))["id"]
    person: Person = await somebody("admin", "patients:search")
    answers = dict.fromkeys(KEY.values(), "in the outbox") | {
        event: "in the outbox",
        world.event_id: "Next try",
        world.delivery_id: "Given up",
        world.open_delivery_id: "Next try",
        world.endpoint_id: "How it fares",
        world.subscriber_id: "What it may have",
        world.job_id: "queued again",
        world.key_id: "one of theirs",
    }
    for text, answer in answers.items():
        assert answer in text_of(await two_requests(person, text)), text


async def test_of_an_event_that_is_no_longer_kept_the_page_says_what_became_of_it(
    api: Api, somebody: Any, world: World
) -> None:
    async with api.database.connection() as connection:
        await connection.execute("DELETE FROM events")
    person: Person = await somebody("admin", "payload:read")
    page = await two_requests(person, world.event_id)
    assert "no longer kept" in text_of(page)
    assert "Next try" in text_of(page)
    assert "Read its body" not in page
    await person.see(f"/events/{ids.EVENT}_01h455vb4pex5vsknk084sn02q", 404)


async def test_the_ids_in_a_sentence_lead_to_their_pages(api: Api, somebody: Any, world: World) -> None:
    person: Person = await somebody("admin")
    await person.do(f"/deliveries/{world.delivery_id}/replay")
    page = await person.see(f"/deliveries/{world.delivery_id}")
    (again,) = re.findall(r'<a href="/console/deliveries/(dlv_\w+)">\1</a> sends it again', page)
    assert "replay" in text_of(await person.see(f"/deliveries/{again}"))


async def test_what_was_sent_is_shown_after_a_reason_with_what_repeats_it(
    api: Api, admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    path = f"/deliveries/{world.delivery_id}/sent"
    boss: Person = await somebody("admin")
    assert "Read what was sent" not in await boss.see(f"/deliveries/{world.delivery_id}")
    assert (await boss.do(path, reason="curious")).status_code == 403
    officer: Person = await somebody("payload:read", "deliveries:read")
    refused = await officer.do(path, reason="")
    assert refused.status_code == 422
    assert re.search(r'<details class="asks" open>\s*<summary>Read what was sent', refused.text), "it is where it was"
    before = await officer.do(path, reason="complaint 17 of the partner")
    assert "was not written down" in text_of(before.text)
    waiting = await officer.do(path.replace(world.delivery_id, world.open_delivery_id), reason="complaint 17")
    assert "would go out" in text_of(waiting.text)
    payload = await officer.get(f"/console/deliveries/{world.delivery_id}")
    assert "shf_81" not in payload.text
    async with api.client(await api.make_key("payload:read")) as client:
        body = (await client.get(f"/v1/events/{world.event_id}/payload")).content
    for sent, told in (
        (body, "These very bytes went out"),
        (b"other", "had other bytes"),
        (b"", "No hash was written"),
    ):
        hashed = api.vault.digest_of_body(api.tenant_id, hashlib.sha256(sent).digest()) if sent else b""
        async with api.database.connection() as connection:
            await connection.execute("UPDATE attempts SET revision = 1, body_digest = $1", hashed)
        shown = await officer.do(path, reason="complaint 17 of the partner")
        assert told in text_of(shown.text)
    assert "shf_81" in shown.text
    assert shown.headers["cache-control"] == "no-store"
    command = re.search(r'data-copy="(curl [^"]*)"', shown.text)
    assert command is not None
    assert "https://lab.example.com/in" in command[1]
    assert f"webhook-id: {world.event_id}" in command[1]
    assert "$SIGNATURE" in command[1]
    action, noted = (await audited(api))[-1]
    assert (action, noted["reason"]) == ("payload.read", "complaint 17 of the partner")


async def test_held_keys_say_how_many_wait_and_are_resumed_once_the_first_has_arrived(
    api: Api, somebody: Any, world: World
) -> None:
    async with api.database.connection() as connection:
        about = ids.parse(ids.ENDPOINT, world.endpoint_id), ids.parse(ids.EVENT, world.event_id)
        for sequence in (11, 12):
            await store_open(connection, api.tenant_id, *about, due_at=None, ordering_key=HELD, sequence=sequence)
    person: Person = await somebody("admin")
    page = await person.see("/held-keys")
    assert '<td class="number">2</td>' in page
    assert "Skip it" in page
    assert "Resume" not in page
    await person.do(f"/deliveries/{world.delivery_id}/replay")
    page = await person.see("/held-keys")
    assert "Sent again as" in text_of(page)
    assert "Send it again" not in page
    assert "Resume" not in page, "it has not arrived yet"
    async with api.database.connection() as connection:
        await connection.execute(
            "INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, state,"
            " created_at) SELECT replayed_as, tenant_id, endpoint_id, event_id, type, 3, 1, 'delivered', now()"
            " FROM finished_deliveries"
            " WHERE replayed_as IS NOT NULL"
        )
    assert "Resume" in await person.see("/held-keys")


async def test_a_partner_hears_of_a_held_key_and_not_of_what_a_filter_kept_back(
    api: Api, somebody: Any, world: World
) -> None:
    own = {"subscriber_id": ids.parse(ids.SUBSCRIBER, world.subscriber_id)}
    partner: Person = await somebody("endpoints:read", "deliveries:read", "deliveries:write", **own)
    assert world.delivery_id in await partner.see("/held-keys")
    async with api.database.connection() as connection:
        await connection.execute("UPDATE finished_deliveries SET state_reason = 'not_wanted'")
    page = await partner.see("/held-keys")
    assert "Skip it" in page
    for kept_back in (world.delivery_id, world.event_id, "staff_shift"):
        assert kept_back not in page
    boss: Person = await somebody("admin")
    assert world.delivery_id in await boss.see("/held-keys")


async def test_a_filter_is_tried_on_recent_events_before_anything_is_saved(
    api: Api, somebody: Any, world: World
) -> None:
    boss: Person = await somebody("admin")
    place, edit = f"/endpoints/{world.endpoint_id}/filter", f"/endpoints/{world.endpoint_id}/edit"
    assert "Try a filter" not in await boss.see(f"/endpoints/{world.endpoint_id}")
    assert (await boss.do(place, filter='{"staff_id": ["st_19"]}')).status_code == 403
    person: Person = await somebody("admin", "payload:read")
    assert "Try a filter" in await person.see(f"/endpoints/{world.endpoint_id}")
    before = {"url": "https://lab.example.com/in", "slots": "10", "deadline": "15", "event_types": "staff_shift.*"}
    new = f"/partners/{world.subscriber_id}/endpoints/new"
    for wanted, matched in (("st_19", 1), ("st_20", 0)):
        given = f'{{"staff_id": ["{wanted}"]}}'
        for path, form in ((place, {}), (edit, before | {"do": "filter"}), (new, before | {"do": "filter"})):
            tried = await person.do(path, **form, filter=given)
            assert tried.status_code == 200, text_of(tried.text)
            assert f"{matched} of the latest 1 events" in text_of(tried.text), path
            assert wanted in tried.text, "what was typed is still there"
    assert (await person.do(place, filter="{")).status_code == 422
    actions = [action for action, _ in await audited(api)]
    assert actions[-6:] == ["filter.previewed"] * 6


async def test_a_new_endpoint_is_previewed_before_it_is_made(
    admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    person: Person = await somebody("admin")
    new = f"/partners/{world.subscriber_id}/endpoints/new"
    form = {"url": "https://lab.example.com/in", "event_types": "staff_shift.*", "content": "thin"}
    shown = await person.do(new, **form, do="preview")
    assert "What the partner would get" in shown.text
    assert "staff_shift." in shown.text
    assert len((await admin.get("/v1/endpoints")).json()["items"]) == 1


async def test_the_overview_says_that_sending_is_paused_and_at_whom_what_fails(
    api: Api, somebody: Any, world: World
) -> None:
    person: Person = await somebody("admin")
    page = text_of(await person.see(""))
    assert "Northside: rejected 503" in page
    await pause.pause_all(api.database, "the database is moved")
    page = text_of(await person.see(""))
    assert "the database is moved" in page
    assert "None alive" not in page


@pytest.mark.parametrize("path", ["/deliveries/{delivery_id}/cancel", "/endpoints/{endpoint_id}/pause"])
async def test_a_page_that_a_form_left_is_not_asked_for_again(somebody: Any, world: World, path: str) -> None:
    person: Person = await somebody("admin")
    refused = await person.do(world.path(path), reason="two\nlines")
    assert refused.status_code in (409, 422)
    assert 'hx-get="' not in refused.text
