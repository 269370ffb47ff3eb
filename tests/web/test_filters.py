"""Which events of its types an endpoint gets: set by the hospital, sealed, and shown to a partner as far as it may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from uuid_utils.compat import uuid7

from tests.support.hospital import Hospital
from tests.web.serving import Api
from tests.web.test_permission import URL, Partner
from tests.web.test_problems import check_problem
from tests.web.world import post
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.operations import endpoints
from webhook_gateway.operations.change import changing, local_actor
from webhook_gateway.operations.partners import Applying
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import OF_A_SUBSCRIBER
from webhook_gateway.rules.targets import Policy

CLAIMS = {"event_types": ["insurance_claim.*"]}
FILTER = {"payer_id": ["p_secret17"], "total": {"value": [{"numeric": [">=", 100.5]}]}}


async def test_a_filter_is_sealed_and_its_literals_stand_nowhere_else(
    hospital: Hospital, admin: httpx.AsyncClient
) -> None:
    subscriber = await post(admin, "/v1/subscribers", {"name": "Payer", "content": "full", **CLAIMS})
    new = {"subscriber_id": subscriber["id"], "url": URL, "filter": FILTER}
    endpoint = await post(admin, "/v1/endpoints", new)
    assert endpoint["filter"] == FILTER
    path = f"/v1/endpoints/{endpoint['id']}"
    changed = {"priority": [{"prefix": "p_secret18"}]}
    assert (await admin.patch(path, json={"filter": changed})).json()["filter"] == changed
    assert (await admin.patch(path, json={"slots": 3})).json()["filter"] == changed
    for table in ("endpoints", "audit_log"):
        assert "p_secret" not in str(await hospital.rows(f"SELECT * FROM {table}"))
    noted = await hospital.rows("SELECT * FROM audit_log WHERE action = 'endpoint.changed'")
    assert '"filter": "' in str(noted), "its digest"
    assert (await admin.patch(path, json={"filter": None})).json()["filter"] is None
    assert await hospital.rows("SELECT FROM endpoints WHERE filter IS NULL AND filter_digest IS NULL")


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({}, "/filter"),
        ({"payer_id": "p_17"}, "/filter/payer_id"),
        ({"payer_id": [{"regex": "p_secret17"}]}, "/filter/payer_id/0"),
        ({"a": {"b": {"c": {"d": {"e": {"f": ["p_secret17"]}}}}}}, "/filter/a/b/c/d/e"),
        ([], "/filter"),
    ],
)
async def test_a_filter_at_fault_is_refused_with_its_place_and_without_its_literals(
    admin: httpx.AsyncClient, wrong: Any, pointer: str
) -> None:
    subscriber = await post(admin, "/v1/subscribers", {"name": "Payer", **CLAIMS})
    endpoint = await post(admin, "/v1/endpoints", {"subscriber_id": subscriber["id"], "url": URL})
    new = {"subscriber_id": subscriber["id"], "url": URL, "filter": wrong}
    for response in (
        await admin.post("/v1/endpoints", json=new),
        await admin.patch(f"/v1/endpoints/{endpoint['id']}", json={"filter": wrong}),
    ):
        assert check_problem(response, 422, "invalid-request")["errors"][0]["pointer"] == pointer
        assert "p_secret" not in response.text


@pytest.fixture
async def partner(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[Partner]:
    """One that gets the payer's id only, of its own claims."""
    content = {"level": "fields", "pointers": ["/payer_id"]}
    subscriber = await post(admin, "/v1/subscribers", {"name": "Payer", "content": content, **CLAIMS})
    new = {"subscriber_id": subscriber["id"], "url": URL, "filter": FILTER}
    endpoint = await post(admin, "/v1/endpoints", new)
    subscriber_id = ids.parse(ids.SUBSCRIBER, subscriber["id"])
    async with await api.as_client(*OF_A_SUBSCRIBER, "payload:read", subscriber_id=subscriber_id) as http:
        yield Partner(subscriber["id"], http, endpoint)


async def test_a_partners_key_sees_conditions_on_what_it_gets_and_gets_round_none(
    admin: httpx.AsyncClient, partner: Partner
) -> None:
    path = f"/v1/endpoints/{partner.endpoint['id']}"
    seen = {"payer_id": ["p_secret17"], "$other": "set by the hospital"}
    assert (await partner.http.get(path)).json()["filter"] == seen
    assert (await partner.http.get("/v1/endpoints")).json()["items"][0]["filter"] == seen
    new = {"subscriber_id": partner.id, "url": URL}
    for response in (
        await partner.http.patch(path, json={"filter": None}),
        await partner.http.patch(path, json={"filter": {"payer_id": ["p_18"]}}),
        await partner.http.post("/v1/endpoints", json={**new, "filter": FILTER}),
        await partner.http.post("/v1/endpoints", json=new),
    ):
        (fault,) = check_problem(response, 422, "invalid-request")["errors"]
        assert fault["rule"] == "not_allowed"
    assert (await partner.http.patch(path, json={"slots": 2})).status_code == 200
    assert (await partner.http.delete(path)).status_code == 204
    check_problem(await partner.http.post("/v1/endpoints", json=new), 422, "invalid-request")
    check_problem(await partner.http.post(f"{path}/filter-preview", json={"filter": FILTER}), 403, "forbidden")


