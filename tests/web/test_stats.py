"""What the API says of how endpoints fare, and to whom."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.support.rows import store_attempts
from tests.web.serving import Api
from tests.web.world import World, make_world
from webhook_gateway.rules import ids
from webhook_gateway.store import keys


@pytest.fixture
async def world(api: Api, admin: httpx.AsyncClient) -> World:
    return await make_world(api, admin, api.tenant_id)


async def note(api: Api, world: World, **what: Any) -> None:
    endpoint_id, delivery_id = ids.parse(ids.ENDPOINT, world.endpoint_id), ids.parse(ids.DELIVERY, world.delivery_id)
    async with api.database.connection() as connection:
        await store_attempts(connection, api.tenant_id, endpoint_id, delivery_id, **what)


async def test_an_endpoint_shows_success_durations_and_when_it_last_took_something(
    api: Api, admin: httpx.AsyncClient, world: World
) -> None:
    await note(api, world, outcome="accepted", status=None, attempts=98, duration=0.02, seconds_ago=30)
    await note(api, world, outcome="accepted", status=None, attempts=1, duration=2.0, seconds_ago=1_800)
    for path in (f"/v1/endpoints/{world.endpoint_id}/stats", "/v1/stats/attempts"):
        found = (await admin.get(path, params={"window": "1h"})).json()
        assert (found["attempts"], found["accepted"], found["success"]) == (100, 99, 0.99)
        assert found["p50_seconds"] == pytest.approx(0.02, rel=1 / 9)
        assert found["p99_seconds"] == pytest.approx(2.0, rel=1 / 9)
        assert len(found["buckets"]) == 60
        assert sorted(bucket["attempts"] for bucket in found["buckets"] if bucket["attempts"])[0] == 1
        assert sum(bucket["attempts"] for bucket in found["buckets"]) == 100
    assert sorted((one["outcome"], one["status"]) for one in found["outcomes"]) == [
        ("accepted", None),
        ("rejected", None),
    ]
    found = (await admin.get(f"/v1/endpoints/{world.endpoint_id}/stats")).json()
    assert {(one["outcome"], one["status"], one["attempts"]) for one in found["outcomes"]} == {
        ("accepted", None, 99),
        ("rejected", 503, 1),
    }
    assert datetime.fromisoformat(found["last_success_at"]).tzinfo is not None
    assert found["backlog"]["open"] == 1


@pytest.mark.parametrize(("window", "buckets"), [("1h", 60), ("24h", 24), ("7d", 168), ("90d", 90)])
async def test_a_window_has_all_of_its_buckets_and_nothing_from_before(
    api: Api, admin: httpx.AsyncClient, world: World, window: str, buckets: int
) -> None:
    seconds = {"1h": 3_600, "24h": 86_400, "7d": 604_800, "90d": 7_776_000}[window]
    await note(api, world, outcome="accepted", status=None, seconds_ago=seconds + 1)
    found = (await admin.get(f"/v1/endpoints/{world.endpoint_id}/stats", params={"window": window})).json()
    assert [len(found["buckets"]), found["attempts"], found["window"]] == [buckets, 1, window]
    assert sum(bucket["attempts"] for bucket in found["buckets"][-2:]) == 1
    begins = [datetime.fromisoformat(bucket["begins_at"]) for bucket in found["buckets"]]
    assert {(later - earlier).total_seconds() for earlier, later in pairwise(begins)} == {seconds / buckets}


async def test_an_unknown_window_is_refused_with_those_that_there_are(admin: httpx.AsyncClient, world: World) -> None:
    answer = await admin.get("/v1/stats/attempts", params={"window": "1y"})
    assert answer.status_code == 422
    assert "24h" in answer.text


async def test_a_problem_names_its_endpoint_and_an_example_and_goes_when_the_endpoint_takes_something(
    api: Api, admin: httpx.AsyncClient, world: World
) -> None:
    (problem,) = (await admin.get("/v1/problems")).json()["items"]
    assert (problem["endpoint_id"], problem["outcome"], problem["status"]) == (world.endpoint_id, "rejected", 503)
    assert (problem["delivery_id"], problem["subscriber_id"]) == (world.delivery_id, world.subscriber_id)
    await note(api, world, outcome="accepted", status=None, seconds_ago=-1)
    assert (await admin.get("/v1/problems")).json()["items"] == []


async def test_a_partner_sees_what_concerns_its_own_endpoints(api: Api, admin: httpx.AsyncClient, world: World) -> None:
    other = await make_world(api, admin, api.tenant_id, "Southside")
    await note(api, other, outcome="accepted", status=None, attempts=5)
    await note(api, other, status=404)
    async with api.database.begin() as connection:
        own = ids.parse(ids.SUBSCRIBER, other.subscriber_id)
        scopes = ["deliveries:read"]
        _, key = await keys.issue(connection, api.tenant_id, keys.NewKey("partner", scopes, subscriber_id=own))
    async with api.client(key) as partner:
        whole = (await partner.get("/v1/stats/attempts")).json()
        assert (whole["attempts"], whole["accepted"]) == (7, 5)
        found = (await partner.get("/v1/problems", params={"endpoint_id": world.endpoint_id})).json()
        assert found["items"] == []
        assert (await partner.get(f"/v1/endpoints/{world.endpoint_id}/stats")).status_code == 404
        assert (await partner.get(f"/v1/endpoints/{other.endpoint_id}/stats")).json()["attempts"] == 7
    assert (await admin.get("/v1/stats/attempts")).json()["attempts"] == 8
