"""``to``: only these subscribers get an event, and nobody is left waiting for one in silence."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.support.hospital import Hospital, new_master_key
from tests.web.serving import Api
from tests.web.test_problems import check_problem
from tests.web.world import post
from webhook_gateway.intake.catalogue import shipped
from webhook_gateway.rules import ids

CLAIM = next(known for known in shipped() if known.name == "insurance_claim.denied")
POSTED: dict[str, Any] = {"type": CLAIM.name, "data": dict(CLAIM.example)}


@pytest.fixture
async def producer(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with await api.as_client("events:write") as client:
        yield client


async def insurer(admin: httpx.AsyncClient, external_id: str, *types: str, endpoint: bool = True) -> str:
    """Its id."""
    new = {"name": external_id, "external_id": external_id, "event_types": types or ["insurance_claim.*"]}
    subscriber = await post(admin, "/v1/subscribers", new)
    if endpoint:
        url = f"https://{external_id.replace('_', '-')}.example.com/in"
        await post(admin, "/v1/endpoints", {"subscriber_id": subscriber["id"], "url": url})
    return str(subscriber["id"])


async def reached(hospital: Hospital, event_id: str) -> list[str]:
    """The external ids of the subscribers that get it."""
    await hospital.fan_out()
    rows = await hospital.rows(
        "SELECT s.external_id FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id"
        " JOIN subscribers s ON s.id = e.subscriber_id WHERE d.event_id = $1 ORDER BY 1",
        ids.parse(ids.EVENT, event_id),
    )
    return [row["external_id"] for row in rows]


async def test_an_addressed_event_reaches_its_addressees_only_however_they_are_named(
    hospital: Hospital, admin: httpx.AsyncClient, producer: httpx.AsyncClient
) -> None:
    first = await insurer(admin, "payer_17")
    await insurer(admin, "payer_18")
    await insurer(admin, "payer_19")
    for to, expected in (
        ([first], ["payer_17"]),
        (["payer_18"], ["payer_18"]),
        ([first, "payer_17", "payer_19"], ["payer_17", "payer_19"]),
        (None, ["payer_17", "payer_18", "payer_19"]),
    ):
        posted = POSTED if to is None else {**POSTED, "to": to}
        single = (await post(producer, "/v1/events", posted))["id"]
        batch = (await post(producer, "/v1/events/batch", {"events": [POSTED, posted]}))["results"][1]["id"]
        for event_id in (single, batch):
            assert await reached(hospital, event_id) == expected
            shown = (await admin.get(f"/v1/events/{event_id}")).json()
            assert (shown["to"] is None) == (to is None)
            assert shown["matched"] == len(expected)


async def test_who_is_unknown_or_may_not_have_it_is_named_by_place(
    api: Api, hospital: Hospital, admin: httpx.AsyncClient, producer: httpx.AsyncClient
) -> None:
    await insurer(admin, "payer_17")
    await insurer(admin, "lab_1", "lab_order.*")
    posted = {**POSTED, "to": ["payer_17", "payer_99", "lab_1", "PAYER_17", f"sub_{'0' * 26}"]}
    problem = check_problem(await producer.post("/v1/events", json=posted), 422, "invalid-request")
    assert [(error["pointer"], error["rule"]) for error in problem["errors"]] == [
        ("/to/1", "unknown_addressee"),
        ("/to/2", "not_permitted"),
        ("/to/3", "unknown_addressee"),
        ("/to/4", "unknown_addressee"),
    ]
    assert "payer_99" not in json.dumps(problem)
    batch = await post(producer, "/v1/events/batch", {"events": [POSTED, posted, {**POSTED, "to": ["payer_17"]}]})
    assert [result["status"] for result in batch["results"]] == [202, 422, 202]
    assert batch["results"][1]["error"]["errors"] == problem["errors"]
    assert await hospital.count("events WHERE NOT starts_with(type, 'gateway.')") == 2
    await admin.delete(f"/v1/subscribers/{await insurer(admin, 'payer_20')}?force=true")
    check_problem(await producer.post("/v1/events", json={**POSTED, "to": ["payer_20"]}), 422, "invalid-request")


@pytest.mark.parametrize("to", [None, [], "payer_17", [7], [""], ["x" * 257], ["a"] * 101, {"a": 1}])
async def test_what_is_no_list_of_names_is_refused(producer: httpx.AsyncClient, to: Any) -> None:
    problem = check_problem(await producer.post("/v1/events", json={**POSTED, "to": to}), 422, "invalid-request")
    assert problem["errors"][0]["pointer"].startswith("/to")
    batch = await post(producer, "/v1/events/batch", {"events": [POSTED, {**POSTED, "to": to}]})
    assert [result["status"] for result in batch["results"]] == [202, 422]
    assert batch["results"][1]["error"]["errors"] == problem["errors"]


async def test_the_document_offers_no_null_for_addressees(admin: httpx.AsyncClient) -> None:
    schemas = (await admin.get("/openapi.json")).json()["components"]["schemas"]
    assert schemas["EventIn"]["properties"]["to"]["type"] == "array"
    assert "to" not in schemas["EventIn"]["required"]


async def test_one_made_a_moment_ago_through_another_process_is_known(
    hospital: Hospital, admin: httpx.AsyncClient, producer: httpx.AsyncClient
) -> None:
    await insurer(admin, "payer_17")
    await post(producer, "/v1/events", {**POSTED, "to": ["payer_17"]})
    await hospital.change(
        "INSERT INTO subscribers (id, tenant_id, name, external_id, event_types)"
        " VALUES (gen_random_uuid(), $1, 'new', 'payer_18', '{insurance_claim.*}')",
        hospital.tenant_id,
    )
    await post(producer, "/v1/events", {**POSTED, "to": ["payer_18"]})


async def test_an_addressee_without_an_endpoint_is_told_to_whoever_operates_it(
    hospital: Hospital, admin: httpx.AsyncClient, producer: httpx.AsyncClient
) -> None:
    operator = await insurer(admin, "operator", "gateway.event_undelivered")
    nowhere = await insurer(admin, "payer_17", endpoint=False)
    await insurer(admin, "payer_18")
    event = await post(producer, "/v1/events", {**POSTED, "to": ["payer_17", "payer_18"]})
    assert await reached(hospital, event["id"]) == ["payer_18"]
    (told,) = await hospital.rows("SELECT * FROM events WHERE type = 'gateway.event_undelivered'")
    body = json.loads(hospital.vault.open(told["tenant_id"], "events", told["id"], told["body"]))
    assert body["data"] == {"event_id": event["id"], "event_type": CLAIM.name, "subscriber_ids": [nowhere]}
    assert await reached(hospital, ids.render(ids.EVENT, told["id"])) == ["operator"]
    assert operator != nowhere


async def test_one_that_lost_its_permission_before_the_fan_out_gets_nothing_and_that_is_told(
    hospital: Hospital, admin: httpx.AsyncClient, producer: httpx.AsyncClient
) -> None:
    subscriber = await insurer(admin, "payer_17")
    event = await post(producer, "/v1/events", {**POSTED, "to": ["payer_17"]})
    assert (await admin.patch(f"/v1/subscribers/{subscriber}", json={"event_types": []})).is_success
    assert await reached(hospital, event["id"]) == []
    assert await hospital.count("events WHERE type = 'gateway.event_undelivered'") == 1


async def test_an_addressee_whose_own_filter_refuses_it_is_told(
    hospital: Hospital, admin: httpx.AsyncClient, producer: httpx.AsyncClient
) -> None:
    subscriber = await insurer(admin, "payer_17", endpoint=False)
    new = {"subscriber_id": subscriber, "url": "https://payer.example.com/in", "filter": {"payer_id": ["another"]}}
    await post(admin, "/v1/endpoints", new)
    event = await post(producer, "/v1/events", {**POSTED, "to": ["payer_17"]})
    assert await reached(hospital, event["id"]) == []
    (told,) = await hospital.rows("SELECT * FROM events WHERE type = 'gateway.event_undelivered'")
    body = json.loads(hospital.vault.open(told["tenant_id"], "events", told["id"], told["body"]))
    assert body["data"]["subscriber_ids"] == [subscriber]


async def test_a_missing_key_keeps_back_what_is_told_and_not_the_fan_out(
    hospital: Hospital, admin: httpx.AsyncClient, producer: httpx.AsyncClient
) -> None:
    await insurer(admin, "payer_17", endpoint=False)
    await insurer(admin, "payer_18")
    event = await post(producer, "/v1/events", {**POSTED, "to": ["payer_17", "payer_18"]})
    async with hospital.elsewhere(new_master_key("another")) as keyless:
        await keyless.fan_out()
    assert await reached(hospital, event["id"]) == ["payer_18"]
    assert await hospital.count("outbox") == 0
    assert await hospital.count("events WHERE type = 'gateway.event_undelivered'") == 0


async def test_neither_to_nor_patient_is_in_the_body_or_in_clear_anywhere(
    hospital: Hospital, admin: httpx.AsyncClient, producer: httpx.AsyncClient
) -> None:
    await insurer(admin, "payer_17")
    plain = await post(producer, "/v1/events", POSTED)
    told = await post(producer, "/v1/events", {**POSTED, "to": ["payer_17"], "patient": "pat_in_clear"})
    bodies = []
    for event in (plain, told):
        (row,) = await hospital.rows("SELECT * FROM events WHERE id = $1", ids.parse(ids.EVENT, event["id"]))
        bodies.append(json.loads(hospital.vault.open(row["tenant_id"], "events", row["id"], row["body"])))
        assert "pat_in_clear" not in str(dict(row))
    assert bodies[0].keys() == bodies[1].keys()
    assert bodies[0]["data"] == bodies[1]["data"]
    assert "payer_17" not in json.dumps(bodies)


async def test_both_belong_to_what_makes_two_posts_the_same(
    admin: httpx.AsyncClient, producer: httpx.AsyncClient
) -> None:
    await insurer(admin, "payer_17")
    await insurer(admin, "payer_18")
    ways: list[dict[str, Any]] = [
        {}, {"to": ["payer_17"]}, {"to": ["payer_18"]}, {"patient": "pat_1"}, {"to": ["payer_17"], "patient": "pat_1"}
    ]  # fmt: skip
    for number, way in enumerate(ways):
        key = f"key {number}"
        first = await post(producer, "/v1/events", {**POSTED, **way, "idempotency_key": key})
        for other in ways:
            response = await producer.post("/v1/events", json={**POSTED, **other, "idempotency_key": key})
            if other is way:
                assert (response.json()["id"], response.json()["duplicate"]) == (first["id"], True)
            else:
                check_problem(response, 409, "conflict")


async def test_addresses_wait_for_workers_that_know_them(
    hospital: Hospital, admin: httpx.AsyncClient, producer: httpx.AsyncClient
) -> None:
    new = {"name": "payer_17", "external_id": "payer_17", "event_types": ["insurance_claim.*"]}
    await post(admin, "/v1/subscribers", {**new, "content": "full"})
    await hospital.change("INSERT INTO workers (id, name) VALUES (gen_random_uuid(), 'of the version before')")
    addressed = {**POSTED, "to": ["payer_17"]}
    refused = await producer.post("/v1/events", json=addressed)
    check_problem(refused, 409, "workers-too-old")
    assert refused.headers["Retry-After"] == "10"
    batch = await post(producer, "/v1/events/batch", {"events": [POSTED, addressed]})
    assert [result["status"] for result in batch["results"]] == [202, 409]
    await hospital.change("DELETE FROM workers")
    await post(producer, "/v1/events", addressed)
    assert (await hospital.rows("SELECT worker_protocol FROM configuration"))[0][0] == 1


async def test_another_subscriber_is_not_told_to_whom_an_event_went(
    api: Api, hospital: Hospital, admin: httpx.AsyncClient, producer: httpx.AsyncClient
) -> None:
    mine, other = await insurer(admin, "payer_17"), await insurer(admin, "payer_18")
    both = await post(producer, "/v1/events", {**POSTED, "to": [mine, other]})
    theirs = await post(producer, "/v1/events", {**POSTED, "to": [other]})
    await hospital.fan_out()
    key: dict[str, UUID] = {"subscriber_id": ids.parse(ids.SUBSCRIBER, mine)}
    async with await api.as_client("deliveries:read", "payload:read", **key) as partner:
        shown = (await partner.get(f"/v1/events/{both['id']}")).json()
        assert (shown["to"], shown["matched"]) == (None, 1)
        for path in ("", "/payload"):
            hidden = await partner.get(f"/v1/events/{theirs['id']}{path}")
            missing = await partner.get(f"/v1/events/evt_{'0' * 26}{path}")
            check_problem(hidden, 404, "not-found")
            assert hidden.json() | {"request_id": ""} == missing.json() | {"request_id": ""}
        listed = (await partner.get("/v1/deliveries")).json()["items"]
        assert [delivery["event_id"] for delivery in listed] == [both["id"]]