async def test_a_partners_key_widens_no_endpoint_that_has_no_filter_beside_one_that_has(
    admin: httpx.AsyncClient, partner: Partner
) -> None:
    types = ["insurance_claim.submitted", "insurance_claim.denied"]
    sibling = await post(admin, "/v1/endpoints", {"subscriber_id": partner.id, "url": URL, "event_types": types})
    path = f"/v1/endpoints/{sibling['id']}"
    assert (await partner.http.patch(path, json={"event_types": types[:1]})).status_code == 200
    for wider in (None, types, ["insurance_claim.*"]):
        response = await partner.http.patch(path, json={"event_types": wider})
        (fault,) = check_problem(response, 422, "invalid-request")["errors"]
        assert (fault["rule"], fault["pointer"]) == ("not_allowed", "/event_types")
    filtered = f"/v1/endpoints/{partner.endpoint['id']}"
    for own in (types[:1], None):
        assert (await partner.http.patch(filtered, json={"event_types": own})).status_code == 200, "its filter stays"
    assert (await admin.patch(path, json={"event_types": None})).status_code == 200


@pytest.mark.parametrize("widened", [True, False], ids=["widened", "made"])
async def test_who_widens_while_the_hospital_sets_a_filter_waits_for_it_and_gets_round_none(
    api: Api, hospital: Hospital, admin: httpx.AsyncClient, widened: bool
) -> None:
    subscriber = await post(admin, "/v1/subscribers", {"name": "Payer", **CLAIMS})
    new = {"subscriber_id": subscriber["id"], "url": URL}
    endpoint = await post(admin, "/v1/endpoints", new)
    sibling = await post(admin, "/v1/endpoints", {**new, "event_types": ["insurance_claim.denied"]})
    of_theirs = {"subscriber_id": ids.parse(ids.SUBSCRIBER, subscriber["id"])}
    async with await api.as_client(*OF_A_SUBSCRIBER, **of_theirs) as http:
        async with changing(hospital.database, local_actor(hospital.tenant_id)) as change:
            about = (ids.parse(ids.ENDPOINT, endpoint["id"]), {"filter": FILTER})
            await endpoints.change_one(change, hospital.vault, Catalogue(), Policy(), *about)
            path = f"/v1/endpoints/{sibling['id']}"
            wider = http.patch(path, json={"event_types": None}) if widened else http.post("/v1/endpoints", json=new)
            asked = asyncio.create_task(wider)
            await hospital.until("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        (fault,) = check_problem(await asked, 422, "invalid-request")["errors"]
        assert fault["rule"] == "not_allowed"


async def test_a_partner_that_changes_an_endpoint_while_a_file_is_applied_waits_with_nothing_in_its_hands(
    api: Api, hospital: Hospital, admin: httpx.AsyncClient
) -> None:
    subscriber = await post(admin, "/v1/subscribers", {"name": "Payer", **CLAIMS})
    both = [await post(admin, "/v1/endpoints", {"subscriber_id": subscriber["id"], "url": URL}) for _ in range(2)]
    first, second = (ids.parse(ids.ENDPOINT, endpoint["id"]) for endpoint in both)
    of_theirs = {"subscriber_id": ids.parse(ids.SUBSCRIBER, subscriber["id"])}
    async with await api.as_client(*OF_A_SUBSCRIBER, **of_theirs) as http:
        async with changing(hospital.database, local_actor(hospital.tenant_id)) as change:
            parts = (hospital.vault, Catalogue(), Policy())
            await Applying(change, *parts).apply([])
            await endpoints.change_one(change, *parts, first, {"filter": FILTER})
            asked = asyncio.create_task(http.patch(f"/v1/endpoints/{both[1]['id']}", json={"slots": 2}))
            await hospital.until("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            await endpoints.change_one(change, *parts, second, {"slots": 3})
        assert (await asked).json()["slots"] == 2


async def test_a_filter_is_tried_on_what_came_lately(api: Api, hospital: Hospital, admin: httpx.AsyncClient) -> None:
    for number in range(30):
        await hospital.accept("insurance_claim.submitted", payer_id=f"p_secret{number % 3}")
    await hospital.accept("payment.processed")
    subscriber = await post(admin, "/v1/subscribers", {"name": "Payer", **CLAIMS})
    endpoint = await post(admin, "/v1/endpoints", {"subscriber_id": subscriber["id"], "url": URL})
    path, wanted = f"/v1/endpoints/{endpoint['id']}/filter-preview", {"filter": {"payer_id": ["p_secret1"]}}
    check_problem(await admin.post(path, json=wanted), 403, "forbidden")
    async with await api.as_client("payload:read") as http:
        tried = await post(http, path, wanted)
        assert (tried["events"], tried["matched"]) == (30, 10)
        assert tried["bytes"] > 30 * 100
        every = await post(http, "/v1/endpoints/filter-preview", {"filter": {"payer_id": [{"exists": False}]}})
        assert (every["events"], every["matched"]) == (31, 1)
        named = await post(http, "/v1/endpoints/filter-preview", {**wanted, "event_types": ["payment.*"]})
        assert (named["events"], named["matched"]) == (1, 0)
        refused = await http.post(path, json={"filter": {"payer_id": []}})
        check_problem(refused, 422, "invalid-request")
    noted = await hospital.rows("SELECT * FROM audit_log WHERE action = 'filter.previewed'")
    assert len(noted) == 3
    assert "p_secret" not in str(noted)
    assert "filter_digest" in str(noted[0])


async def test_a_filter_waits_for_workers_that_know_it(hospital: Hospital, admin: httpx.AsyncClient) -> None:
    endpoint = ids.render(ids.ENDPOINT, await hospital.endpoint())
    await hospital.change("INSERT INTO workers (id, name) VALUES (gen_random_uuid(), 'of the version before')")
    response = await admin.patch(f"/v1/endpoints/{endpoint}", json={"filter": FILTER})
    check_problem(response, 409, "workers-too-old")


async def test_no_count_tells_a_partners_key_of_what_a_filter_has_yet_to_be_asked_about(
    hospital: Hospital, admin: httpx.AsyncClient, partner: Partner
) -> None:
    endpoint_id = ids.parse(ids.ENDPOINT, partner.endpoint["id"])
    event_id = await hospital.accept("insurance_claim.submitted", payer_id="p_18")
    for sequence, unfiltered in enumerate((True, True, None)):
        await hospital.change(
            "INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at,"
            " unfiltered) VALUES ($6, $1, $2, $3, 'insurance_claim.submitted', $4::integer, 7,"
            " now() - interval '1 hour' + make_interval(secs => $4::integer), $5)",
            *(hospital.tenant_id, endpoint_id, event_id, sequence, unfiltered, uuid7()),
        )
    await hospital.change(
        "INSERT INTO held_keys (endpoint_id, tenant_id, delivery_id, event_id, ordering_key)"
        " VALUES ($1, $2, $3, $3, 7)",
        *(endpoint_id, hospital.tenant_id, event_id),
    )
    await hospital.change("DELETE FROM outbox")
    path, event = f"/v1/endpoints/{partner.endpoint['id']}", f"/v1/events/{ids.render(ids.EVENT, event_id)}"
    for http, before, size in ((admin, 2, True), (partner.http, 0, False)):
        assert (await http.get("/v1/deliveries")).json()["items"][0]["due_before"] == before
        assert (await http.get(f"{path}/held-keys")).json()["items"][0]["waiting"] == before + 1
        shown = (await http.get(event)).json()
        assert shown["deliveries"][0]["due_before"] == before
        assert (shown["size"] is not None) is size
        narrower = await http.patch(path, json={"event_types": ["insurance_claim.denied"]})
        assert f" {before + 1} " in check_problem(narrower, 409, "conflict")["detail"]


async def test_what_a_filter_keeps_back_or_has_yet_to_be_asked_about_is_unknown_to_a_partners_key(
    hospital: Hospital, admin: httpx.AsyncClient, partner: Partner
) -> None:
    event_id = await hospital.accept("insurance_claim.submitted", payer_id="p_18")
    await hospital.change(
        "INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, due_at, unfiltered)"
        " VALUES (gen_random_uuid(), $1, $2, $3, $4, 1, now() + interval '1 hour', true)",
        *(hospital.tenant_id, ids.parse(ids.ENDPOINT, partner.endpoint["id"]), event_id, "insurance_claim.submitted"),
    )
    await hospital.change("DELETE FROM outbox")
    (delivery,) = (await admin.get("/v1/deliveries")).json()["items"]
    of_it = {"event_id": ids.render(ids.EVENT, event_id)}
    for state in (None, "cancelled"):
        if state == "cancelled":
            await hospital.change(
                "WITH gone AS (DELETE FROM deliveries RETURNING *) INSERT INTO finished_deliveries"
                " (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, state, state_reason, created_at)"
                " SELECT id, tenant_id, endpoint_id, event_id, type, sequence, 1, 'cancelled', 'not_wanted', now()"
                " FROM gone"
            )
        assert len((await admin.get("/v1/deliveries", params=of_it)).json()["items"]) == 1
        for query in ({}, of_it, {"state": state} if state else {"state": "pending"}):
            assert (await partner.http.get("/v1/deliveries", params=query)).json()["items"] == []
        for path in (f"/v1/deliveries/{delivery['id']}", f"/v1/events/{of_it['event_id']}"):
            check_problem(await partner.http.get(path), 404, "not-found")
        check_problem(await partner.http.get(f"/v1/events/{of_it['event_id']}/payload"), 404, "not-found")
    await hospital.change("UPDATE finished_deliveries SET state = 'dead', finished_at = now()")
    assert [(await http.get("/v1/stats")).json()["dead_24h"] for http in (admin, partner.http)] == [1, 0]
