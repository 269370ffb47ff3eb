"""Deliveries, replays and what is told of events."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid7

from tests.support.rows import EVERYTHING, SHIFT, store_event, store_finished, store_open
from tests.web.serving import Api
from tests.web.world import World, make_world, post
from webhook_gateway.rules import ids
from webhook_gateway.store import replays, reports


@pytest.fixture
async def world(api: Api, admin: httpx.AsyncClient) -> World:
    return await make_world(api, admin, api.tenant_id)


async def test_whoever_reads_much_keeps_nobody_from_making_changes(
    api: Api, admin: httpx.AsyncClient, world: World
) -> None:
    async with api.database.begin() as connection:
        await connection.execute(text("LOCK TABLE finished_deliveries IN ACCESS EXCLUSIVE MODE"))  # a list without end
        lists = [asyncio.create_task(admin.get("/v1/deliveries", timeout=30)) for _ in range(10)]
        for number in range(10):
            await post(admin, "/v1/subscribers", {"name": f"Lab {number}", **EVERYTHING})
        assert (await admin.get("/v1/keys")).status_code == 200
        assert {(await one).status_code for one in lists} == {503}
    assert (await admin.get("/v1/deliveries")).status_code == 200


async def test_open_and_finished_deliveries_are_one_list(api: Api, admin: httpx.AsyncClient, world: World) -> None:
    endpoint_id = ids.parse(ids.ENDPOINT, world.endpoint_id)
    made = [world.delivery_id, world.open_delivery_id]
    async with api.database.connection() as connection:
        event_id = await store_event(api, connection, api.tenant_id)
        for state in ("delivered", "cancelled", "delivered"):
            finished = await store_finished(connection, api.tenant_id, endpoint_id, event_id, state)
            opened = await store_open(connection, api.tenant_id, endpoint_id, event_id)
            made += [ids.render(ids.DELIVERY, finished), ids.render(ids.DELIVERY, opened)]
    seen: list[str] = []
    query = {"limit": "3"}
    while True:
        page = (await admin.get("/v1/deliveries", params=query)).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == made[::-1]

    async def found(**query: str) -> list[str]:
        return [item["id"] for item in (await admin.get("/v1/deliveries", params=query)).json()["items"]]

    assert await found(state="dead") == [world.delivery_id]
    assert await found(state="pending") == made[1::2][::-1]
    assert await found(event_id=world.event_id) == made[:2][::-1]
    assert await found(endpoint_id=world.endpoint_id, state="delivered") == [made[6], made[2]]
    assert await found(type="staff_shift.changed") == []
    now = datetime.now(UTC)
    assert await found(since=(now + timedelta(hours=1)).isoformat()) == []
    assert len(await found(since=(now - timedelta(hours=1)).isoformat(), until=now.isoformat())) == len(made)


async def test_a_delivery_says_whether_it_is_being_sent(api: Api, admin: httpx.AsyncClient, world: World) -> None:
    endpoint_id, event_id = ids.parse(ids.ENDPOINT, world.endpoint_id), ids.parse(ids.EVENT, world.event_id)
    now = datetime.now(UTC)
    async with api.database.connection() as connection:

        async def stored(due_at: datetime | None, *, leased: bool) -> str:
            lease_id = uuid7() if leased else None
            return ids.render(
                ids.DELIVERY,
                await store_open(connection, api.tenant_id, endpoint_id, event_id, due_at=due_at, lease_id=lease_id),
            )

        sending = await stored(now + timedelta(minutes=1), leased=True)
        abandoned = await stored(now - timedelta(minutes=1), leased=True)
        later = await stored(now + timedelta(hours=1), leased=False)
    for delivery_id, state in ((sending, "sending"), (abandoned, "pending"), (later, "pending")):
        shown = (await admin.get(f"/v1/deliveries/{delivery_id}")).json()
        assert shown["state"] == state
        assert (shown["next_attempt_at"] is None) == (state == "sending")
    listed = (await admin.get("/v1/deliveries?state=sending")).json()["items"]
    assert [item["id"] for item in listed] == [sending]

    refused = await admin.post(f"/v1/deliveries/{sending}/cancel")
    assert refused.status_code == 409
    assert "being sent" in refused.json()["detail"]
    for delivery_id in (abandoned, later):
        cancelled = await post(admin, f"/v1/deliveries/{delivery_id}/cancel")
        assert (cancelled["state"], cancelled["state_reason"]) == ("cancelled", "by_hand")
    assert (await admin.post(f"/v1/deliveries/{later}/cancel")).status_code == 409


async def test_attempts_tell_what_happened_but_not_what_the_partner_said(
    admin: httpx.AsyncClient, world: World
) -> None:
    response = await admin.get(f"/v1/deliveries/{world.delivery_id}")
    (attempt,) = response.json()["attempts"]
    assert (attempt["outcome"], attempt["status"], attempt["phase"]) == ("rejected", 500, "answered")
    assert attempt["duration"] == 0.25
    assert "partner said" not in response.text


async def test_a_replay_is_a_new_delivery_of_the_same_event(api: Api, admin: httpx.AsyncClient, world: World) -> None:
    queued = await post(admin, f"/v1/deliveries/{world.delivery_id}/replay")
    assert queued["id"] != world.delivery_id
    assert (queued["event_id"], queued["endpoint_id"]) == (world.event_id, world.endpoint_id)
    shown = (await admin.get(f"/v1/deliveries/{queued['id']}")).json()
    assert (shown["state"], shown["reason"], shown["waiting_for"]) == ("pending", "replay", "fan_out")
    assert (await admin.post(f"/v1/deliveries/{queued['id']}/cancel")).status_code == 409
    assert (await admin.post(f"/v1/deliveries/{world.open_delivery_id}/replay")).status_code == 409
    assert (await admin.get(f"/v1/events/{world.event_id}")).json()["fanout"] == "done"
    async with api.database.connection() as connection:
        (row,) = await connection.fetch("SELECT * FROM outbox")
    assert row["delivery_id"] == ids.parse(ids.DELIVERY, queued["id"])
    await admin.delete(f"/v1/endpoints/{world.endpoint_id}")
    gone = await admin.post(f"/v1/deliveries/{world.delivery_id}/replay")
    assert gone.status_code == 409


async def test_many_are_replayed_bit_by_bit(api: Api, admin: httpx.AsyncClient, world: World) -> None:
    endpoint_id = ids.parse(ids.ENDPOINT, world.endpoint_id)
    await admin.post(f"/v1/replays/{world.job_id}/cancel")
    async with api.database.connection() as connection:
        for state in ("dead", "delivered", "dead", "dead", "cancelled"):
            event_id = await store_event(api, connection, api.tenant_id)
            await store_finished(connection, api.tenant_id, endpoint_id, event_id, state)
    job = await post(admin, "/v1/replays", {"endpoint_id": world.endpoint_id, "since": "2020-01-01T00:00:00Z"})
    path = f"/v1/replays/{job['id']}"
    assert (job["state"], job["total"], job["done"]) == ("pending", 4, 0)
    async with api.database.connection() as connection:
        # A delivery that dies while the job runs isn't the job's: it would never end.
        await store_finished(connection, api.tenant_id, endpoint_id, event_id, "dead")
        assert await replays.run_some(connection, 3) == 3
        running = (await admin.get(path)).json()
        assert (running["state"], running["done"], running["endpoint_id"]) == ("running", 3, world.endpoint_id)
        assert await replays.run_some(connection, 3) == 1
        assert await replays.run_some(connection, 3) is None
        queued = await connection.fetch("SELECT delivery_id, reason FROM outbox ORDER BY sequence")
    assert {row["reason"] for row in queued} == {"replay"}
    assert len({row["delivery_id"] for row in queued}) == 4
    done = (await admin.get(path)).json()
    assert (done["state"], done["done"]) == ("done", 4)
    assert done["finished_at"] is not None
    assert (await admin.post(f"{path}/cancel")).status_code == 409


async def test_what_would_be_sent_is_said_and_nothing_is_done(api: Api, admin: httpx.AsyncClient, world: World) -> None:
    path, since = f"/v1/endpoints/{world.endpoint_id}/backfill", "2020-01-01T00:00:00Z"
    replay = await admin.post("/v1/replays", json={"subscriber_id": world.subscriber_id, "dry_run": True})
    assert (replay.status_code, replay.json()["count"], replay.json()["more"]) == (200, 1, False)
    nothing = await admin.post("/v1/replays", json={"state": "dead"})
    assert (nothing.status_code, nothing.json()["errors"][0]["pointer"]) == (422, "/all")
    assert (await admin.post(path, json={"since": since, "dry_run": True})).status_code == 403
    async with api.database.connection() as connection:
        await store_event(api, connection, api.tenant_id)
    async with await api.as_client("deliveries:write", "deliveries:read", "payload:read") as reader:
        backfill = await reader.post(path, json={"since": since, "dry_run": True})
        assert (backfill.status_code, backfill.json()["count"]) == (200, 1)
        assert backfill.json().keys() == replay.json().keys()
        assert [item["id"] for item in (await reader.get("/v1/replays")).json()["items"]] == [world.job_id]
        job = await post(reader, path, {"since": since})
        shown = (await reader.get(f"/v1/replays/{job['id']}")).json()
    assert (shown["kind"], shown["total"], shown["endpoint_id"], shown["delivery_state"]) == (
        "backfill",
        1,
        world.endpoint_id,
        None,
    )


async def test_two_workers_never_replay_one_delivery_twice(api: Api, admin: httpx.AsyncClient, world: World) -> None:
    await admin.post(f"/v1/replays/{world.job_id}/cancel")
    await post(admin, "/v1/replays", {"all": True})
    async with api.database.connection() as one, api.database.connection() as other, one.transaction():
        await replays.next_job(one, "replay")
        assert await replays.run_some(other, 10) is None


async def test_a_cancelled_job_stops(api: Api, admin: httpx.AsyncClient, world: World) -> None:
    await admin.post(f"/v1/replays/{world.job_id}/cancel")
    job = await post(admin, "/v1/replays", {"all": True})
    assert (await post(admin, f"/v1/replays/{job['id']}/cancel"))["state"] == "cancelled"
    async with api.database.connection() as connection:
        assert await replays.run_some(connection, 10) is None
    listed = (await admin.get("/v1/replays")).json()["items"]
    assert [item["id"] for item in listed] == [job["id"], world.job_id]


async def test_an_event_says_what_became_of_it(api: Api, admin: httpx.AsyncClient, world: World) -> None:
    async with api.database.connection() as connection:
        waiting = ids.render(ids.EVENT, await store_event(api, connection, api.tenant_id, in_outbox=True))
    shown = (await admin.get(f"/v1/events/{waiting}")).json()
    assert (shown["fanout"], shown["matched"], shown["deliveries"]) == ("pending", 0, [])
    shown = (await admin.get(f"/v1/events/{world.event_id}")).json()
    assert (shown["fanout"], shown["matched"]) == ("done", 1)
    assert [item["id"] for item in shown["deliveries"]] == [world.open_delivery_id, world.delivery_id]
    listed = (await admin.get("/v1/events?type=staff_shift.assigned")).json()["items"]
    assert [item["id"] for item in listed] == [waiting, world.event_id]


async def test_of_an_event_whose_body_is_gone_it_is_said_that_it_was_there(
    api: Api, admin: httpx.AsyncClient, world: World
) -> None:
    unknown = ids.render(ids.EVENT, uuid7())
    async with api.database.connection() as connection:
        await connection.execute("DELETE FROM events")
    async with api.client(await api.make_key("admin", "payload:read")) as officer:
        for path in ("", "/payload"):
            response = await officer.get(f"/v1/events/{world.event_id}{path}")
            assert (response.status_code, response.json()["type"]) == (410, "urn:problem:webhook-gateway:gone")
            assert "no longer kept" in response.json()["detail"]
            assert (await officer.get(f"/v1/events/{unknown}{path}")).status_code == 404
    listed = await admin.get("/v1/deliveries", params={"event_id": world.event_id})
    assert len(listed.json()["items"]) == 2


async def test_a_body_that_somebody_changed_is_told_as_that_and_not_as_a_bug(
    api: Api, admin: httpx.AsyncClient, world: World
) -> None:
    async with api.database.begin() as connection:
        await connection.execute(text("UPDATE events SET body = set_byte(body, 40, get_byte(body, 40) # 1)"))
    async with api.client(await api.make_key("payload:read")) as officer:
        response = await officer.get(f"/v1/events/{world.event_id}/payload")
    assert response.status_code == 500
    assert response.json()["type"].endswith(":record-damaged")
    assert "changed in the database" in response.json()["detail"]
    assert (await admin.get("/v1/audit", params={"target": world.event_id})).json()["items"] == []


async def test_every_look_at_a_payload_is_audited(api: Api, admin: httpx.AsyncClient, world: World) -> None:
    async with api.client(await api.make_key("payload:read")) as officer:
        response = await officer.get(f"/v1/events/{world.event_id}/payload")
        assert response.headers["content-type"] == "application/json"
        assert response.content.endswith(b'"data":' + SHIFT + b"}")
        assert (await officer.get("/v1/events/evt_01h455vb4pex5vsknk084sn02q/payload")).status_code == 404
    entries = (await admin.get("/v1/audit", params={"target": world.event_id})).json()["items"]
    assert [entry["action"] for entry in entries] == ["payload.read"]


async def test_a_posted_event_is_found(api: Api, admin: httpx.AsyncClient) -> None:
    receipt = await post(admin, "/v1/events", {"type": "patient.erasure_requested", "data": await example(admin)})
    shown = (await admin.get(f"/v1/events/{receipt['id']}")).json()
    assert (shown["type"], shown["fanout"]) == ("patient.erasure_requested", "pending")
    stats = (await admin.get("/v1/stats")).json()
    assert stats["outbox_waiting"] == 1


async def example(admin: httpx.AsyncClient) -> object:
    return (await admin.get("/v1/event-types/patient.erasure_requested")).json()["example"]


async def test_stats_count_what_is_open(api: Api, admin: httpx.AsyncClient, world: World) -> None:
    endpoint_id, event_id = ids.parse(ids.ENDPOINT, world.endpoint_id), ids.parse(ids.EVENT, world.event_id)
    now = datetime.now(UTC)
    async with api.database.connection() as connection:
        await store_open(connection, api.tenant_id, endpoint_id, event_id, due_at=None, ordering_key=1)
        await store_open(connection, api.tenant_id, endpoint_id, event_id, due_at=now - timedelta(minutes=5))
        await store_open(
            connection, api.tenant_id, endpoint_id, event_id, due_at=now + timedelta(minutes=5), lease_id=uuid7()
        )
        await store_event(api, connection, api.tenant_id)
        await connection.execute("UPDATE data_keys SET sealed = 7 WHERE purpose = 'seal'")
    stats = (await admin.get("/v1/stats")).json()
    assert (stats["open"], stats["pending"], stats["sending"], stats["waiting"]) == (4, 2, 1, 1)
    assert 299 < stats["oldest_due_seconds"] < 400
    assert (stats["dead_24h"], stats["unmatched_recent"], stats["outbox_waiting"]) == (1, 1, 0)
    assert stats["endpoints"][0]["endpoint_id"] == world.endpoint_id
    scope = {"subscriber_id": ids.parse(ids.SUBSCRIBER, world.subscriber_id)}
    async with api.client(await api.make_key("deliveries:read", **scope)) as partner:
        theirs = (await partner.get("/v1/stats")).json()
        assert (theirs["open"], theirs["outbox_waiting"]) == (4, None)

    shown = (await admin.get("/metrics")).text
    for line in (
        "webhook_gateway_outbox_depth 0.0",
        "webhook_gateway_data_key_records 7.0",
        "webhook_gateway_deliveries_open 4.0",
        "webhook_gateway_deliveries_waiting 1.0",
        "webhook_gateway_held_keys 1.0",
        'webhook_gateway_breakers{state="open"} 0.0',
        'webhook_gateway_endpoints{state="enabled"} 1.0',
        'webhook_gateway_dead_tuples{table="deliveries"}',
        f'webhook_gateway_oldest_due_seconds{{endpoint="{world.endpoint_id}",subscriber="Northside"}}',
        "webhook_gateway_oldest_transaction_seconds",
        "webhook_gateway_events_accepted_total",
    ):
        assert line in shown


def test_a_range_of_time_is_a_range_of_ids() -> None:
    before, after = datetime.now(UTC) - timedelta(seconds=1), datetime.now(UTC) + timedelta(seconds=1)
    assert reports.first_id(before) < uuid7() < reports.first_id(after)
    assert reports.first_id(datetime(1, 1, 1, tzinfo=UTC)).int == 0
    assert reports.first_id(datetime(9999, 12, 31, tzinfo=UTC)) > uuid7()
