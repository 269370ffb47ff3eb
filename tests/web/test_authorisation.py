"""Who may do what, asked of every operation that the OpenAPI document lists: a new route is in here by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event
from uuid_utils.compat import uuid7

from tests.web.serving import Api
from tests.web.world import World, make_world, post
from webhook_gateway.rules import api_keys, ids
from webhook_gateway.rules.scopes import OF_A_SUBSCRIBER, Scope
from webhook_gateway.store import keys, tenants

WITHOUT_KEY = {"getHealth", "getReadiness", "getPublicKeys"}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the document, with its example body."""

    id: str
    method: str
    path: str
    scope: str | None
    body: Any

    def names_something(self) -> bool:
        return "{" in self.path


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            examples = content.get("examples", {"none": {"value": None}})
            body = next(iter(examples.values()))["value"]
            yield Operation(operation["operationId"], method.upper(), path, operation.get("x-required-scope"), body)


async def ask(client: httpx.AsyncClient, operation: Operation, world: World) -> httpx.Response:
    body = operation.body
    if isinstance(body, dict):
        own = {"subscriber_id": world.subscriber_id, "endpoint_id": world.endpoint_id}
        body = {name: own.get(name, value) for name, value in body.items()}
    asked = {"endpoint_id": world.endpoint_id} if operation.id == "getPublicKeys" else None
    return await client.request(operation.method, world.path(operation.path), params=asked, json=body)


@pytest.fixture
async def every(admin: httpx.AsyncClient) -> list[Operation]:
    return list(operations((await admin.get("/openapi.json")).json()))


@pytest.fixture
async def world(api: Api, admin: httpx.AsyncClient) -> World:
    return await make_world(api, admin, api.tenant_id)


@pytest.fixture
async def audited(api: Api, world: World) -> AsyncIterator[None]:
    """Nothing that was refused may have changed anything."""
    counted = "SELECT count(*) FROM audit_log WHERE tenant_id = $1"
    async with api.database.connection() as connection:
        before = await connection.fetchval(counted, api.tenant_id)
    yield
    async with api.database.connection() as connection:
        assert await connection.fetchval(counted, api.tenant_id) == before


async def test_the_document_names_a_scope_for_every_operation_but_the_public_ones(every: list[Operation]) -> None:
    assert {operation.id for operation in every if operation.scope is None} == {
        *WITHOUT_KEY,
        "listEventTypes",
        "getEventType",
    }
    assert len(every) > 40


@pytest.mark.usefixtures("audited")
async def test_nothing_is_done_without_a_live_key(api: Api, every: list[Operation], world: World) -> None:
    ended = datetime.now(UTC) - timedelta(seconds=1)
    live = await api.make_key("admin")
    credentials = {
        "none": None,
        "unknown": f"Bearer {api_keys.new_key(bytes(api_keys.ENTROPY_BYTES))}",
        "mistyped": f"Bearer {live[:-1]}{'a' if live[-1] != 'a' else 'b'}",
        "expired": f"Bearer {await api.make_key('admin', expires_at=ended)}",
        "from elsewhere": f"Bearer {await api.make_key('admin', networks=['10.20.0.0/16'])}",
        "another scheme": f"Basic {live}",
    }
    answers = set()
    async with api.client(None) as client:
        for name, credential in credentials.items():
            client.headers.pop("Authorization", None)
            if credential is not None:
                client.headers["Authorization"] = credential
            for operation in every:
                response = await ask(client, operation, world)
                if operation.id in WITHOUT_KEY:
                    assert response.status_code == 200
                    continue
                assert response.status_code == 401, (name, operation)
                assert response.headers["www-authenticate"].startswith("Bearer")
                answers.add(response.json()["detail"])
    assert len(answers) == 1, "every kind of bad key gets the same answer"


@pytest.mark.usefixtures("audited")
async def test_a_missing_scope_is_refused_by_name(api: Api, every: list[Operation], world: World) -> None:
    for scope in Scope:
        others = [other.value for other in Scope if other not in {scope, Scope.ADMIN}]
        async with api.client(await api.make_key(*others)) as client:
            for operation in every:
                if operation.scope == scope:
                    response = await ask(client, operation, world)
                    assert response.status_code == 403, operation
                    assert scope.value in response.json()["detail"]


async def test_the_scope_that_the_document_names_is_enough(api: Api, every: list[Operation], world: World) -> None:
    # What deletes comes last, so that the others still have something to work on.
    for operation in sorted(every, key=lambda operation: operation.method == "DELETE"):
        scopes = [] if operation.scope is None else [operation.scope]
        if operation.id == "backfillEndpoint":
            scopes.append(Scope.PAYLOAD_READ)  # as its description says
        async with api.client(await api.make_key(*scopes)) as client:
            response = await ask(client, operation, world)
        if operation.id == "createKey":
            assert response.status_code == 201, response.text
        assert response.status_code not in {401, 403}, (operation, response.text)
        assert response.status_code < 500, (operation, response.text)


async def test_an_administrator_reads_no_payloads(api: Api, every: list[Operation], world: World) -> None:
    async with api.client(await api.make_key("admin")) as client:
        for operation in every:
            if operation.method == "GET":
                response = await ask(client, operation, world)
                assert (response.status_code == 403) == (operation.id in {"getPayload", "getResponses"}), operation


