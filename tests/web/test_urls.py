"""A URL's query is a secret, and what was for one host goes to another only for who may read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from uuid_utils.compat import uuid7

from tests.support.hospital import Hospital
from tests.support.partner import partner, status
from tests.support.rows import store_event, store_finished
from tests.web.serving import Api
from tests.web.world import World, make_world, post
from webhook_gateway.rules import ids
from webhook_gateway.rules.targets import MASK
from webhook_gateway.store import configuration, gateway_status, replays

SECRET = "zzcanary-0815"
URL = f"https://lab.example.com/in?key={SECRET}&b=%2F"
OLD_WORKER = "INSERT INTO workers (id, name, seen_at) VALUES ($1, 'old', now() + interval '1 hour')"


@pytest.fixture
async def world(api: Api, admin: httpx.AsyncClient) -> World:
    return await make_world(api, admin, api.tenant_id)


@pytest.fixture
async def operator(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """Sees everything but payloads, and changes no URL."""
    async with await api.as_client("endpoints:read", "deliveries:read", "deliveries:write", "audit:read") as client:
        yield client


async def patched(client: httpx.AsyncClient, world: World, **changes: Any) -> dict[str, Any]:
    response = await client.patch(f"/v1/endpoints/{world.endpoint_id}", json=changes)
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown


async def test_a_query_is_sealed_and_shown_in_full_only_to_who_may_change_the_url(
    api: Api, admin: httpx.AsyncClient, operator: httpx.AsyncClient, world: World
) -> None:
    path = f"/v1/endpoints/{world.endpoint_id}"
    masked = "https://lab.example.com/in" + MASK
    assert (await patched(admin, world, url=URL))["url"] == URL
    assert (await admin.get(path)).json()["url"] == URL
    assert (await operator.get(path)).json()["url"] == masked
    assert (await post(operator, f"{path}/pause"))["url"] == masked
    bound = {"scopes": ["endpoints:read", "endpoints:write"], "event_types": ["payment.*"]}
    async with await api.as_client(*bound["scopes"], event_types=("payment.*",)) as other:
        assert (await other.get(path)).json()["url"] == masked, "may not redirect what it may not have"
    for client in (admin, operator):
        assert [item["url"] for item in (await client.get("/v1/endpoints")).json()["items"]] == [masked]
    created = {"subscriber_id": world.subscriber_id, "url": URL, "event_types": ["staff_shift.*"]}
    async with api.database.connection() as connection:
        (troubled,) = await gateway_status.in_trouble(connection, 10)
    assert troubled["url"] == masked
    made = await post(admin, "/v1/endpoints", created)
    assert made["url"] == URL
    assert (await admin.delete(f"/v1/endpoints/{made['id']}")).status_code == 204
    audit = (await operator.get("/v1/audit")).text
    assert "lab.example.com/in?" in audit
    assert SECRET not in audit
    async with api.database.connection() as connection:
        rows = await connection.fetch("SELECT e::text FROM endpoints e UNION ALL SELECT a::text FROM audit_log a")
    assert all(SECRET not in row[0] and SECRET.encode().hex() not in row[0] for row in rows)


async def test_what_is_masked_is_not_taken_for_a_query_and_none_is_echoed(
    admin: httpx.AsyncClient, world: World
) -> None:
    path = f"/v1/endpoints/{world.endpoint_id}"
    for url in ("https://lab.example.com/in" + MASK, f"http://lab.example.com/?{SECRET}", f"https://{SECRET}@a.b/"):
        refused = await admin.patch(path, json={"url": url})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/url")
        assert SECRET not in refused.text
    oauth = {"kind": "oauth2", "token_url": URL, "client_id": "gw", "client_secret": "s"}
    shown = await patched(admin, world, authorization=oauth)
    assert shown["authorization"]["token_url"] == "https://lab.example.com/in" + MASK


async def test_while_an_old_worker_lives_no_query_is_taken_that_it_would_leave_out(
    api: Api, admin: httpx.AsyncClient, world: World
) -> None:
    async with api.database.connection() as connection:
        await connection.execute(OLD_WORKER, uuid7())
    for method, path in (("POST", "/v1/endpoints"), ("PATCH", f"/v1/endpoints/{world.endpoint_id}")):
        body = {"url": URL} | ({"subscriber_id": world.subscriber_id} if method == "POST" else {})
        refused = await admin.request(method, path, json={**body, "event_types": ["staff_shift.*"]})
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (409, "workers-too-old")
    assert (await patched(admin, world, url="https://lab.example.com/other"))["url"] == "https://lab.example.com/other"


async def test_what_the_version_before_wrote_is_sent_as_it_is_and_sealed_once_no_worker_of_it_lives(
    hospital: Hospital,
) -> None:
    async with partner() as there:
        await hospital.endpoint(url=there.url(f"/one?{SECRET}"))
        await hospital.endpoint(url=there.url("/two"))
        old = uuid7()
        async with hospital.database.connection() as connection:
            await connection.execute(OLD_WORKER, old)
            await configuration.seal_queries(connection, hospital.vault)
            before = await configuration.snapshot(connection, hospital.vault)
            await connection.execute("DELETE FROM workers")
        async with hospital.worker():
            await hospital.until("SELECT FROM endpoints WHERE url_query IS NOT NULL AND url NOT LIKE '%?%'")
            await hospital.post()
            targets = {received.target for received in await there.got(2)}
    assert targets == {f"/one?{SECRET}", "/two"}
    async with hospital.database.connection() as connection:
        after = await configuration.snapshot(connection, hospital.vault)
        await configuration.seal_queries(connection, hospital.vault)
        assert await configuration.version(connection) == after.version, "nothing was left to do"
        # Somebody still has an API of the version before, which knows nothing of the query that is sealed.
        await connection.execute("UPDATE endpoints SET url = url || '/new' WHERE url_query IS NOT NULL")
        moved = await configuration.snapshot(connection, hospital.vault)
    assert {endpoint.url for endpoint in after.endpoints.values()} == {e.url for e in before.endpoints.values()}
    assert after.version > before.version
    assert {endpoint.url for endpoint in moved.endpoints.values()} == {there.url("/one/new"), there.url("/two")}


async def test_another_url_is_an_operational_event_without_it(admin: httpx.AsyncClient, world: World) -> None:
    for url in (
        "https://lab.example.com/in",
        URL,
        URL,
        "https://lab.example.org/in",
        "https://lab.example.org:8443/in",
    ):
        await patched(admin, world, url=url)
    found = (await admin.get("/v1/events?type=gateway.endpoint_url_changed")).json()["items"]
    assert len(found) == 3, "the same URL is no change"


async def test_what_came_before_another_host_is_sent_again_only_by_who_may_read_it(
    api: Api, admin: httpx.AsyncClient, world: World
) -> None:
    replay, job = f"/v1/deliveries/{world.delivery_id}/replay", {"endpoint_id": world.endpoint_id}
    await admin.post(f"/v1/replays/{world.job_id}/cancel")
    await patched(admin, world, url="https://lab.example.com/another/path", slots=3)
    assert (await admin.post(replay)).status_code == 202, "the same host"
    await patched(admin, world, url="https://mine.example.com/in")
    refused = await admin.post(replay)
    assert (refused.status_code, "payload:read" in refused.json()["detail"]) == (403, True)
    await patched(admin, world, url="https://lab.example.com/in")
    assert (await admin.post(replay)).status_code == 403, "to and fro is another host, too"
    assert (await admin.post("/v1/replays", json=job)).status_code == 403

    async with api.database.connection() as connection:
        await connection.execute("DELETE FROM outbox")
        await connection.execute("UPDATE finished_deliveries SET replayed_as = NULL")
        endpoint_id = ids.parse(ids.ENDPOINT, world.endpoint_id)
        for _ in range(2):
            event_id = await store_event(api, connection, api.tenant_id)
            later = await store_finished(connection, api.tenant_id, endpoint_id, event_id, "dead")
        await post(admin, f"/v1/deliveries/{ids.render(ids.DELIVERY, later)}/replay")
        await post(admin, "/v1/replays", {"all": True})
        assert await replays.run_some(connection, 10) == 1, "the one that came later"
    async with await api.as_client("payload:read", "deliveries:write") as reader:
        await post(reader, "/v1/replays", job)
        async with api.database.connection() as connection:
            assert await replays.run_some(connection, 10) == 1
            await connection.execute("UPDATE finished_deliveries SET replayed_as = NULL")
        await post(reader, replay)
    assert (await admin.post("/v1/replays", json={**job, "since": datetime.now(UTC).isoformat()})).status_code == 202


async def test_a_replay_that_waits_while_the_host_changes_is_cancelled_and_sent_nowhere(
    api: Api, admin: httpx.AsyncClient, hospital: Hospital
) -> None:
    async with partner(status(500)) as first, partner() as second:
        endpoint_id = await hospital.endpoint(url=first.url(), schedule=[])
        async with hospital.worker():
            await hospital.post()
            (dead,) = await hospital.until("SELECT id FROM finished_deliveries WHERE state = 'dead'")
            await hospital.change("UPDATE endpoints SET state = 'paused' WHERE id = $1", endpoint_id)
            await post(admin, f"/v1/deliveries/{ids.render(ids.DELIVERY, dead['id'])}/replay")
            await hospital.until("SELECT FROM deliveries WHERE reason = 'replay'")
            moved = "UPDATE endpoints SET url = $2, host_changed_at = now(), state = 'enabled' WHERE id = $1"
            await hospital.change(moved, endpoint_id, second.url())
            await hospital.until("SELECT FROM finished_deliveries WHERE state_reason = 'another_host'")
            await hospital.post()
            (received,) = await second.got(1)
    assert received.id != first.received[0].id
    assert len(first.received) == 1
