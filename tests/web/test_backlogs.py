"""Requests to an endpoint, found by what they met; and a backlog that is given up, which is said before it is done."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from uuid_utils.compat import uuid7

from tests.support.rows import store_event, store_open
from tests.web.serving import Api
from tests.web.world import World, make_world, post
from webhook_gateway.operations import deliveries
from webhook_gateway.operations.change import changing, local_actor
from webhook_gateway.rules import ids

ATTEMPT = """
INSERT INTO attempts (delivery_id, id, tenant_id, attempt, started_at, duration, phase, outcome, status)
VALUES ($1, $2, $3, $4, now(), 0.2, 'answered', $5, $6)
"""
CANCELLED = "SELECT id FROM finished_deliveries WHERE state = 'cancelled' AND state_reason = 'by_hand'"


@pytest.fixture
async def world(api: Api, admin: httpx.AsyncClient) -> World:
    return await make_world(api, admin, api.tenant_id)


async def attempted(api: Api, world: World, *outcomes: tuple[str, int | None]) -> str:
    """An open delivery with an attempt for each outcome."""
    endpoint_id, event_id = ids.parse(ids.ENDPOINT, world.endpoint_id), ids.parse(ids.EVENT, world.event_id)
    async with api.database.connection() as connection:
        delivery_id = await store_open(connection, api.tenant_id, endpoint_id, event_id)
        for number, (outcome, status) in enumerate(outcomes, 1):
            await connection.execute(ATTEMPT, delivery_id, uuid7(), api.tenant_id, number, outcome, status)
    return ids.render(ids.DELIVERY, delivery_id)


async def test_attempts_are_listed_by_outcome_and_status_page_after_page(
    api: Api, admin: httpx.AsyncClient, world: World
) -> None:
    first = await attempted(api, world, ("rejected", 503), ("rejected", 429), ("timed_out", None))
    second = await attempted(api, world, ("rejected", 503), ("accepted", 200))
    path = f"/v1/endpoints/{world.endpoint_id}/attempts"

    async def listed(**asked: Any) -> list[tuple[str, int]]:
        found: list[dict[str, Any]] = []
        while True:
            page = (await admin.get(path, params=asked)).json()
            found += page["items"]
            if page["next_cursor"] is None:
                return [(item["delivery_id"], item["attempt"]) for item in found]
            asked["cursor"] = page["next_cursor"]

    newest = [(second, 2), (second, 1), (first, 3), (first, 2), (first, 1), (world.delivery_id, 1)]
    assert await listed() == await listed(limit=1) == await listed(limit=4) == newest
    assert await listed(outcome="rejected", limit=1) == [(second, 1), (first, 2), (first, 1), (world.delivery_id, 1)]
    assert await listed(status=503) == [(second, 1), (first, 1)]
    assert await listed(status=503, outcome="accepted") == []
    assert await listed(until="2020-01-01T00:00:00Z") == []
    assert (await admin.get(path, params={"outcome": "dead"})).status_code == 422
    shown = (await admin.get(path, params={"outcome": "timed_out"})).json()["items"][0]
    assert (shown["event_id"], shown["status"]) == (world.event_id, None)


async def test_a_partners_key_lists_attempts_at_its_own_endpoints_only(
    api: Api, admin: httpx.AsyncClient, world: World
) -> None:
    other = await make_world(api, admin, api.tenant_id, "Southside")
    bound = {"subscriber_id": ids.parse(ids.SUBSCRIBER, other.subscriber_id)}
    async with await api.as_client("deliveries:read", **bound) as partner:
        own = await partner.get(f"/v1/endpoints/{other.endpoint_id}/attempts")
        assert [item["delivery_id"] for item in own.json()["items"]] == [other.delivery_id]
        assert (await partner.get(f"/v1/endpoints/{world.endpoint_id}/attempts")).status_code == 404


async def test_a_backlog_is_counted_first_and_then_given_up_but_for_what_is_being_sent(
    api: Api, admin: httpx.AsyncClient, world: World
) -> None:
    endpoint_id, event_id = ids.parse(ids.ENDPOINT, world.endpoint_id), ids.parse(ids.EVENT, world.event_id)
    async with api.database.connection() as connection:
        about = (connection, api.tenant_id, endpoint_id, event_id)
        head = await store_open(*about, ordering_key=7, sequence=1)
        behind = [await store_open(*about, ordering_key=7, sequence=2 + n, due_at=None) for n in range(3)]
        sending = await store_open(*about, lease_id=uuid7())
    waiting = {ids.parse(ids.DELIVERY, world.open_delivery_id), head, *behind}
    about_it = {"endpoint_id": world.endpoint_id, "type": "staff_shift.assigned"}
    path = "/v1/deliveries/cancel"
    assert await post(admin, path, {**about_it, "dry_run": True}) == {"count": 5, "more": False}
    assert await post(admin, path, {"type": "staff_shift.changed"}) == {"count": 0, "more": False}
    assert await post(admin, path, {"until": "2020-01-01T00:00:00Z"}) == {"count": 0, "more": False}
    assert await post(admin, path, about_it) == {"count": 5, "more": False}
    assert await post(admin, path, about_it) == {"count": 0, "more": False}
    async with api.database.connection() as connection:
        assert {row["id"] for row in await connection.fetch(CANCELLED)} == waiting
        assert await connection.fetchval("SELECT array_agg(id) FROM deliveries") == [sending]
    entries = (await admin.get("/v1/audit")).json()["items"]
    given_up = [entry for entry in entries if entry["action"] == "deliveries.cancelled"]
    assert [entry["target"] for entry in given_up] == [world.endpoint_id, world.endpoint_id, "deliveries", "deliveries"]
    assert given_up[1]["after"] == {"type": "staff_shift.assigned", "count": 5}
    refused = await admin.post(path, json={"dry_run": True})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "")


async def test_a_partners_key_gives_up_only_what_waits_for_its_own_endpoints(
    api: Api, admin: httpx.AsyncClient, world: World
) -> None:
    other = await make_world(api, admin, api.tenant_id, "Southside")
    bound = {"subscriber_id": ids.parse(ids.SUBSCRIBER, other.subscriber_id)}
    async with await api.as_client("deliveries:write", **bound) as partner:
        refused = await partner.post("/v1/deliveries/cancel", json={"endpoint_id": world.endpoint_id})
        assert refused.status_code == 404
        since = {"since": "2020-01-01T00:00:00Z"}
        assert await post(partner, "/v1/deliveries/cancel", since) == {"count": 1, "more": False}
    async with api.database.connection() as connection:
        left = await connection.fetchval("SELECT array_agg(id) FROM deliveries")
    assert left == [ids.parse(ids.DELIVERY, world.open_delivery_id)]


async def test_a_backlog_is_given_up_ten_thousand_at_a_time(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MANY", 3)
    endpoint_id = ids.parse(ids.ENDPOINT, world.endpoint_id)
    async with api.database.connection() as connection:
        event_id = await store_event(api, connection, api.tenant_id)
        for _ in range(6):
            await store_open(connection, api.tenant_id, endpoint_id, event_id, due_at=datetime.now(UTC))

    async def cancel(*, dry_run: bool) -> tuple[int, bool]:
        wanted: dict[str, UUID] = {"endpoint_id": endpoint_id}
        async with changing(api.database, local_actor(api.tenant_id)) as change:
            answer = await deliveries.cancel_many(change, wanted, dry_run=dry_run)
        assert isinstance(answer, tuple)
        return answer

    assert await cancel(dry_run=True) == (3, True)
    assert [await cancel(dry_run=False) for _ in range(3)] == [(3, True), (3, True), (1, False)]