@pytest.mark.usefixtures("audited")
async def test_another_hospitals_ids_are_unknown(
    api: Api, admin: httpx.AsyncClient, every: list[Operation], world: World
) -> None:
    async with api.database.connection() as connection:
        stranger_id = await tenants.make(connection, api.vault, "another hospital")
    stranger = await api.make_key("admin", "payload:read", tenant_id=stranger_id)
    async with api.client(stranger) as client:
        await client.get("/v1/stats")
        for operation in every:
            if operation.names_something():
                response = await ask(client, operation, world)
                assert response.status_code == 404, (operation, response.text)
            elif operation.method == "GET" and operation.path.startswith("/v1/"):
                text = (await client.get(operation.path)).text
                for known in (world.endpoint_id, world.delivery_id, world.event_id, world.key_id, world.job_id):
                    assert known not in text, operation
        bodies: dict[str, dict[str, Any]] = {
            "/v1/endpoints": {"url": "https://a.example.com/", "event_types": ["*"]},
            "/v1/keys": {"name": "theirs", "role": "partner"},
        }
        for path, body in bodies.items():
            response = await client.post(path, json={**body, "subscriber_id": world.subscriber_id})
            assert response.status_code == 404, response.text
        response = await client.post("/v1/replays", json={"endpoint_id": world.endpoint_id})
        assert response.status_code == 404
    assert (await admin.get(f"/v1/endpoints/{world.endpoint_id}")).status_code == 200


async def test_unknown_and_foreign_ids_get_the_same_answer_by_the_same_work(
    api: Api, every: list[Operation], world: World
) -> None:
    """The very same statements are run for both, so that no clock can tell one from the other either."""
    async with api.database.connection() as connection:
        stranger_id = await tenants.make(connection, api.vault, "another hospital")
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    async with api.client(await api.make_key("admin", "payload:read", tenant_id=stranger_id)) as client:
        await client.get("/v1/stats")
        event.listen(Engine, "before_cursor_execute", note)
        try:
            for operation in every:
                if not operation.names_something():
                    continue
                told = []
                for asked in (world, unknown(world)):
                    statements.clear()
                    answer = (await ask(client, operation, asked)).json()
                    answer.pop("request_id")
                    told.append((answer, list(statements)))
                assert told[0] == told[1], operation
        finally:
            event.remove(Engine, "before_cursor_execute", note)


def unknown(world: World) -> World:
    """The same kinds of ids, of nothing that there is."""
    known = {field.name: getattr(world, field.name) for field in fields(world) if field.name.endswith("_id")}
    return replace(world, **{name: f"{text[:-26]}{ids.render('x', uuid7())[2:]}" for name, text in known.items()})


async def test_a_subscribers_key_reaches_only_that_subscriber(
    api: Api, admin: httpx.AsyncClient, every: list[Operation], world: World
) -> None:
    other = await make_world(api, admin, api.tenant_id, "Southside")
    scopes = [scope.value for scope in OF_A_SUBSCRIBER]
    made = await post(admin, "/v1/keys", {"name": "partner", "role": "partner", "subscriber_id": other.subscriber_id})
    assert set(made["scopes"]) == set(scopes) - {"payload:read", "patients:search"}
    async with api.database.begin() as connection:
        own = ids.parse(ids.SUBSCRIBER, other.subscriber_id)
        _, key = await keys.issue(connection, api.tenant_id, keys.NewKey("partner", scopes, subscriber_id=own))
    async with api.client(key) as client:
        for operation in every:
            if operation.id in {"getEventType", *WITHOUT_KEY}:
                continue
            if operation.names_something():
                response = await ask(client, operation, world)
                assert response.status_code in {403, 404}, (operation, response.text)
            elif operation.method == "GET" and operation.path.startswith("/v1/"):
                response = await client.get(operation.path)
                for known in (world.subscriber_id, world.endpoint_id, world.delivery_id, world.event_id, world.job_id):
                    assert known not in response.text, operation
        theirs = {"url": "https://a.example.com/", "event_types": ["*"], "subscriber_id": world.subscriber_id}
        assert (await client.post("/v1/endpoints", json=theirs)).status_code == 404
        assert (await client.get(f"/v1/endpoints?subscriber_id={world.subscriber_id}")).json()["items"] == []
        replay = await client.post("/v1/replays", json={"endpoint_id": world.endpoint_id})
        assert replay.status_code == 404

        # And its own things it can see and use.
        assert (await client.get(f"/v1/endpoints/{other.endpoint_id}")).status_code == 200
        assert (await client.get(f"/v1/deliveries/{other.delivery_id}")).status_code == 200
        assert (await client.get(f"/v1/events/{other.event_id}/payload")).status_code == 200
        assert [item["id"] for item in (await client.get("/v1/subscribers")).json()["items"]] == [other.subscriber_id]
        listed = (await client.get("/v1/deliveries")).json()["items"]
        assert {item["endpoint_id"] for item in listed} == {other.endpoint_id}
        assert (await client.post(f"/v1/deliveries/{other.delivery_id}/replay")).status_code == 202
        job = await client.post("/v1/replays", json={"all": True})
        assert job.json()["total"] == 0, "it is on its way already"
        gateways_own = {**theirs, "subscriber_id": other.subscriber_id, "event_types": ["gateway.*"]}
        assert (await client.post("/v1/endpoints", json=gateways_own)).status_code == 422
