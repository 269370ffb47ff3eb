"""What an endpoint's contract says is what its partner gets: by an OpenAPI 3.1 validator, and by live deliveries."""

from __future__ import annotations

import json
from typing import Any

import httpx
import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from tests.support.hospital import Hospital
from tests.support.partner import Received, partner
from tests.web.serving import Api
from tests.web.world import post
from webhook_gateway.intake.catalogue import shipped
from webhook_gateway.rules import ids

OWN = {
    "name": "ward.opened",
    "description": "A ward opens",
    "schema": {
        "$defs": {"place": {"type": "object", "properties": {"floor": {"type": "integer"}}, "required": ["floor"]}},
        "type": "object",
        "properties": {"ward": {"type": "string"}, "at": {"$ref": "#/$defs/place"}, "code": {"type": "string"}},
    },
    "example": {"ward": "7", "at": {"floor": 3}, "code": "4711"},
}
SOME = {"level": "fields", "pointers": ["/patient_id", "/amount/value", "/ward", "/at", "/tests/*/code"]}


async def contract_of(client: httpx.AsyncClient, endpoint_id: str) -> dict[str, Any]:
    answer = await client.get(f"/v1/endpoints/{endpoint_id}/contract")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    OPENAPI_31_VALIDATOR.validate(found)
    return found


def judged(contract: dict[str, Any], received: Received) -> bool:
    """Whether a delivery is as the contract says: headers and body."""
    operation = contract["webhooks"][json.loads(received.body)["type"]]["post"]
    for reference in operation["parameters"]:
        parameter = contract["components"]["parameters"][reference["$ref"].rpartition("/")[2]]
        given = received.headers.get(parameter["name"])
        if given is None:
            assert not parameter["required"], parameter
        else:
            assert jsonschema_rs.is_valid(parameter["schema"], given), parameter
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return jsonschema_rs.is_valid(schema, json.loads(received.body), validate_formats=True)


@pytest.mark.parametrize("content", [{"level": "full"}, SOME, {"level": "thin"}, {"level": "fields", "pointers": []}])
async def test_every_type_is_delivered_as_the_contract_says(
    api: Api, admin: httpx.AsyncClient, hospital: Hospital, content: dict[str, Any]
) -> None:
    await post(admin, "/v1/event-types", OWN)
    subscriber = await post(admin, "/v1/subscribers", {"name": "X", "event_types": ["*"], "content": content})
    other = await post(admin, "/v1/subscribers", {"name": "Y", "event_types": ["*"], "content": {"level": "full"}})
    names = [known.name for known in shipped()]
    async with partner() as there:
        made = [
            await hospital.endpoint(url=there.url(path), subscriber_id=ids.parse(ids.SUBSCRIBER, who["id"]))
            for path, who in (("/cut", subscriber), ("/full", other))
        ]
        cut_id, full_id = (ids.render(ids.ENDPOINT, endpoint_id) for endpoint_id in made)
        async with hospital.worker():
            for name in names:
                await hospital.accept(name)
            for name in ("ward.opened", "gateway.test"):
                await post(admin, f"/v1/endpoints/{cut_id}/test", {"event_type": name})
            received = await there.got(len(names) + 2, "/cut")
            whole = await there.got(len(names), "/full")
    contract, of_whole = await contract_of(admin, cut_id), await contract_of(admin, full_id)
    assert set(contract["webhooks"]) == {*names, "ward.opened", "gateway.test"}
    assert all(judged(contract, one) for one in received)
    assert all(judged(of_whole, one) for one in whole)
    left = [json.loads(one.body)["data"] for one in received]
    more = [one for one in whole if json.loads(one.body)["data"] not in left]
    assert bool(more) is (content["level"] != "full")
    assert not any(judged(contract, one) for one in more), "what is not in the set is not in the contract"


async def test_a_partners_key_sees_its_own_contract_with_no_more_types_than_it_gets(
    api: Api, admin: httpx.AsyncClient
) -> None:
    mine, theirs = [
        await post(admin, "/v1/subscribers", {"name": name, "event_types": ["payment.*", "lab_order.*"]})
        for name in ("Mine", "Theirs")
    ]
    of_mine, of_theirs = [
        await post(
            admin,
            "/v1/endpoints",
            {"subscriber_id": one["id"], "url": "https://a.example.com/", "event_types": ["payment.*"]},
        )
        for one in (mine, theirs)
    ]
    key = await post(admin, "/v1/keys", {"name": "p", "role": "partner", "subscriber_id": mine["id"]})
    async with api.client(key["key"]) as client:
        contract = await contract_of(client, of_mine["id"])
        assert (await client.get(f"/v1/endpoints/{of_theirs['id']}/contract")).status_code == 404
    assert set(contract["webhooks"]) == {"payment.processed", "payment.failed", "payment.refunded", "gateway.test"}
    assert contract["info"] == {"title": f"Webhooks of {of_mine['id']}", "version": "1"}
    for webhook in contract["webhooks"].values():
        assert "subject" not in json.dumps(webhook["post"]["requestBody"]), "it is not in the content"
