"""Subscribers and endpoints: what administrators set, and what they never see again."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.support.hospital import Hospital
from tests.support.partner import partner, status
from tests.support.rows import EVERYTHING, store_event, store_open, store_worker
from tests.web.serving import Api, running
from tests.web.test_problems import check_problem
from tests.web.world import HELD, World, make_world, post
from webhook_gateway.rules import ids
from webhook_gateway.rules.credentials import NEVER_SENT
from webhook_gateway.rules.signing import encode_secret
from webhook_gateway.store import configuration
from webhook_gateway.web.api.dependencies import MOST_WAITING

URL = "https://lab.example.com/in"


async def make_endpoint(admin: httpx.AsyncClient, **given: Any) -> dict[str, Any]:
    name = f"Lab {datetime.now(UTC).timestamp()}"
    subscriber = await post(admin, "/v1/subscribers", {"name": name, **EVERYTHING})
    body = {"subscriber_id": subscriber["id"], "url": URL, "event_types": ["lab_result.*"], **given}
    return await post(admin, "/v1/endpoints", body)


async def version(api: Api) -> int:
    async with api.database.connection() as connection:
        return await configuration.version(connection)


async def test_a_subscribers_name_is_its_own(admin: httpx.AsyncClient) -> None:
    first = await post(admin, "/v1/subscribers", {"name": "Northside", **EVERYTHING})
    second = await post(admin, "/v1/subscribers", {"name": "Southside", **EVERYTHING})
    assert (await admin.post("/v1/subscribers", json={"name": "Northside"})).status_code == 409
    assert (await admin.patch(f"/v1/subscribers/{second['id']}", json={"name": "Northside"})).status_code == 409
    changed = await admin.patch(f"/v1/subscribers/{second['id']}", json={"description": "pathology"})
    assert changed.json() | {"updated_at": None} == second | {"description": "pathology", "updated_at": None}
    assert (await admin.delete(f"/v1/subscribers/{first['id']}")).status_code == 204
    assert (await admin.patch(f"/v1/subscribers/{second['id']}", json={"name": "Northside"})).status_code == 200


async def test_a_deleted_subscriber_takes_endpoints_deliveries_and_keys_with_it(
    api: Api, admin: httpx.AsyncClient
) -> None:
    world = await make_world(api, admin, api.tenant_id)
    partner = await post(admin, "/v1/keys", {"name": "p", "role": "partner", "subscriber_id": world.subscriber_id})
    async with api.client(partner["key"]) as client:
        assert (await client.get("/v1/endpoints")).status_code == 200
        gone = f"/v1/subscribers/{world.subscriber_id}"
        refused = await admin.delete(gone)
        assert (refused.status_code, "force" in refused.json()["detail"]) == (409, True)
        assert (await client.get("/v1/endpoints")).json()["items"], "nothing is gone"
        assert (await admin.delete(gone, params={"force": True})).status_code == 204
        assert (await client.get("/v1/endpoints")).status_code == 401
    assert (await admin.get(f"/v1/subscribers/{world.subscriber_id}")).status_code == 404
    assert (await admin.get(f"/v1/endpoints/{world.endpoint_id}")).status_code == 404
    delivery = (await admin.get(f"/v1/deliveries/{world.open_delivery_id}")).json()
    assert (delivery["state"], delivery["state_reason"]) == ("cancelled", "endpoint_deleted")
    assert (delivery["subscriber_id"], delivery["subscriber"]) == (world.subscriber_id, "Northside")
    assert {one["subscriber"] for one in (await admin.get("/v1/deliveries")).json()["items"]} == {"Northside"}


async def test_secrets_and_header_values_are_shown_never_again(api: Api, admin: httpx.AsyncClient) -> None:
    endpoint = await make_endpoint(admin, headers={"X-Api-Key": "their token"})
    assert endpoint["secret"].startswith("whsec_")
    assert endpoint["header_names"] == ["X-Api-Key"]
    rotated = await post(admin, f"/v1/endpoints/{endpoint['id']}/rotate-secret", {"overlap_seconds": 60})
    for path in ("/v1/endpoints", f"/v1/endpoints/{endpoint['id']}", "/v1/audit"):
        text = (await admin.get(path)).text
        assert endpoint["secret"] not in text
        assert rotated["secret"] not in text
        assert "their token" not in text
    async with api.database.connection() as connection:
        for table in ("endpoints", "endpoint_secrets", "audit_log"):
            for row in await connection.fetch(f"SELECT {table}::text AS row FROM {table}"):
                assert "whsec_" not in row["row"]
                assert b"their token".hex() not in row["row"]
        snapshot = await configuration.snapshot(connection, api.vault)
    known = snapshot.endpoints[ids.parse(ids.ENDPOINT, endpoint["id"])]
    assert known.secrets == (rotated["secret"], endpoint["secret"]), "workers sign with both, the newest first"
    assert known.headers == {"X-Api-Key": "their token"}


async def test_a_rotated_secret_ends_after_the_overlap(admin: httpx.AsyncClient) -> None:
    endpoint = await make_endpoint(admin)
    path = f"/v1/endpoints/{endpoint['id']}"
    own = encode_secret(bytes(32))
    assert (await post(admin, f"{path}/rotate-secret", {"secret": own}))["secret"] == own
    newest, oldest = (await admin.get(path)).json()["secrets"]
    assert newest["expires_at"] is None
    left = datetime.fromisoformat(oldest["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23) < left < timedelta(hours=25)
    for _ in range(3):
        await post(admin, f"{path}/rotate-secret")
    assert (await admin.post(f"{path}/rotate-secret", json={})).status_code == 409
    await post(admin, f"{path}/rotate-secret", {"overlap_seconds": 0})
    assert len((await admin.get(path)).json()["secrets"]) == 1
    for wrong in ("whsec_AAAA", "nonsense", "whsec_" + "A" * 100):
        response = await admin.post(f"{path}/rotate-secret", json={"secret": wrong})
        assert response.status_code == 422
        assert wrong not in response.text


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://lab.example.com/", "https_required"),
        ("https://127.0.0.1/", "loopback"),
        ("https://169.254.169.254/latest", "metadata"),
        ("https://lab.example.com:22/", "forbidden_port"),
        ("https://user:word@lab.example.com/", "userinfo"),
        ("nonsense", "malformed_url"),
    ],
)
async def test_a_url_that_policy_forbids_is_refused_by_name(admin: httpx.AsyncClient, url: str, rule: str) -> None:
    endpoint = await make_endpoint(admin)
    body = {"subscriber_id": endpoint["subscriber_id"], "url": url, "event_types": ["*"]}
    for response in (
        await admin.post("/v1/endpoints", json=body),
        await admin.patch(f"/v1/endpoints/{endpoint['id']}", json={"url": url}),
    ):
        assert response.status_code == 422
        fault = response.json()["errors"][0]
        assert (fault["pointer"], fault["rule"]) == ("/url", rule)
        assert fault["remedy"]
        assert url not in response.text


async def test_development_allows_a_laptops_own_addresses(database_url: str) -> None:
    async with running(database_url, development=True) as api, api.client(await api.make_key("admin")) as admin:
        assert (await make_endpoint(admin, url="http://127.0.0.1:9000/in"))["url"] == "http://127.0.0.1:9000/in"


@pytest.mark.parametrize(
    "headers",
    [
        *({name.title(): "x"} for name in sorted(NEVER_SENT)),
        {"User-Agent": "x"},
        {"content-type": "x"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "close"},
        {"webhook-signature": "v1,x"},
        {"X-A": "a\r\nX-B: b"},
        {"X-A": "a\x00"},
        {"X A": "a"},
        {"X-Ä": "a"},
        {"": "a"},
        {"X-A": " a"},
        {"X-A": "1", "x-a": "2"},
    ],
)
async def test_a_header_that_could_break_a_request_is_refused(
    admin: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    subscriber = await post(admin, "/v1/subscribers", {"name": "Lab", **EVERYTHING})
    body = {"subscriber_id": subscriber["id"], "url": URL, "event_types": ["*"], "headers": headers}
    response = await admin.post("/v1/endpoints", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"].startswith("/headers")


async def test_an_event_type_that_does_not_exist_is_refused_since_it_would_never_match(
    admin: httpx.AsyncClient,
) -> None:
    subscriber = await post(admin, "/v1/subscribers", {"name": "Lab", **EVERYTHING})
    body = {"subscriber_id": subscriber["id"], "url": URL, "event_types": ["lab_result.final", "lab_result.finall"]}
    response = await admin.post("/v1/endpoints", json=body)
    assert response.status_code == 422
    assert [fault["pointer"] for fault in response.json()["errors"]] == ["/event_types/1"]


async def test_a_change_leaves_what_it_does_not_name(api: Api, admin: httpx.AsyncClient) -> None:
    window = {"from": "2026-11-28T22:00:00Z", "until": "2026-11-29T02:00:00Z"}
    endpoint = await make_endpoint(admin, rate=2.5, headers={"X-A": "a"}, schedule=[1, 2.5], maintenance=window)
    path = f"/v1/endpoints/{endpoint['id']}"
    before, moved = await version(api), {"revision": None, "updated_at": None}
    changed = (await admin.patch(path, json={"slots": 3})).json()
    del endpoint["secret"], endpoint["public_key"]
    assert changed | moved == endpoint | moved | {"slots": 3}
    assert changed["revision"] == 2
    cleared = {"rate": None, "schedule": None, "maintenance": None, "headers": None}
    changed = (await admin.patch(path, json=cleared)).json()
    assert changed["rate"] is changed["maintenance"] is None
    assert changed["header_names"] == []
    assert len(changed["schedule"]) == 9
    assert await version(api) == before + 2
    for wrong in ({"url": None}, {"slots": "3"}, {"slots": True}, {"maintenance": {"from": "a", "until": "b"}}):
        assert (await admin.patch(path, json=wrong)).status_code == 422
    backwards = {"from": window["until"], "until": window["from"]}
    assert (await admin.patch(path, json={"maintenance": backwards})).status_code == 422


async def test_pause_and_resume_notify_and_clear_what_workers_remember(api: Api, admin: httpx.AsyncClient) -> None:
    world = await make_world(api, admin, api.tenant_id)
    endpoint_id = ids.parse(ids.ENDPOINT, world.endpoint_id)
    path = f"/v1/endpoints/{world.endpoint_id}"
    async with api.database.connection() as connection:
        await connection.execute(
            "INSERT INTO endpoint_health (endpoint_id, tenant_id, failures_in_a_row, failing_since, open_until)"
            " VALUES ($1, $2, 12, now() - interval '4 days', now() + interval '1 minute')",
            endpoint_id,
            api.tenant_id,
        )
        learnt, since = await configuration.health_since(connection, datetime(2000, 1, 1, tzinfo=UTC))
    assert (await admin.get(path)).json()["health"]["breaker"] == "open"
    paused = await post(admin, f"{path}/pause")
    assert (paused["state"], paused["state_reason"]) == ("paused", "by_hand")
    assert await post(admin, f"{path}/pause") == paused, "to pause twice changes nothing"
    waiting = (await admin.get(f"/v1/deliveries/{world.open_delivery_id}")).json()
    assert waiting["waiting_for"] == "paused"
    resumed = await post(admin, f"{path}/resume")
    assert resumed["state"] == "enabled"
    assert resumed["health"]["breaker"] == "closed"
    async with api.database.connection() as connection:
        learnt, _ = await configuration.health_since(connection, since)
    assert learnt[endpoint_id].failures_in_a_row == 0
    events = [item["type"] for item in (await admin.get("/v1/events")).json()["items"]]
    assert events[:2] == ["gateway.endpoint_resumed", "gateway.endpoint_paused"]


async def test_who_paused_an_endpoint_and_why_stands_on_it_and_in_the_audit_log(
    api: Api, admin: httpx.AsyncClient
) -> None:
    world = await make_world(api, admin, api.tenant_id)
    path = f"/v1/endpoints/{world.endpoint_id}"
    for wrong in ("", " ", "x" * 201, "two\nlines", "turned \u202e around", 7):
        response = await admin.post(f"{path}/pause", json={"reason": wrong})
        assert check_problem(response, 422, "invalid-request")["errors"][0]["pointer"] == "/reason"
    paused = await post(admin, f"{path}/pause", {"reason": "certificate change"})
    assert (paused["state_reason"], paused["state_changed_by"]) == ("certificate change", "the key `a test`")
    entries = (await admin.get("/v1/audit")).json()["items"]
    assert entries[0]["after"] == {"state": "paused", "state_reason": "certificate change"}
    assert await post(admin, f"{path}/pause", {"reason": "another"}) == paused, "to pause twice changes nothing"
    of_theirs = {"subscriber_id": ids.parse(ids.SUBSCRIBER, world.subscriber_id)}
    async with await api.as_client("endpoints:read", **of_theirs) as partner:
        for shown in ((await partner.get(path)).json(), *(await partner.get("/v1/endpoints")).json()["items"]):
            assert (shown["state_reason"], shown["state_changed_by"]) == ("certificate change", None)
    resumed = await post(admin, f"{path}/resume")
    assert (resumed["state_reason"], resumed["state_changed_by"]) == (None, "the key `a test`")
    await disable(api, world)
    disabled = (await admin.get(path)).json()
    assert (disabled["state_reason"], disabled["state_changed_by"]) == ("gone", None), "the gateway itself"


async def test_a_disabled_endpoint_is_resumed_not_paused(api: Api, admin: httpx.AsyncClient) -> None:
    world = await make_world(api, admin, api.tenant_id)
    path = f"/v1/endpoints/{world.endpoint_id}"
    await disable(api, world)
    assert (await admin.get("/v1/endpoints?state=disabled")).json()["items"][0]["state_reason"] == "gone"
    assert (await admin.post(f"{path}/pause")).status_code == 409
    assert (await admin.post(f"{path}/test")).status_code == 409
    assert (await admin.post(f"/v1/deliveries/{world.delivery_id}/replay")).status_code == 409
    assert (await admin.post("/v1/replays", json={"endpoint_id": world.endpoint_id})).status_code == 409
    assert (await post(admin, f"{path}/resume"))["state"] == "enabled"


async def disable(api: Api, world: World) -> None:
    async with api.database.connection() as connection:
        assert await configuration.disable(connection, ids.parse(ids.ENDPOINT, world.endpoint_id), "gone")


async def test_a_test_event_goes_to_one_endpoint_only(api: Api, admin: httpx.AsyncClient) -> None:
    one, _ = await make_endpoint(admin, event_types=["*"]), await make_endpoint(admin, event_types=["*"])
    queued = await post(admin, f"/v1/endpoints/{one['id']}/test", {"event_type": "lab_result.final"})
    async with api.database.connection() as connection:
        await store_worker(connection)
        rows = await connection.fetch("SELECT * FROM outbox WHERE NOT starts_with(type, 'gateway.')")
    assert [row["endpoint_id"] for row in rows] == [ids.parse(ids.ENDPOINT, one["id"])]
    assert rows[0]["reason"] == "test"
    delivery = (await admin.get(f"/v1/deliveries/{queued['id']}")).json()
    assert (delivery["state"], delivery["waiting_for"], delivery["reason"]) == ("pending", "fan_out", "test")
    async with api.client(await api.make_key("payload:read")) as officer:
        body = (await officer.get(f"/v1/events/{queued['event_id']}/payload")).json()
    shipped = (await admin.get("/v1/event-types/lab_result.final")).json()
    assert body["data"] == shipped["example"]
    assert body["test"] is True


async def test_a_test_is_of_a_type_that_the_endpoint_gets(api: Api, admin: httpx.AsyncClient) -> None:
    own = {"name": "ward.opened", "description": "A ward opens", "schema": {"type": "object"}, "example": {"ward": "7"}}
    await post(admin, "/v1/event-types", own)
    for patterns, expected in (
        (["payment.*", "appointment.cancelled"], "payment.failed"),
        (["ward.opened"], "ward.opened"),
        (["gateway.*"], "gateway.breaker_closed"),
        (["nobody_knows.*"], "gateway.test"),
    ):
        endpoint = await make_endpoint(admin, event_types=patterns)
        queued = await post(admin, f"/v1/endpoints/{endpoint['id']}/test", {})
        event = (await admin.get(f"/v1/events/{queued['event_id']}")).json()
        assert event["type"] == expected
    for event_type, code in (("gateway.test", 202), ("a.b", 422), ("lab_result.final", 422), ("*", 422)):
        answer = await admin.post(f"/v1/endpoints/{endpoint['id']}/test", json={"event_type": event_type})
        assert answer.status_code == code
        assert code == 202 or answer.json()["errors"][0]["pointer"] == "/event_type"


async def test_a_test_can_be_waited_for_without_keeping_the_api_from_anybody(
    api: Api, admin: httpx.AsyncClient, hospital: Hospital
) -> None:
    async with partner(status(418)) as there:
        endpoint_id = await hospital.endpoint(url=there.url(), slots=100)
        path = f"/v1/endpoints/{ids.render(ids.ENDPOINT, endpoint_id)}/test?wait=20"
        async with api.client(await api.make_key("admin")) as client:
            sent = [asyncio.create_task(client.post(path, timeout=30)) for _ in range(MOST_WAITING + 3)]
            waiting = set(sent)
            while len(waiting) > MOST_WAITING:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                assert {task.result().status_code for task in done} == {202}, "as many as may be wait already"
            assert (await admin.get("/v1/endpoints")).status_code == 200
            async with hospital.worker():
                answers = [task.result() for task in (await asyncio.wait(waiting))[0]]
    assert [answer.status_code for answer in answers] == [200] * MOST_WAITING
    found = sorted(answer.json()["attempt"]["status"] for answer in answers)
    assert found.count(200) >= MOST_WAITING - 1
    assert {answer.json()["attempt"]["phase"] for answer in answers} == {"answered"}
    for answer in answers:
        delivery = (await admin.get(answer.headers["location"])).json()
        assert delivery["attempts"] == [answer.json()["attempt"]]


async def test_a_test_that_is_not_over_in_time_says_where_to_look(api: Api, admin: httpx.AsyncClient) -> None:
    endpoint = await make_endpoint(admin)
    answer = await admin.post(f"/v1/endpoints/{endpoint['id']}/test?wait=1")
    assert (answer.status_code, answer.json()["attempt"]) == (202, None)
    delivery = (await admin.get(answer.headers["location"])).json()
    assert (delivery["id"], delivery["waiting_for"]) == (answer.json()["id"], "no_worker")
    for wait in ("21", "-1", "soon"):
        assert (await admin.post(f"/v1/endpoints/{endpoint['id']}/test?wait={wait}")).status_code == 422


async def test_a_test_is_never_replayed_as_if_it_were_real(
    api: Api, admin: httpx.AsyncClient, hospital: Hospital
) -> None:
    async with partner(status(500), status(500)) as there:
        endpoint_id = await hospital.endpoint(url=there.url(), schedule=[])
        path = f"/v1/endpoints/{ids.render(ids.ENDPOINT, endpoint_id)}/test?wait=20"
        async with hospital.worker():
            (real,) = await hospital.post()
            await there.got(1)
            test = (await admin.post(path, timeout=30)).json()
            await hospital.until("SELECT FROM finished_deliveries WHERE state = 'dead' OFFSET 1")
            await post(admin, "/v1/replays", {"all": True})
            await hospital.until("SELECT FROM finished_deliveries WHERE reason = 'replay'")
            assert there.received[-1].id == ids.render(ids.EVENT, real), "the job leaves it out"
            again = await post(admin, f"/v1/deliveries/{test['id']}/replay")
            (received, *_) = [r for r in await there.got(4) if r.id == test["event_id"]][1:]
    assert received.headers["webhook-test"] == "true"
    assert (await admin.get(f"/v1/deliveries/{again['id']}")).json()["reason"] == "test"


async def test_a_held_key_goes_on_when_an_operator_says_so(api: Api, admin: httpx.AsyncClient) -> None:
    world = await make_world(api, admin, api.tenant_id)
    endpoint_id = ids.parse(ids.ENDPOINT, world.endpoint_id)
    async with api.database.connection() as connection:
        event_id = await store_event(api, connection, api.tenant_id)
        behind = await store_open(
            connection, api.tenant_id, endpoint_id, event_id, due_at=None, ordering_key=HELD, sequence=9
        )
    path = f"/v1/endpoints/{world.endpoint_id}/held-keys"
    (held,) = (await admin.get(path)).json()["items"]
    assert (held["ordering_key"], held["delivery_id"], held["waiting"]) == (str(HELD), world.delivery_id, 1)
    delivery = f"/v1/deliveries/{ids.render(ids.DELIVERY, behind)}"
    assert (await admin.get(delivery)).json()["waiting_for"] == "held_key"
    assert (await admin.post(f"{path}/{HELD}/release")).status_code == 200
    assert (await admin.get(delivery)).json()["waiting_for"] == "slots"
    assert (await admin.get(path)).json()["items"] == []
    for unknown in (HELD, 10**18, -(10**18), "9" * 19, "x"):
        assert (await admin.post(f"{path}/{unknown}/release")).status_code == 404


async def test_an_endpoint_can_not_be_added_to_a_subscriber_that_goes(admin: httpx.AsyncClient) -> None:
    """Whoever comes first: never an endpoint that lives on without its subscriber."""
    for _ in range(5):
        subscriber = await post(admin, "/v1/subscribers", {"name": "Lab", **EVERYTHING})
        body = {"subscriber_id": subscriber["id"], "url": URL, "event_types": ["*"]}
        made, gone = await asyncio.gather(
            admin.post("/v1/endpoints", json=body), admin.delete(f"/v1/subscribers/{subscriber['id']}?force=true")
        )
        assert gone.status_code == 204
        if made.status_code == 201:
            assert (await admin.get(f"/v1/endpoints/{made.json()['id']}")).status_code == 404
        else:
            assert made.status_code == 404


async def test_lists_are_paged_without_gaps_or_repeats(admin: httpx.AsyncClient) -> None:
    made = [
        (await post(admin, "/v1/subscribers", {"name": f"Lab {number}", **EVERYTHING}))["id"] for number in range(7)
    ]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        page = (await admin.get("/v1/subscribers", params=query)).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


async def test_whoever_watches_is_told_of_endpoints_that_come_change_and_go(api: Api, admin: httpx.AsyncClient) -> None:
    subscriber = await post(admin, "/v1/subscribers", {"name": "Told", **EVERYTHING})
    made = [
        await post(admin, "/v1/endpoints", {"subscriber_id": subscriber["id"], "url": f"https://p.example.com/{n}"})
        for n in range(2)
    ]
    path = f"/v1/endpoints/{made[0]['id']}"
    assert (await admin.patch(path, json={"slots": 3})).is_success
    assert (await admin.delete(path)).is_success
    assert (await admin.delete(f"/v1/subscribers/{subscriber['id']}", params={"force": True})).is_success
    async with api.database.connection() as connection:
        rows = await connection.fetch("SELECT id, type, body FROM events ORDER BY id")
    data = [json.loads(api.vault.open(api.tenant_id, "events", row["id"], row["body"]))["data"] for row in rows]
    assert [
        (row["type"].removeprefix("gateway.endpoint_"), told["endpoint_id"])
        for row, told in zip(rows, data, strict=True)
    ] == [
        ("created", made[0]["id"]),
        ("created", made[1]["id"]),
        ("changed", made[0]["id"]),
        ("deleted", made[0]["id"]),
        ("deleted", made[1]["id"]),
    ]
