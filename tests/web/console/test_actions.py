"""What people do at the console: the use cases of the API, with their rules, their refusals and their audit."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.web.console.people import Person, form_of, id_in, pages, text_of
from tests.web.console.test_pages import path_of
from tests.web.serving import Api
from tests.web.world import World, post
from webhook_gateway.rules import ids

CANARY = "zzcanary-4711"
EVENT = {
    "type": "lab_order.placed",
    "data": {"order_id": CANARY, "patient_id": CANARY, "ordering_practitioner_id": CANARY, "priority": "stat"},
    "subject": CANARY,
    "ordering_key": CANARY,
    "idempotency_key": CANARY,
    "patient": CANARY,
}


async def audited(api: Api) -> list[tuple[str, Any]]:
    async with api.database.connection() as connection:
        rows = await connection.fetch("SELECT action, after FROM audit_log ORDER BY sequence")
    return [(row["action"], json.loads(row["after"] or "null")) for row in rows]


async def test_a_partner_and_its_endpoint_are_made_and_its_secret_is_shown_once(api: Api, somebody: Any) -> None:
    person: Person = await somebody("admin")
    assert "Begin here" in await person.see("")
    made = await person.do(
        "/partners/new", name="Central laboratory", external_id="lab_3", event_types="lab_order.*", content="thin"
    )
    partner = id_in(made, ids.SUBSCRIBER)
    shown = await person.do(
        f"/partners/{partner}/endpoints/new", url="https://lab.example.com/in", slots="4", deadline="15"
    )
    assert shown.status_code == 201
    assert "whsec_" in shown.text
    endpoint = id_in(shown, ids.ENDPOINT)
    page = await person.see(f"/endpoints/{endpoint}")
    assert "whsec_" not in page
    assert "lab_order.*" in page
    rotated = await person.do(f"/endpoints/{endpoint}/rotate", overlap_hours="1")
    assert "whsec_" in rotated.text
    actions = [action for action, _ in await audited(api)]
    assert actions[1:] == ["subscriber.created", "endpoint.created", "endpoint.secret_rotated"]


async def test_a_form_that_is_refused_is_shown_again_with_what_is_wrong(somebody: Any, world: World) -> None:
    person: Person = await somebody("admin")
    form = f"/partners/{world.subscriber_id}/endpoints/new"
    refused = await person.do(form, url="http://10.0.0.1/", event_types="no_such.type", slots="many", deadline="15")
    assert refused.status_code == 422
    assert 'aria-invalid="true"' in refused.text
    refused = await person.do(form, url="ftp://x", event_types="no_such.type", slots="4", deadline="15")
    assert refused.status_code == 422
    assert "no_such.type" in refused.text, "what was typed is still there"
    taken = await person.do("/partners/new", name="Northside", content="thin")
    assert taken.status_code == 409
    assert "Another partner has this name" in text_of(taken.text)


async def test_a_change_says_only_what_was_changed_and_a_preview_changes_nothing(
    api: Api, somebody: Any, world: World
) -> None:
    person: Person = await somebody("admin")
    path = f"/endpoints/{world.endpoint_id}/edit"
    as_it_is = {"url": "https://lab.example.com/in", "event_types": "staff_shift.*", "slots": "10", "deadline": "15.0"}
    before = len(await audited(api))
    preview = await person.do(path, **as_it_is, content="thin", ordering="relaxed", do="preview")
    assert preview.status_code == 200
    assert "What the partner would get" in preview.text
    assert len(await audited(api)) == before
    changed = await person.do(path, **as_it_is | {"slots": "3"}, ordering="relaxed", do="save")
    assert changed.status_code == 303
    assert (await audited(api))[-1] == ("endpoint.changed", {"slots": 3})


async def test_an_endpoint_is_paused_with_a_reason_and_resumed(somebody: Any, world: World) -> None:
    person: Person = await somebody("admin")
    paused = await person.do(f"/endpoints/{world.endpoint_id}/pause", reason="certificate change")
    assert paused.status_code == 303
    page = text_of(await person.see(f"/endpoints/{world.endpoint_id}?said=paused"))
    assert "certificate change" in page
    assert "its deliveries wait" in page
    assert (await person.do(f"/endpoints/{world.endpoint_id}/resume")).status_code == 303
    assert "certificate change" not in await person.see(f"/endpoints/{world.endpoint_id}")


@pytest.mark.parametrize("of_the_partner", [False, True])
async def test_what_can_not_be_taken_back_is_typed(somebody: Any, world: World, of_the_partner: bool) -> None:
    person: Person = await somebody("admin")
    endpoint, partner = f"/endpoints/{world.endpoint_id}", f"/partners/{world.subscriber_id}"
    path, word = (partner, "Northside") if of_the_partner else (endpoint, "delete")
    assert (await person.do(f"{path}/delete", typed="yes")).status_code == 422
    await person.see(path)
    assert (await person.do(f"{path}/delete", typed=word)).status_code == 303
    await person.see(path, 404)
    await person.see(endpoint, 404)  # they go with their partner


async def test_a_delivery_is_sent_again_given_up_and_refused_as_the_api_does(somebody: Any, world: World) -> None:
    person: Person = await somebody("admin")
    again = await person.do(f"/deliveries/{world.delivery_id}/replay")
    assert id_in(again, ids.DELIVERY) != world.delivery_id
    refused = await person.do(f"/deliveries/{world.delivery_id}/cancel")
    assert refused.status_code == 409
    assert "The delivery has ended already." in text_of(refused.text)
    assert (await person.do(f"/deliveries/{world.open_delivery_id}/cancel")).status_code == 303
    assert "cancelled" in text_of(await person.see(f"/deliveries/{world.open_delivery_id}"))


async def test_a_replay_is_counted_first_and_made_when_it_is_confirmed(somebody: Any, world: World) -> None:
    person: Person = await somebody("admin")
    form = {"endpoint_id": world.endpoint_id, "state": "dead"}
    counted = await person.do("/replays/new", **form, do="count")
    assert "1 delivery would be sent again" in text_of(counted.text)
    made = await person.do("/replays/new", **form_of(counted.text, "/replays/new"), do="confirm")
    assert "of 1 queued again" in text_of(await person.see(f"/replays/{id_in(made, ids.JOB)}"))


async def test_a_held_key_goes_on(somebody: Any, world: World) -> None:
    person: Person = await somebody("admin")
    assert world.delivery_id in await person.see("/held-keys")
    released = await person.do(f"/endpoints/{world.endpoint_id}/held-keys/{world.ordering_key}/release")
    assert released.status_code == 303
    assert world.delivery_id not in await person.see("/held-keys")


async def test_a_key_is_made_shown_once_and_revoked(somebody: Any) -> None:
    person: Person = await somebody("admin")
    made = await person.do("/keys/new", name="night shift", role="operator", days="30")
    assert made.status_code == 201
    assert "whk_" in made.text
    listed = (await person.see("/keys")).partition("night shift")[2]
    key = listed.partition("/console/keys/")[2].partition("/")[0]
    assert (await person.do(f"/keys/{key}/revoke")).status_code == 303
    assert "revoked" in text_of(await person.see("/keys"))


@pytest.mark.parametrize("number", ["inf", "-inf", "nan", "1e400", "-1e300", "9" * 400, "9" * 5_000, "x"])
async def test_a_number_that_is_none_or_beyond_use_is_refused(somebody: Any, world: World, number: str) -> None:
    person: Person = await somebody("admin")
    endpoint = f"/endpoints/{world.endpoint_id}"
    for form, given in (
        (f"{endpoint}/rotate", {"overlap_hours": number}),
        (f"{endpoint}/edit", {"url": "https://lab.example.com/in", "slots": "4", "deadline": number}),
        ("/keys/new", {"name": "night shift", "role": "operator", "days": number}),
    ):
        refused = await person.do(form, **given)
        assert refused.status_code == 422, form
        assert "Give a number" in text_of(refused.text)


async def test_nobody_grants_at_the_console_what_they_do_not_hold(somebody: Any) -> None:
    person: Person = await somebody("admin")
    refused = await person.do("/keys/new", name="curious", role="privacy_officer")
    assert refused.status_code == 403
    assert "payload:read" in text_of(refused.text)


async def test_the_box_in_the_head_leads_to_what_an_id_names(somebody: Any, world: World) -> None:
    person: Person = await somebody("admin")
    for kind, text in (
        ("deliveries", world.delivery_id),
        ("events", world.event_id),
        ("partners", world.subscriber_id),
    ):
        answer = await person.do("/search", q=text)
        assert answer.headers["location"] == f"/console/{kind}/{text}"
    nothing = await person.do("/search", q="dlv_nothing")
    assert nothing.headers["location"].startswith("/console/search")


async def test_a_payload_is_shown_after_a_reason_which_is_audited(api: Api, somebody: Any, world: World) -> None:
    boss: Person = await somebody("admin")
    assert (await boss.do(f"/events/{world.event_id}/payload", reason="curious")).status_code == 403
    officer: Person = await somebody("payload:read", "deliveries:read")
    path = f"/events/{world.event_id}/payload"
    for reason in ("", "two\nlines"):
        assert (await officer.do(path, reason=reason)).status_code == 422
    shown = await officer.do(path, reason="complaint 17 of the partner")
    assert "shf_81" in shown.text
    assert shown.headers["cache-control"] == "no-store"
    action, noted = (await audited(api))[-1]
    assert (action, noted["reason"]) == ("payload.read", "complaint 17 of the partner")


async def test_a_crawl_of_all_pages_finds_nothing_about_a_patient(
    api: Api, admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    await admin.patch(f"/v1/endpoints/{world.endpoint_id}", json={"event_types": None})
    async with api.client(await api.make_key("events:write")) as producer:
        accepted = await post(producer, "/v1/events", EVENT)
    person: Person = await somebody("admin", "payload:read", "patients:search")
    found = await person.do("/search", q=CANARY)
    assert accepted["id"] in found.text
    assert CANARY not in str(found.url)
    for page in pages("GET"):
        path = path_of(page, world).replace(world.event_id, accepted["id"])
        answer = await person.get(path)
        assert CANARY not in answer.text, path
    body = await person.do(f"/events/{accepted['id']}/payload", reason="to see that it is there")
    assert CANARY in body.text


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7919*7907 }}"])
async def test_what_somebody_has_typed_is_shown_and_never_run(somebody: Any, hostile: str) -> None:
    person: Person = await somebody("admin")
    made = await person.do("/partners/new", name=hostile, description=hostile, content="thin")
    partner = id_in(made, ids.SUBSCRIBER)
    for path in ("/partners", f"/partners/{partner}", f"/partners/{partner}/edit", "/audit"):
        page = await person.see(path)
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "62615533" not in text_of(page)
