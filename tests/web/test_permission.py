"""Who gets what is decided where the partner is made: closed by default, and no key reaches beyond it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.support.hospital import Hospital
from tests.support.rows import store_finished
from tests.web.serving import Api
from tests.web.test_problems import check_problem
from tests.web.world import post
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import OF_A_SUBSCRIBER

URL = "https://lab.example.com/in"


@dataclass
class Partner:
    """A subscriber that may have ``lab_order.*`` only, and its own key with all that it can carry."""

    id: str
    http: httpx.AsyncClient
    endpoint: dict[str, Any]

    @property
    def uuid(self) -> UUID:
        return ids.parse(ids.SUBSCRIBER, self.id)


@pytest.fixture
async def partner(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[Partner]:
    subscriber = await post(admin, "/v1/subscribers", {"name": "Lab", "event_types": ["lab_order.*"]})
    subscriber_id = ids.parse(ids.SUBSCRIBER, subscriber["id"])
    async with await api.as_client(*OF_A_SUBSCRIBER, subscriber_id=subscriber_id) as http:
        endpoint = await post(http, "/v1/endpoints", {"subscriber_id": subscriber["id"], "url": URL})
        yield Partner(subscriber["id"], http, endpoint)


async def test_a_new_subscriber_may_have_nothing(admin: httpx.AsyncClient) -> None:
    subscriber = await post(admin, "/v1/subscribers", {"name": "Lab"})
    assert (subscriber["event_types"], subscriber["external_id"]) == ([], None)
    endpoint = await post(admin, "/v1/endpoints", {"subscriber_id": subscriber["id"], "url": URL})
    assert (endpoint["event_types"], endpoint["effective_event_types"]) == (None, [])


async def test_an_endpoint_inherits_and_may_narrow_and_what_it_gets_is_in_both(
    admin: httpx.AsyncClient, partner: Partner
) -> None:
    path = f"/v1/endpoints/{partner.endpoint['id']}"
    assert (partner.endpoint["event_types"], partner.endpoint["effective_event_types"]) == (None, ["lab_order.*"])
    narrowed = (await partner.http.patch(path, json={"event_types": ["lab_order.placed"]})).json()
    assert narrowed["effective_event_types"] == ["lab_order.placed"]
    await admin.patch(f"/v1/subscribers/{partner.id}", json={"event_types": ["lab_result.*"]})
    assert (await partner.http.get(path)).json()["effective_event_types"] == []
    await admin.patch(f"/v1/subscribers/{partner.id}", json={"event_types": ["lab_result.*", "lab_order.*"]})
    whole = (await partner.http.patch(path, json={"event_types": None})).json()
    assert (whole["event_types"], whole["effective_event_types"]) == (None, ["lab_result.*", "lab_order.*"])


@pytest.mark.parametrize(
    "pattern", ["*", "lab_result.final", "lab_order", "lab.*", "gateway.*", "gateway.delivery_dead"]
)
async def test_beyond_its_permission_nobody_subscribes_it_and_all_are_told_what_is_allowed(
    admin: httpx.AsyncClient, partner: Partner, pattern: str
) -> None:
    new = {"subscriber_id": partner.id, "url": URL, "event_types": ["lab_order.placed", pattern]}
    for http in (admin, partner.http):
        for response in (
            await http.post("/v1/endpoints", json=new),
            await http.patch(f"/v1/endpoints/{partner.endpoint['id']}", json={"event_types": new["event_types"]}),
        ):
            problem = check_problem(response, 422, "invalid-request")
            first = problem["errors"][0]
            assert first["pointer"] == "/event_types/1"
            if http is admin or not pattern.startswith("gateway."):
                assert (first["rule"], "lab_order.*" in first["remedy"]) == ("not_permitted", True)


@pytest.mark.parametrize(
    "pattern", ["LAB_RESULT.FINAL", "Lab_result.*", "lab_result.final ", "lab_order.*|*", "**", "*.final"]
)
async def test_no_trick_of_spelling_is_a_pattern(partner: Partner, pattern: str) -> None:
    new = {"subscriber_id": partner.id, "url": URL, "event_types": [pattern]}
    check_problem(await partner.http.post("/v1/endpoints", json=new), 422, "invalid-request")


async def test_a_partners_own_key_sees_its_permission_and_changes_it_by_no_way(
    api: Api, admin: httpx.AsyncClient, partner: Partner
) -> None:
    shown = (await partner.http.get(f"/v1/subscribers/{partner.id}")).json()
    assert shown["event_types"] == ["lab_order.*"]
    for response in (
        await partner.http.patch(f"/v1/subscribers/{partner.id}", json={"event_types": ["*"]}),
        await partner.http.post("/v1/subscribers", json={"name": "Lab two", "event_types": ["*"]}),
        await partner.http.post("/v1/event-types", json={"name": "lab_order.x", "schema": {}, "example": {}}),
        await partner.http.post("/v1/keys", json={"name": "more", "scopes": ["admin"]}),
    ):
        check_problem(response, 403, "forbidden")
    other = await post(admin, "/v1/subscribers", {"name": "Other", "event_types": ["*"]})
    theirs = {"subscriber_id": other["id"], "url": URL}
    check_problem(await partner.http.post("/v1/endpoints", json=theirs), 404, "not-found")
    path = f"/v1/endpoints/{partner.endpoint['id']}"
    check_problem(await partner.http.patch(path, json={"subscriber_id": other["id"]}), 422, "invalid-request")
    check_problem(
        await partner.http.post(f"{path}/test", json={"event_type": "lab_result.final"}), 422, "invalid-request"
    )


async def test_a_key_that_is_held_to_fewer_types_makes_no_endpoint_that_gets_all(api: Api, partner: Partner) -> None:
    bound = {"subscriber_id": partner.uuid, "event_types": ["lab_order.placed"]}
    async with await api.as_client(*OF_A_SUBSCRIBER, **bound) as http:
        new = {"subscriber_id": partner.id, "url": URL}
        problem = check_problem(await http.post("/v1/endpoints", json=new), 422, "invalid-request")
        assert problem["errors"][0]["pointer"] == "/event_types"
        path = f"/v1/endpoints/{partner.endpoint['id']}"
        check_problem(await http.patch(path, json={"url": "https://elsewhere.example.com/"}), 403, "forbidden")
        made = await post(http, "/v1/endpoints", new | {"event_types": ["lab_order.placed"]})
        check_problem(
            await http.patch(f"/v1/endpoints/{made['id']}", json={"event_types": None}), 422, "invalid-request"
        )


async def test_what_it_had_before_it_was_narrowed_is_not_sent_again(
    hospital: Hospital, admin: httpx.AsyncClient, partner: Partner
) -> None:
    endpoint_id = ids.parse(ids.ENDPOINT, partner.endpoint["id"])
    (event_id,) = await hospital.post(type="staff_shift.assigned")
    async with hospital.database.connection() as connection:
        dead = await store_finished(connection, hospital.tenant_id, endpoint_id, event_id, "dead")
    for http in (admin, partner.http):
        check_problem(await http.post(f"/v1/deliveries/{ids.render(ids.DELIVERY, dead)}/replay"), 409, "conflict")
        job = await post(http, "/v1/replays", {"endpoint_id": partner.endpoint["id"], "state": "dead"})
        assert job["total"] == 0
    async with hospital.worker():
        await hospital.until("SELECT FROM jobs HAVING bool_and(state = 'done' AND done = 0) AND count(*) = 2")
    assert await hospital.count("finished_deliveries") == 1


async def test_narrowing_that_would_cut_off_open_deliveries_is_refused_with_their_count(
    hospital: Hospital, admin: httpx.AsyncClient
) -> None:
    subscriber = ids.render(ids.SUBSCRIBER, hospital.subscriber_id)
    endpoint_id = await hospital.endpoint("lab_result.*", "payment.*", state="paused")
    await hospital.post("k", "k", None)
    await hospital.post(type="payment.processed")
    await hospital.fan_out()
    endpoint = f"/v1/endpoints/{ids.render(ids.ENDPOINT, endpoint_id)}"
    for path in (f"/v1/subscribers/{subscriber}", endpoint):
        wanted: dict[str, Any] = {"event_types": ["payment.*"]}
        problem = check_problem(await admin.patch(path, json=wanted), 409, "conflict")
        assert "open deliveries, 3 of them" in problem["detail"]
    assert (await admin.patch(endpoint, json={"event_types": ["payment.*", "lab_result.*"]})).is_success
    assert (await admin.patch(f"/v1/subscribers/{subscriber}", json={**wanted, "cancel_open": True})).is_success
    async with hospital.worker():
        await hospital.until("SELECT FROM endpoints WHERE cut_off_at IS NULL")
    left = await hospital.rows("SELECT type FROM deliveries")
    gone = await hospital.rows("SELECT state, state_reason FROM finished_deliveries")
    assert [row["type"] for row in left] == ["payment.processed"]
    assert {tuple(row) for row in gone} == {("cancelled", "not_permitted")}
    assert len(gone) == 3


async def test_an_external_id_is_a_subscribers_own_and_can_not_be_taken_for_one_of_ours(
    admin: httpx.AsyncClient,
) -> None:
    first = await post(admin, "/v1/subscribers", {"name": "A", "external_id": "payer_17"})
    check_problem(await admin.post("/v1/subscribers", json={"name": "B", "external_id": "payer_17"}), 409, "conflict")
    problem = check_problem(
        await admin.post("/v1/subscribers", json={"name": "B", "external_id": first["id"]}), 422, "invalid-request"
    )
    assert problem["errors"][0]["pointer"] == "/external_id"
    assert (await admin.patch(f"/v1/subscribers/{first['id']}", json={"external_id": None})).json()[
        "external_id"
    ] is None
    await post(admin, "/v1/subscribers", {"name": "B", "external_id": "payer_17"})


async def test_a_hospitals_key_gives_no_types_that_it_does_not_hold(api: Api, admin: httpx.AsyncClient) -> None:
    async with await api.as_client("endpoints:write", event_types=["lab_order.*"]) as http:
        for pattern in ("*", "lab_result.*"):
            new = {"name": "Lab", "event_types": [pattern]}
            problem = check_problem(await http.post("/v1/subscribers", json=new), 422, "invalid-request")
            assert problem["errors"][0]["rule"] == "not_allowed"
        assert (await post(http, "/v1/subscribers", {"name": "Lab", "event_types": ["lab_order.placed"]}))["id"]


async def test_permissions_wait_for_workers_that_know_them(hospital: Hospital, admin: httpx.AsyncClient) -> None:
    subscriber = ids.render(ids.SUBSCRIBER, hospital.subscriber_id)
    await hospital.change("INSERT INTO workers (id, name) VALUES (gen_random_uuid(), 'of the version before')")
    inherits = {"subscriber_id": subscriber, "url": URL}
    check_problem(await admin.post("/v1/endpoints", json=inherits), 409, "workers-too-old")
    narrower = {"event_types": ["payment.*"]}
    check_problem(await admin.patch(f"/v1/subscribers/{subscriber}", json=narrower), 409, "workers-too-old")
    await post(admin, "/v1/endpoints", inherits | {"event_types": ["payment.*"]})
    await hospital.change("DELETE FROM workers")
    await post(admin, "/v1/endpoints", inherits)


async def test_what_a_filter_kept_back_is_unknown_to_the_partners_key_and_known_to_the_hospital(
    hospital: Hospital, admin: httpx.AsyncClient, partner: Partner
) -> None:
    endpoint_id = ids.parse(ids.ENDPOINT, partner.endpoint["id"])
    kept_back, dead = await hospital.post(None, None, type="lab_order.placed")
    async with hospital.database.connection() as connection:
        hidden = await store_finished(connection, hospital.tenant_id, endpoint_id, kept_back, "cancelled")
        shown = await store_finished(connection, hospital.tenant_id, endpoint_id, dead, "dead")
    await hospital.change("UPDATE finished_deliveries SET state_reason = 'not_wanted' WHERE id = $1", hidden)
    delivery, event = ids.render(ids.DELIVERY, hidden), ids.render(ids.EVENT, kept_back)
    seen = [ids.render(ids.DELIVERY, shown)]
    assert (await admin.get(f"/v1/deliveries/{delivery}")).is_success
    for query in ({}, {"state": "cancelled"}, {"event_id": event}, {"endpoint_id": partner.endpoint["id"]}):
        items = (await partner.http.get("/v1/deliveries", params=query)).json()["items"]
        assert [item["id"] for item in items] == ([] if query.keys() & {"state", "event_id"} else seen)
        assert delivery in [item["id"] for item in (await admin.get("/v1/deliveries", params=query)).json()["items"]]
    for method, path in (
        ("GET", f"/v1/deliveries/{delivery}"),
        ("GET", f"/v1/events/{event}"),
        ("GET", f"/v1/events/{event}/payload"),
        ("POST", f"/v1/deliveries/{delivery}/replay"),
    ):
        check_problem(await partner.http.request(method, path), 404, "not-found")
    job = await post(partner.http, "/v1/replays", {"endpoint_id": partner.endpoint["id"], "state": "cancelled"})
    assert job["total"] == 0
    async with hospital.worker():
        (done,) = await hospital.until("SELECT done FROM jobs WHERE state = 'done'")
    assert done["done"] == 0
