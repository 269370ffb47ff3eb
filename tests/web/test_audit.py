"""The audit log: complete, without secrets, and impossible to change unnoticed."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import httpx
import pytest

from tests.web.serving import Api, serve
from tests.web.world import make_world, post
from webhook_gateway.crypto.audit_chain import check_export
from webhook_gateway.store import audit, keyring


async def test_every_change_leaves_an_entry(api: Api, admin: httpx.AsyncClient) -> None:
    world = await make_world(api, admin, api.tenant_id)
    path = f"/v1/endpoints/{world.endpoint_id}"
    for method, target in (
        ("POST", f"{path}/pause"),
        ("POST", f"{path}/resume"),
        ("POST", f"{path}/test"),
        ("POST", f"{path}/rotate-secret"),
        ("POST", f"{path}/held-keys/{world.ordering_key}/release"),
        ("POST", f"/v1/deliveries/{world.delivery_id}/replay"),
        ("POST", f"/v1/deliveries/{world.open_delivery_id}/try-now"),
        ("POST", f"/v1/deliveries/{world.open_delivery_id}/cancel"),
        ("POST", f"/v1/replays/{world.job_id}/cancel"),
        ("POST", f"/v1/keys/{world.key_id}/revoke"),
        ("POST", f"/v1/subscribers/{world.subscriber_id}/portal-links/{world.session_id}/revoke"),
        ("DELETE", f"/v1/event-types/{world.name}"),
        ("DELETE", path),
        ("DELETE", f"/v1/subscribers/{world.subscriber_id}"),
    ):
        assert (await admin.request(method, target)).is_success, target
    entries = (await admin.get("/v1/audit")).json()["items"]
    assert [entry["action"] for entry in entries[::-1]] == [
        "subscriber.created",
        "endpoint.created",
        "event_type.created",
        "replay.created",
        "portal_link.created",
        "endpoint.paused",
        "endpoint.resumed",
        "endpoint.tested",
        "endpoint.secret_rotated",
        "endpoint.key_released",
        "delivery.replayed",
        "delivery.tried_now",
        "delivery.cancelled",
        "replay.cancelled",
        "key.revoked",
        "portal_link.revoked",
        "event_type.deleted",
        "endpoint.deleted",
        "subscriber.deleted",
    ]
    assert {entry["source"] for entry in entries} == {"127.0.0.1"}
    assert all(entry["actor"].startswith("key_") for entry in entries)
    paused = entries[-6]
    assert (paused["before"], paused["after"]) == (
        {"state": "enabled", "state_reason": None},
        {"state": "paused", "state_reason": "by_hand"},
    )
    first = (await admin.get("/v1/audit", params={"limit": 10})).json()
    rest = (await admin.get("/v1/audit", params={"limit": 10, "cursor": first["next_cursor"]})).json()
    assert first["items"] + rest["items"] == entries
    assert (await admin.get("/v1/audit/verification")).json() == {
        "intact": True,
        "entries": 19,
        "broken_at": None,
        "last_hash": entries[0]["hash"],
    }


async def test_a_refused_change_leaves_none(admin: httpx.AsyncClient) -> None:
    await post(admin, "/v1/subscribers", {"name": "Lab"})
    assert (await admin.post("/v1/subscribers", json={"name": "Lab"})).status_code == 409
    assert len((await admin.get("/v1/audit")).json()["items"]) == 1


async def test_changes_at_the_same_time_make_one_chain(admin: httpx.AsyncClient) -> None:
    await asyncio.gather(*(post(admin, "/v1/subscribers", {"name": f"Lab {number}"}) for number in range(20)))
    found = (await admin.get("/v1/audit/verification")).json()
    assert (found["intact"], found["entries"]) == (True, 20)


async def test_entries_can_only_be_added(api: Api, admin: httpx.AsyncClient) -> None:
    await post(admin, "/v1/subscribers", {"name": "Lab"})
    async with api.database.connection() as connection:
        for statement in ("UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"):
            with pytest.raises(asyncpg.RaiseError):
                await connection.execute(statement)


@pytest.mark.parametrize(
    ("statement", "broken_at"),
    [
        ("UPDATE audit_log SET actor = 'somebody else' WHERE sequence = 2", 2),
        ('UPDATE audit_log SET after = \'{"name": "Other"}\' WHERE sequence = 1', 1),
        ("UPDATE audit_log SET at = at + interval '1 second' WHERE sequence = 3", 3),
        ("DELETE FROM audit_log WHERE sequence = 2", 2),
        ("DELETE FROM audit_log WHERE sequence = 1", 1),
        ("UPDATE audit_log SET previous_hash = hash WHERE sequence = 3", 3),
    ],
)
async def test_whoever_switches_the_trigger_off_is_found_out(
    api: Api, admin: httpx.AsyncClient, statement: str, broken_at: int
) -> None:
    for name in ("A", "B", "C"):
        await post(admin, "/v1/subscribers", {"name": name})
    async with api.database.connection() as connection, connection.transaction():
        await connection.execute("ALTER TABLE audit_log DISABLE TRIGGER ALL")
        await connection.execute(statement)
        await connection.execute("ALTER TABLE audit_log ENABLE TRIGGER ALL")
    found = (await admin.get("/v1/audit/verification")).json()
    assert (found["intact"], found["broken_at"]) == (False, broken_at)


async def test_the_head_is_signed_and_its_key_stays(admin: httpx.AsyncClient, database_url: str) -> None:
    await post(admin, "/v1/subscribers", {"name": "A"})
    first = (await admin.get("/v1/audit/head")).json()
    served = serve(database_url)
    async with served as (url, _), httpx.AsyncClient(base_url=url, headers=admin.headers, trust_env=False) as other:
        await post(other, "/v1/subscribers", {"name": "B"})
        second = (await other.get("/v1/audit/head")).json()
    newest = (await admin.get("/v1/audit")).json()["items"][0]
    assert (second["sequence"], second["hash"]) == (newest["sequence"], newest["hash"])
    assert (first["sequence"], second["sequence"]) == (2, 3)
    assert first["key"] == second["key"]
    for head, since in ((first, 2), (second, 3)):
        assert check_export([json.dumps(head)], first["key"], since).problem is None
        assert check_export([json.dumps(head | {"at": "2020-01-01"})], first["key"], since).problem is not None


async def test_heads_at_the_same_time_make_one_key(admin: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(admin.get("/v1/audit/head") for _ in range(10)))
    assert len({answer.json()["key"] for answer in answers}) == 1
    assert len((await admin.get("/v1/audit")).json()["items"]) == 1


async def test_what_was_sealed_opens_after_a_key_for_heads_was_made(api: Api, admin: httpx.AsyncClient) -> None:
    before = api.vault.seal(api.tenant_id, "events", api.tenant_id, b"body")
    await admin.get("/v1/audit/head")
    assert await keyring.fill(api.database, api.vault) == []
    after = api.vault.seal(api.tenant_id, "events", api.tenant_id, b"body")
    # A record names its data key in the bytes after its version.
    assert before[:5] == after[:5]
    assert api.vault.open(api.tenant_id, "events", api.tenant_id, after) == b"body"


async def test_the_hash_of_an_entry_is_the_same_as_it_was(api: Api) -> None:
    """What JSON does to a value on its way through the database must not break the chain."""
    after = {
        "numbers": [1, 1.5, 0.1, 15.0, 1e-7, -3],
        "text": "äöü \u2028 \U0001f9ea",
        "none": None,
        "deep": {"b": 1, "a": [True]},
    }
    async with api.database.begin() as connection:
        await audit.write(connection, api.tenant_id, audit.Entry("cli", "local", "thing.done", "x", after=after))
        await audit.write(connection, api.tenant_id, audit.Entry("cli", "local", "thing.done", "y"))
    async with api.database.begin() as connection:
        found = await audit.verify(connection, api.tenant_id)
    assert (found.entries, found.broken_at) == (2, None)


async def test_entries_are_found_by_the_time_at_which_they_were_made(api: Api, admin: httpx.AsyncClient) -> None:
    async with api.database.begin() as connection:
        for name in "abcde":
            await audit.write(connection, api.tenant_id, audit.Entry("cli:alice", "local", "thing.done", name))
    entries = (await admin.get("/v1/audit")).json()["items"]
    moments = [entry["at"] for entry in entries[::-1]]
    assert moments == sorted(moments)
    assert await targets(admin, since=moments[1]) == ["e", "d", "c", "b"]
    assert await targets(admin, until=moments[1]) == ["a"]
    assert await targets(admin, since=moments[1], until=moments[4]) == ["d", "c", "b"]
    assert await targets(admin, since=moments[1], until=moments[4], target="c", actor="cli:alice") == ["c"]
    assert await targets(admin, since=moments[1], target="a") == []
    assert await targets(admin, since="2999-01-01T00:00:00Z") == []
    assert await targets(admin, until="1999-01-01T00:00:00Z", actor="cli:alice") == []
    page = (await admin.get("/v1/audit", params={"since": moments[1], "limit": 2})).json()
    following = {"since": moments[1], "limit": 2, "cursor": page["next_cursor"]}
    assert await targets(admin, **following) == ["c", "b"]


async def targets(client: httpx.AsyncClient, **query: object) -> list[str]:
    found = await client.get("/v1/audit", params=query)  # type: ignore[arg-type]
    assert found.is_success, found.text
    return [entry["target"] for entry in found.json()["items"]]
