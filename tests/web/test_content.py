"""How much a partner gets is decided where it is made: thin unless the hospital says more, whatever its key asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.hospital import Hospital
from tests.support.rows import store_finished
from tests.web.serving import Api
from tests.web.test_permission import URL, Partner
from tests.web.test_problems import check_problem
from tests.web.world import post
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import OF_A_SUBSCRIBER

APPOINTMENTS = {"name": "SMS", "event_types": ["appointment.*"]}
CONTACT = {"level": "fields", "pointers": ["/contact", "/starts_at"]}


@pytest.fixture
async def partner(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[Partner]:
    """One that may have an appointment's contact and time."""
    subscriber = await post(admin, "/v1/subscribers", {**APPOINTMENTS, "content": CONTACT})
    subscriber_id = ids.parse(ids.SUBSCRIBER, subscriber["id"])
    async with await api.as_client(*OF_A_SUBSCRIBER, "payload:read", subscriber_id=subscriber_id) as http:
        endpoint = await post(http, "/v1/endpoints", {"subscriber_id": subscriber["id"], "url": URL})
        yield Partner(subscriber["id"], http, endpoint)


async def previewed(http: httpx.AsyncClient, endpoint: dict[str, Any], type: str = "appointment.scheduled") -> Any:
    response = await http.get(f"/v1/endpoints/{endpoint['id']}/preview", params={"type": type})
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_partner_gets_thin_bodies_unless_the_hospital_says_more(admin: httpx.AsyncClient) -> None:
    subscriber = await post(admin, "/v1/subscribers", APPOINTMENTS)
    assert (subscriber["content"]["level"], subscriber["content"]["subject"]) == ("thin", False)
    assert "has to ask" in subscriber["content"]["means"]
    endpoint = await post(admin, "/v1/endpoints", {"subscriber_id": subscriber["id"], "url": URL})
    assert (endpoint["content"], endpoint["effective_content"]) == (None, subscriber["content"])
    body = await previewed(admin, endpoint)
    assert body["data"] == {
        "appointment_id": "apt_01JD7Q4M2K", "location_id": "loc_clinic_b3", "status": "booked", "version": 1,
    }  # fmt: skip
    assert set(body) == {"id", "type", "timestamp", "data"}


async def test_full_is_everything_with_its_subject(admin: httpx.AsyncClient) -> None:
    subscriber = await post(admin, "/v1/subscribers", {**APPOINTMENTS, "content": "full"})
    assert subscriber["content"] == {
        "level": "full", "pointers": None, "subject": True, "means": "It gets all of each event.",
    }  # fmt: skip
    endpoint = await post(admin, "/v1/endpoints", {"subscriber_id": subscriber["id"], "url": URL})
    body = await previewed(admin, endpoint)
    known = (await admin.get("/v1/event-types/appointment.scheduled")).json()
    assert (body["data"], "subject" in body) == (known["example"], True)


