"""API keys: narrow ones, and how they end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.support.rows import EVERYTHING
from tests.web.serving import Api, running
from tests.web.world import post
from webhook_gateway.rules import api_keys
from webhook_gateway.rules.scopes import OF_PATIENTS, SCOPES_OF, Role

SHIFT = {"type": "staff_shift.cancelled", "data": {"shift_id": "s", "staff_id": "t", "version": 1}}


async def test_a_key_is_shown_once_and_stored_as_a_hash(api: Api, admin: httpx.AsyncClient) -> None:
    made = await post(admin, "/v1/keys", {"name": "LIS", "role": "producer"})
    assert api_keys.is_key(made["key"])
    assert made["key"].startswith(made["prefix"])
    for path in ("/v1/keys", f"/v1/keys/{made['id']}", "/v1/audit"):
        assert made["key"] not in (await admin.get(path)).text
    async with api.database.connection() as connection:
        stored = await connection.fetchval("SELECT string_agg(api_keys::text, '') FROM api_keys")
    assert made["key"][len(made["prefix"]) :] not in stored


@pytest.mark.parametrize("role", Role)
async def test_a_role_is_a_set_of_scopes(admin: httpx.AsyncClient, role: Role) -> None:
    body: dict[str, Any] = {"name": "x", "role": role.value}
    if role is Role.PARTNER:
        assert (await admin.post("/v1/keys", json=body)).status_code == 422
        body["subscriber_id"] = (await post(admin, "/v1/subscribers", {"name": "Lab", **EVERYTHING}))["id"]
    response = await admin.post("/v1/keys", json=body)
    if role is Role.PRIVACY_OFFICER:
        assert response.status_code == 403, "an administrator can't grant what it lacks"
        assert "payload:read" in response.json()["detail"]
    else:
        assert set(response.json()["scopes"]) == SCOPES_OF[role]


async def test_a_key_can_only_grant_what_it_holds(api: Api) -> None:
    async with api.client(await api.make_key("admin", *OF_PATIENTS)) as both:
        assert (
            set((await post(both, "/v1/keys", {"name": "x", "role": "privacy_officer"}))["scopes"])
            == SCOPES_OF[Role.PRIVACY_OFFICER]
        )


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({}, ""),
        ({"role": "producer", "scopes": ["events:write"]}, ""),
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["root"]}, "/scopes/0"),
        ({"role": "producer", "networks": ["10.20.0.1/16"]}, "/networks/0"),
        ({"role": "producer", "networks": ["everywhere"]}, "/networks/0"),
        ({"role": "producer", "event_types": ["Lab"]}, "/event_types/0"),
        ({"role": "producer", "expires_at": "soon"}, "/expires_at"),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(
    admin: httpx.AsyncClient, wrong: dict[str, Any], pointer: str
) -> None:
    response = await admin.post("/v1/keys", json={"name": "x", **wrong})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == pointer


async def test_a_subscribers_key_is_never_about_the_whole_hospital(admin: httpx.AsyncClient) -> None:
    subscriber = await post(admin, "/v1/subscribers", {"name": "Lab", **EVERYTHING})
    for scopes in (["admin"], ["events:write"], ["audit:read", "deliveries:read"]):
        body = {"name": "x", "scopes": scopes, "subscriber_id": subscriber["id"]}
        assert (await admin.post("/v1/keys", json=body)).status_code == 422


async def test_a_revoked_key_posts_nothing_more_though_its_requests_look_as_before(
    admin: httpx.AsyncClient, api: Api
) -> None:
    made = await post(admin, "/v1/keys", {"name": "HMS", "role": "producer"})
    event = {"type": "shift.scheduled", "data": {}}
    async with api.client(made["key"]) as client:
        before = {(await client.post("/v1/events", json=event)).status_code for _ in range(3)}
        await post(admin, f"/v1/keys/{made['id']}/revoke")
        after = {(await client.post("/v1/events", json=event)).status_code for _ in range(3)}
    assert (before, after) == ({422}, {401})


async def test_a_revoked_key_ends_at_once_here(admin: httpx.AsyncClient, api: Api) -> None:
    made = await post(admin, "/v1/keys", {"name": "LIS", "role": "auditor"})
    async with api.client(made["key"]) as client:
        assert (await client.get("/v1/stats")).status_code == 200
        revoked = await post(admin, f"/v1/keys/{made['id']}/revoke")
        assert (await client.get("/v1/stats")).status_code == 401
    assert (await post(admin, f"/v1/keys/{made['id']}/revoke"))["revoked_at"] == revoked["revoked_at"]


async def test_a_key_can_not_lock_everybody_out(admin: httpx.AsyncClient) -> None:
    (own,) = (await admin.get("/v1/keys")).json()["items"]
    assert (await admin.post(f"/v1/keys/{own['id']}/revoke")).status_code == 409


async def test_a_remembered_key_still_expires(api: Api) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=1.5)
    async with api.client(await api.make_key("deliveries:read", expires_at=ends)) as client:
        assert (await client.get("/v1/stats")).status_code == 200
        while (answer := await client.get("/v1/stats")).status_code == 200:
            assert datetime.now(UTC) < ends + timedelta(seconds=1)
        assert answer.status_code == 401


async def test_a_key_may_be_bound_to_networks_and_event_types(api: Api) -> None:
    bound: dict[str, Any] = {"networks": ["127.0.0.0/8", "::1/128"], "event_types": ["staff_shift.*"]}
    async with api.client(await api.make_key("events:write", **bound)) as producer:
        assert (await producer.post("/v1/events", json=SHIFT)).status_code == 202
        assert (await producer.post("/v1/events", json={**SHIFT, "type": "lab_order.placed"})).status_code == 403


async def test_a_bounded_administrator_makes_only_keys_with_the_same_bounds(api: Api) -> None:
    ends = datetime.now(UTC) + timedelta(hours=1)
    bounds: dict[str, Any] = {"networks": ["127.0.0.0/8"], "event_types": ["lab_order.*"]}
    async with api.client(await api.make_key("admin", **bounds, expires_at=ends)) as admin:
        body: dict[str, Any] = {"name": "x", "scopes": ["admin"], **bounds, "expires_at": ends.isoformat()}
        assert (await admin.post("/v1/keys", json=body)).status_code == 201
        for name, wider in (
            ("expires_at", (ends + timedelta(seconds=1)).isoformat()),
            ("expires_at", None),
            ("networks", ["126.0.0.0/7"]),
            ("networks", None),
            ("event_types", ["*"]),
            ("event_types", None),
        ):
            refused = await admin.post("/v1/keys", json={**body, name: wider})
            assert (refused.status_code, name in refused.json()["detail"]) == (403, True), refused.text


async def test_a_partners_key_has_quotas(database_url: str) -> None:
    bounds = {"partner_endpoints": 1, "partner_header_bytes": 10, "partner_tests_a_day": 1, "partner_open_replays": 0}
    async with running(database_url, **bounds) as api, api.client(await api.make_key("admin")) as admin:
        subscriber = (await post(admin, "/v1/subscribers", {"name": "Lab", **EVERYTHING}))["id"]
        made = await post(admin, "/v1/keys", {"name": "x", "role": "partner", "subscriber_id": subscriber})
        body = {"subscriber_id": subscriber, "url": "https://a.example.com/", "event_types": ["*"]}
        async with api.client(made["key"]) as partner:
            large = await partner.post("/v1/endpoints", json={**body, "headers": {"X-A": "12345678"}})
            assert (large.status_code, large.json()["errors"][0]["pointer"]) == (422, "/headers")
            endpoint = await post(partner, "/v1/endpoints", body)
            assert (await partner.post("/v1/endpoints", json=body)).status_code == 409
            await post(partner, f"/v1/endpoints/{endpoint['id']}/test")
            again = await partner.post(f"/v1/endpoints/{endpoint['id']}/test")
            assert (again.status_code, again.headers["retry-after"]) == (429, "3600")
            assert (await partner.post("/v1/replays", json={"all": True})).status_code == 409
        await post(admin, "/v1/endpoints", {**body, "headers": {"X-A": "12345678"}})
        await post(admin, f"/v1/endpoints/{endpoint['id']}/test")


async def test_a_partners_key_may_want_only_what_the_hospital_gave_it(admin: httpx.AsyncClient, api: Api) -> None:
    subscriber = (await post(admin, "/v1/subscribers", {"name": "Lab", **EVERYTHING}))["id"]
    bound = {"subscriber_id": subscriber, "event_types": ["lab_order.*"]}
    made = await post(admin, "/v1/keys", {"name": "x", "role": "partner", **bound})
    async with api.client(made["key"]) as partner:
        body = {"subscriber_id": subscriber, "url": "https://a.example.com/"}
        for given, status in (
            (["lab_order.placed"], 201),
            (["lab_order.*"], 201),
            (["*"], 422),
            (["lab_result.final"], 422),
            (["gateway.*"], 422),
        ):
            response = await partner.post("/v1/endpoints", json={**body, "event_types": given})
            assert response.status_code == status, response.text
        endpoint = (await partner.get("/v1/endpoints")).json()["items"][0]
        widened = await partner.patch(f"/v1/endpoints/{endpoint['id']}", json={"event_types": ["*"]})
        assert widened.status_code == 422


async def test_the_last_use_of_a_key_is_written_down(api: Api, admin: httpx.AsyncClient) -> None:
    made = await post(admin, "/v1/keys", {"name": "LIS", "role": "auditor"})
    assert made["last_used_at"] is None
    async with api.client(made["key"]) as client:
        await client.get("/v1/stats")
    assert (await admin.get(f"/v1/keys/{made['id']}")).json()["last_used_at"] is not None
