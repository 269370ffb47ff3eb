"""A document of partners over the API: rehearsed, agreed to, and done as a whole."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.hospital import Hospital
from tests.web.serving import Api
from tests.web.world import make_world

URL = "https://lab.example.com/in"


def lab(**members: Any) -> dict[str, Any]:
    return {"subscribers": [{"name": "Lab", "event_types": ["lab_result.*"], **members}]}


async def apply(client: httpx.AsyncClient, document: dict[str, Any], **query: Any) -> httpx.Response:
    return await client.post("/v1/partners", json=document, params=query)


async def test_what_somebody_agreed_to_is_done_and_nothing_else(admin: httpx.AsyncClient) -> None:
    document = lab(endpoints=[{"name": "results", "url": URL}])
    planned = (await apply(admin, document, dry_run=True)).json()
    assert [step["key"] for step in planned["steps"]] == [None, None]
    assert (await admin.get("/v1/subscribers")).json()["items"] == []
    assert (await admin.post("/v1/subscribers", json={"name": "Lab"})).status_code == 201
    refused = await apply(admin, document, plan=planned["plan"])
    assert (refused.status_code, "new plan" in refused.json()["detail"]) == (409, True)
    again = (await apply(admin, document, dry_run=True)).json()
    applied = (await apply(admin, document, plan=again["plan"])).json()
    assert applied["plan"] == again["plan"]
    assert [step["action"] for step in applied["steps"]] == ["subscriber.changed", "endpoint.created"]
    assert applied["steps"][1]["key"].startswith("whsec_")


async def test_a_fault_anywhere_leaves_nothing_and_all_faults_are_told_at_once(admin: httpx.AsyncClient) -> None:
    document = {
        "subscribers": [
            {"name": "Good", "endpoints": [{"url": URL}]},
            {"name": "Bad", "event_types": ["lab_result.fnial"]},
            {"name": "Good", "endpoints": [{"url": "http://127.0.0.1/"}]},
        ]
    }
    refused = await apply(admin, document)
    assert refused.status_code == 422
    assert [(fault["pointer"], fault["rule"]) for fault in refused.json()["errors"]] == [
        ("/subscribers/1/event_types/0", "unknown_event_type"),
        ("/subscribers/2", "conflict"),
    ]
    for path in ("/v1/subscribers", "/v1/endpoints", "/v1/audit"):
        assert (await admin.get(path)).json()["items"] == []


async def test_open_deliveries_are_cut_off_only_where_that_is_said(
    api: Api, admin: httpx.AsyncClient, hospital: Hospital
) -> None:
    world = await make_world(api, admin, api.tenant_id)
    narrowed = {"subscribers": [{"name": "Northside", "event_types": ["payment.*"]}]}
    refused = await apply(admin, narrowed)
    assert (refused.status_code, "cut off" in refused.json()["errors"][0]["remedy"]) == (422, True)
    assert (await apply(admin, narrowed, cancel_open=True)).status_code == 200
    assert await hospital.rows("SELECT FROM endpoints WHERE cut_off_at IS NOT NULL") != []
    assert (await apply(admin, {"subscribers": []}, prune=True)).status_code == 200
    assert (await admin.get(f"/v1/endpoints/{world.endpoint_id}")).status_code == 404


async def test_a_name_is_an_endpoints_own_among_its_subscribers(admin: httpx.AsyncClient) -> None:
    first = (await admin.post("/v1/subscribers", json={"name": "A"})).json()["id"]
    second = (await admin.post("/v1/subscribers", json={"name": "B"})).json()["id"]
    made = [
        await admin.post("/v1/endpoints", json={"subscriber_id": of, "url": URL, "name": name})
        for of, name in ((first, "in"), (second, "in"), (first, "in"), (first, None), (first, None))
    ]
    assert [one.status_code for one in made] == [201, 201, 409, 201, 201]
    renamed = await admin.patch(f"/v1/endpoints/{made[3].json()['id']}", json={"name": "in"})
    assert (renamed.status_code, "name" in renamed.json()["detail"]) == (409, True)
    assert (await admin.delete(f"/v1/endpoints/{made[0].json()['id']}")).status_code == 204
    assert (await admin.patch(f"/v1/endpoints/{made[3].json()['id']}", json={"name": "in"})).status_code == 200


@pytest.mark.parametrize("query", [{}, {"dry_run": True}])
async def test_a_partners_own_key_applies_nothing(api: Api, admin: httpx.AsyncClient, query: dict[str, bool]) -> None:
    await apply(admin, lab())
    (one,) = (await admin.get("/v1/subscribers")).json()["items"]
    key = (await admin.post("/v1/keys", json={"name": "theirs", "role": "partner", "subscriber_id": one["id"]})).json()[
        "key"
    ]
    async with api.client(key) as partner:
        assert (await apply(partner, lab(content="full"), **query)).status_code == 403