async def test_an_endpoint_gets_what_is_in_its_own_content_and_its_subscribers(
    admin: httpx.AsyncClient, partner: Partner
) -> None:
    path = f"/v1/endpoints/{partner.endpoint['id']}"
    assert (await previewed(partner.http, partner.endpoint))["data"].keys() == {"contact", "starts_at"}
    own = {"level": "fields", "pointers": ["/contact/address"]}
    changed = (await partner.http.patch(path, json={"content": own})).json()
    assert changed["content"] == {**own, "subject": False}
    assert changed["effective_content"]["pointers"] == ["/contact/address"]
    assert (await previewed(admin, partner.endpoint))["data"] == {"contact": {"address": "+12025550143"}}
    assert (await partner.http.patch(path, json={"content": "thin"})).status_code == 200
    assert (await previewed(admin, partner.endpoint))["data"] == {}, "a thin body has none of contact and time"
    assert (await admin.patch(f"/v1/subscribers/{partner.id}", json={"content": "full"})).status_code == 200
    assert set((await previewed(admin, partner.endpoint))["data"]) == {
        "appointment_id", "location_id", "status", "version",
    }  # fmt: skip
    inherits = (await partner.http.patch(path, json={"content": None})).json()
    assert (inherits["content"], inherits["effective_content"]["level"]) == (None, "full")


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        ("full", "/content/level"),
        ({"level": "thin", "subject": True}, "/content/subject"),
        ({**CONTACT, "pointers": ["/contact", "/patient_id"]}, "/content/pointers/1"),
        ({**CONTACT, "pointers": [""]}, "/content/pointers/0"),
        ({**CONTACT, "subject": True}, "/content/subject"),
    ],
)
async def test_no_key_gives_an_endpoint_more_than_its_subscriber_may_have(
    admin: httpx.AsyncClient, partner: Partner, content: Any, pointer: str
) -> None:
    new = {"subscriber_id": partner.id, "url": URL, "content": content}
    path = f"/v1/endpoints/{partner.endpoint['id']}"
    for http in (admin, partner.http):
        for response in (await http.post("/v1/endpoints", json=new), await http.patch(path, json={"content": content})):
            (fault,) = check_problem(response, 422, "invalid-request")["errors"]
            assert (fault["rule"], fault["pointer"]) == ("not_permitted", pointer)
    for response in (
        await partner.http.patch(f"/v1/subscribers/{partner.id}", json={"content": "full"}),
        await partner.http.post("/v1/subscribers", json={"name": "Other", "content": "full"}),
    ):
        check_problem(response, 403, "forbidden")
    assert (await previewed(partner.http, partner.endpoint))["data"].keys() == {"contact", "starts_at"}


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        ({"level": "fields", "pointers": ["/contact", "/diagnosis"]}, "/content/pointers/1"),
        ({"level": "fields", "pointers": ["contact"]}, "/content/pointers/0"),
        ({"level": "fields", "pointers": ["/contact/0"]}, "/content/pointers/0"),
        ({"level": "fields", "pointers": ["/status"] * 201}, "/content/pointers"),
        ({"level": "fields"}, "/content"),
        ({"level": "thin", "pointers": ["/contact"]}, "/content"),
        ({"level": "most"}, "/content/level"),
        ("some", "/content/level"),
        (7, "/content"),
    ],
)
async def test_a_content_that_can_not_be_is_refused_with_its_place(
    admin: httpx.AsyncClient, content: Any, pointer: str
) -> None:
    new = {**APPOINTMENTS, "content": content}
    problem = check_problem(await admin.post("/v1/subscribers", json=new), 422, "invalid-request")
    assert problem["errors"][0]["pointer"] == pointer


async def test_a_preview_is_of_a_type_that_the_endpoint_gets(partner: Partner) -> None:
    path = f"/v1/endpoints/{partner.endpoint['id']}/preview"
    check_problem(await partner.http.get(path, params={"type": "no.such"}), 404, "not-found")
    check_problem(await partner.http.get(path, params={"type": "lab_result.final"}), 409, "conflict")
    assert (await partner.http.get(path)).json()["type"] == "appointment.cancelled", "the first by name"


async def test_a_body_that_a_partners_key_fetches_is_cut_and_one_of_a_type_that_it_lost_is_none(
    hospital: Hospital, admin: httpx.AsyncClient, partner: Partner
) -> None:
    event_id = await hospital.accept("appointment.scheduled", version=3)
    async with hospital.database.connection() as connection:
        endpoint_id = ids.parse(ids.ENDPOINT, partner.endpoint["id"])
        await store_finished(connection, hospital.tenant_id, endpoint_id, event_id, "delivered")
    path = f"/v1/events/{ids.render(ids.EVENT, event_id)}/payload"
    assert (await partner.http.get(path)).json()["data"].keys() == {"contact", "starts_at"}
    narrower = {"event_types": ["appointment.cancelled"], "cancel_open": True}
    assert (await admin.patch(f"/v1/subscribers/{partner.id}", json=narrower)).status_code == 200
    check_problem(await partner.http.get(path), 404, "not-found")


async def test_less_than_everything_waits_for_workers_that_know_it(
    hospital: Hospital, admin: httpx.AsyncClient
) -> None:
    await hospital.change("INSERT INTO workers (id, name) VALUES (gen_random_uuid(), 'of the version before')")
    check_problem(await admin.post("/v1/subscribers", json=APPOINTMENTS), 409, "workers-too-old")
    subscriber = await post(admin, "/v1/subscribers", {**APPOINTMENTS, "content": "full"})
    path, thin = f"/v1/subscribers/{subscriber['id']}", {"content": "thin"}
    check_problem(await admin.patch(path, json=thin), 409, "workers-too-old")
    await hospital.change("DELETE FROM workers")
    assert (await admin.patch(path, json=thin)).status_code == 200
