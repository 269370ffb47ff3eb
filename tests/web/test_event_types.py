"""Event types: the shipped ones can be read, one's own can be made."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.web.serving import Api
from tests.web.world import post
from webhook_gateway.intake.catalogue import shipped
from webhook_gateway.rules.schema_cost import at

OWN: dict[str, Any] = {
    "name": "dialysis.session_ended",
    "schema": {"type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]},
    "example": {"minutes": 240},
    "ordering_key": "machine:{machine_id}",
}


def nested(keyword: str, times: int) -> dict[str, Any]:
    """Two references side by side, each to two more: followed, they double with each level."""
    below = {
        f"d{level}": {keyword: [{"$ref": f"#/$defs/d{level + 1}"}, {"$ref": f"#/$defs/d{level + 1}"}]}
        for level in range(times)
    }
    return {"$defs": {**below, f"d{times}": {"type": "object"}}, "$ref": "#/$defs/d0"}


async def test_the_shipped_catalogue_is_listed(admin: httpx.AsyncClient) -> None:
    items = (await admin.get("/v1/event-types")).json()["items"]
    names = [item["name"] for item in items]
    assert names == sorted(names)
    assert {item["name"] for item in items if item["source"] == "catalogue"} == {known.name for known in shipped()}
    assert "gateway.endpoint_disabled" in names


async def test_an_own_type_is_accepted_at_once(admin: httpx.AsyncClient) -> None:
    made = await post(admin, "/v1/event-types", OWN)
    assert made == {**OWN, "description": "", "source": "tenant", "thin": [], "patient": []}
    assert (await admin.get(f"/v1/event-types/{OWN['name']}")).json() == made
    event = {"type": OWN["name"], "data": {"minutes": 3}}
    assert (await admin.post("/v1/events", json=event)).status_code == 202
    schema = {**OWN["schema"], "required": ["minutes", "machine_id"]}
    path = f"/v1/event-types/{OWN['name']}"
    assert (await admin.patch(path, json={"schema": schema})).status_code == 422, "the example doesn't fit any more"
    example = {"minutes": 1, "machine_id": "m1"}
    assert (await admin.patch(path, json={"schema": schema, "example": example})).json()["example"] == example
    assert (await admin.post("/v1/events", json=event)).status_code == 422
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.get(path)).status_code == 404
    assert (await admin.post("/v1/events", json=event)).status_code == 422


async def test_an_own_type_says_what_a_thin_body_has_and_where_patients_are(admin: httpx.AsyncClient) -> None:
    path, pointers = f"/v1/event-types/{OWN['name']}", {"thin": ["/minutes"], "patient": ["/minutes"]}
    made = await post(admin, "/v1/event-types", {**OWN, **pointers})
    assert {name: made[name] for name in pointers} == pointers
    without = {"properties": {"hours": {"type": "integer"}}}
    refused = await admin.patch(path, json={"schema": without, "example": {"hours": 1}})
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/thin/0", "/patient/0"]
    changes = {"schema": without, "example": {"hours": 1}, "thin": ["/hours"], "patient": []}
    changed = await admin.patch(path, json=changes)
    assert (changed.status_code, changed.json()["thin"], changed.json()["patient"]) == (200, ["/hours"], [])


async def test_what_ships_with_the_product_stays(admin: httpx.AsyncClient) -> None:
    for name in ("lab_result.final", "gateway.test"):
        path = f"/v1/event-types/{name}"
        assert (await admin.patch(path, json={"description": "mine"})).status_code == 409
        assert (await admin.delete(path)).status_code == 409
        assert (await admin.post("/v1/event-types", json={**OWN, "name": name})).status_code in {409, 422}
    await post(admin, "/v1/event-types", OWN)
    assert (await admin.post("/v1/event-types", json=OWN)).status_code == 409


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"schema": {"type": "nonsense"}}, "/schema/type"),
        ({"schema": {"properties": {"minutes": {"minimum": "none"}}}}, "/schema/properties/minutes/minimum"),
        ({"schema": {"$ref": "https://elsewhere.example.com/schema"}}, "/schema/$ref"),
        ({"schema": {"items": {"$ref": "#/$defs/nowhere"}}}, "/schema/items/$ref"),
        ({"schema": {"pattern": "("}}, "/schema/pattern"),
        ({"schema": {"pattern": r"(?=.*a)(.*)\1$"}}, "/schema/pattern"),
        ({"schema": {"properties": {"a": {"pattern": "a[ab]{2000}c"}}}}, "/schema/properties/a"),
        ({"schema": {"allOf": [{"$ref": "#"}]}}, "/schema"),
        ({"example": {"minutes": "a"}}, "/example/minutes"),
        ({"example": {}}, "/example"),
        ({"example": {"minutes": 1, "text": "\x00"}}, "/example"),
        ({"name": "gateway.mine"}, "/name"),
        ({"name": "Dialysis"}, "/name"),
        ({"ordering_key": "constant"}, "/ordering_key"),
        ({"thin": ["/minutes", "/hours"]}, "/thin/1"),
        ({"thin": ["/minutes/0"]}, "/thin/0"),
        ({"patient": ["minutes"]}, "/patient/0"),
        ({"thin": ["/minutes"] * 201}, "/thin"),
    ],
)
async def test_a_type_that_can_not_work_is_refused(
    admin: httpx.AsyncClient, wrong: dict[str, Any], pointer: str
) -> None:
    response = await admin.post("/v1/event-types", json={**OWN, **wrong})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    "schema",
    [
        nested("allOf", 27),
        nested("anyOf", 44),
        {"items": {"$ref": "#/$defs/d0"}, "$defs": nested("oneOf", 30)["$defs"]},
    ],
)
async def test_a_schema_that_explodes_is_refused_with_a_place_in_it(
    admin: httpx.AsyncClient, schema: dict[str, Any]
) -> None:
    await post(admin, "/v1/event-types", OWN)
    for response in (
        await admin.post("/v1/event-types", json={**OWN, "name": "dialysis.exploding", "schema": schema}),
        await admin.patch(f"/v1/event-types/{OWN['name']}", json={"schema": schema}),
    ):
        assert response.status_code == 422
        (fault,) = response.json()["errors"]
        assert fault["pointer"].startswith("/schema/")
        at(schema, fault["pointer"].removeprefix("/schema"))


async def test_own_types_are_of_one_hospital(api: Api, admin: httpx.AsyncClient) -> None:
    from webhook_gateway.store import tenants

    await post(admin, "/v1/event-types", OWN)
    async with api.database.connection() as connection:
        other = await tenants.make(connection, api.vault, "another hospital")
    async with api.client(await api.make_key("admin", tenant_id=other)) as stranger:
        assert (await stranger.get(f"/v1/event-types/{OWN['name']}")).status_code == 404
        assert OWN["name"] not in (await stranger.get("/v1/event-types")).text
